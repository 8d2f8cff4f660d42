"""Checkpoints of a retraining: weights, optimiser, averaged weights and step as one safetensors blob with a JSON header. Never pickle."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError

from kfnas.config import canonical_json

_log = logging.getLogger(__name__)
_FORMAT = 1
_KEY = "kfnas"


class Checkpoints(Protocol):
    """Where the last checkpoint of one retraining is kept."""

    def load(self) -> bytes | None:
        """The last one saved, whole, or None."""

    def save(self, data: bytes) -> None:
        """Replace it: a reader sees the old one or the new one, never a part."""


class FileCheckpoints:
    """The last checkpoint in one file."""

    def __init__(self, path: Path) -> None:
        self._path = Path(path)

    def load(self) -> bytes | None:
        """The file's bytes; None if there is none."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, data: bytes) -> None:
        """Write beside the file, then rename over it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


class Checkpoint(NamedTuple):
    """State after `header["step"]` steps; tensors by name."""

    header: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def pack(checkpoint: Checkpoint) -> bytes:
    """One safetensors blob, the header in its metadata."""
    header = canonical_json({**checkpoint.header, "format": _FORMAT})
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, metadata={_KEY: header})


def unpack(data: bytes) -> Checkpoint | None:
    """What `pack` was given; None, with a warning, if the bytes are damaged or of another format: training then starts again."""
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']}, not {_FORMAT}")
    except (SafetensorError, ValueError, KeyError) as error:
        _log.warning("a checkpoint cannot be used (%s); training starts from the beginning", error)
        return None
    return Checkpoint(header, tensors)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state: `{index of the parameter}/{name}` to tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value.detach().cpu() for index, values in state.items() for name, value in values.items() if isinstance(value, torch.Tensor)}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
