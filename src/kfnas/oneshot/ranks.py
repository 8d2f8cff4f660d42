"""Ranks that train one supernet together, each on its share of a step's parts.

torch's DistributedDataParallel registers every parameter and must search for the unused ones when each step takes other paths. Here every rank knows all
paths of a step (they depend on the seed and the step alone), so the gradients of exactly these parameters are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Ranks(Protocol):
    """A group of processes that add up tensors."""

    rank: int
    size: int

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in place; all ranks call it with the same shapes."""


class OneRank:
    """A process alone."""

    rank = 0
    size = 1

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""


class ProcessGroup:
    """The default group of `torch.distributed`, which the caller has initialised (under torchrun: `init_process_group()`)."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """One all-reduce of all tensors, which must be of one type, behind each other."""
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(together)
        start = 0
        for tensor in tensors:
            stop = start + tensor.numel()
            tensor.copy_(together[start:stop].view(tensor.shape))
            start = stop
