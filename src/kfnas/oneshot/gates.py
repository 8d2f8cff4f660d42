"""Gradients of a supernet's loss in the gates of its paths: what BetaNAS and ProxylessNAS move importance by.

With a block's output O = sum_j g_j o_j(x) and a one-hot g that lets the drawn path through, dL/dg_j = <dL/dO, o_j(x)> (equation 4 of BetaNAS with
section 3.2.1 of ProxylessNAS). One pass along the drawn path gives x and dL/dO of every block; each compared operator then runs on x alone, and its output
is gone before the next one runs. Memory is that of the drawn path and one operator, however many are compared.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kfnas.nn.supernet import Supernet
from kfnas.oneshot.batches import Batches
from kfnas.oneshot.beta_nas import Draw
from kfnas.oneshot.ranks import OneRank, Ranks
from kfnas.oneshot.training import Autocast, Loss


class GateGradients(NamedTuple):
    """Loss along the drawn path, and dL/dg for each block in the order of `Draw.compared`."""

    loss: float
    gradients: list[npt.NDArray[np.float64]]


class Gates(Protocol):
    """Where gate gradients come from."""

    def gradients(self, draw: Draw, step: int) -> GateGradients:
        """Of importance step `step` (from 0). Weights stay as they are."""


def gate_gradients(
    supernet: Supernet, images: Tensor, targets: Tensor, loss: Loss, draw: Draw, *, autocast: Autocast = contextlib.nullcontext
) -> tuple[Tensor, list[Tensor]]:
    """Loss, a scalar, and dL/dg [len(compared)] of each block for images [N, C, H, W]; batch normalisation is by the batch, parameters get no gradient."""
    inputs, outputs = [], []
    with autocast():
        features = supernet.enter(images)
        for block, choice in enumerate(draw.path):
            inputs.append(features.detach())
            features = supernet.operator(block, choice)(features)
            outputs.append(features)
        logits = supernet.leave(features)
    value = loss(logits.float(), targets)
    # Of the graph only what leads to the blocks' outputs is run: no gradient of a parameter is computed.
    upstream = torch.autograd.grad(value, outputs)
    found = []
    with torch.no_grad(), autocast():
        for block, (features, gradient) in enumerate(zip(inputs, upstream, strict=True)):
            # The drawn operator's own output is at hand.
            found.append(
                torch.stack(
                    [
                        (
                            (outputs[block].detach() if choice == draw.path[block] else supernet.operator(block, choice)(features)).float() * gradient.float()
                        ).sum()
                        for choice in draw.compared[block]
                    ]
                )
            )
    return value.detach(), found


class SupernetGates:
    """`Gates` on a supernet and the parts of each step's validation batch, averaged over parts and ranks.

    Args:
        supernet: with its weights; is not changed.
        batches: validation images.
        loss: cross-entropy, say.
        num_parts: of a step's batch.
        autocast: context of the forward passes.
        ranks: processes that share the parts.
    """

    def __init__(
        self,
        supernet: Supernet,
        batches: Batches,
        loss: Loss,
        *,
        num_parts: int = 1,
        autocast: Autocast = contextlib.nullcontext,
        ranks: Ranks | None = None,
    ) -> None:
        self._supernet, self._batches, self._loss = supernet, batches, loss
        self._num_parts, self._autocast = num_parts, autocast
        self._ranks: Ranks = OneRank() if ranks is None else ranks

    def gradients(self, draw: Draw, step: int) -> GateGradients:
        """See `Gates`."""
        sizes = [1, *(len(choices) for choices in draw.compared)]
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        for part in range(self._ranks.rank, self._num_parts, self._ranks.size):
            images, targets = self._batches.part(step, part)
            loss, found = gate_gradients(self._supernet, images, targets, self._loss, draw, autocast=self._autocast)
            total += torch.cat([loss.reshape(1), *found]).double().cpu() / self._num_parts
        self._ranks.add([total])
        loss_part, *gradients = np.split(total.numpy(), np.cumsum(sizes)[:-1])
        return GateGradients(float(loss_part[0]), gradients)
