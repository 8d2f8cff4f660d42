"""Tasks that misbehave in one way each, for the tests of what a child's fault does."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kfnas.train import Classification


class KilledOnce(Classification):
    """The first step anywhere kills its process, as the kernel does when memory runs out."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return super().loss(outputs, targets, head=head, label_smoothing=label_smoothing)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")


class Raising(Classification):
    """Every step raises what it was made with."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        raise self.error


class WithHead(Classification):
    """Loss through a trained module of its own, as face recognition has it."""

    def build_head(self, meta: Mapping[str, Any], generator: torch.Generator) -> torch.nn.Module:
        outputs = len(meta["classes"])
        head = torch.nn.Linear(outputs, outputs)
        with torch.no_grad():
            head.weight.copy_(torch.eye(outputs) + 0.01 * torch.randn(outputs, outputs, generator=generator))
            head.bias.zero_()
        return head

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        assert head is not None
        return super().loss(head(outputs), targets, head=None, label_smoothing=label_smoothing)
