"""A user's task in a package of its own: predict the angle of a bar. The network gives (cos 2a, sin 2a); the metric is an error, so lower is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from kfnas.config import Config
from kfnas.train import ImageTask, NetworkInputs, PreparedData, image_data


class AngleConfig(Config):
    num_images: int = Field(400, ge=20)
    resolution: int = Field(16, ge=8)


class AngleTask(ImageTask):
    name = "angle"
    metric = "mean_error_degrees"
    higher_is_better = False
    config_type: type[Config] = AngleConfig

    def prepare(self, config: AngleConfig, *, seed: int, cache_dir: Path | None = None) -> PreparedData:
        angles = np.random.default_rng(seed).uniform(0, math.pi, config.num_images)
        grid = np.linspace(-1, 1, config.resolution)
        across = grid[None, :, None] * np.cos(angles)[:, None, None] - grid[None, None, :] * np.sin(angles)[:, None, None]
        images = torch.from_numpy(((np.abs(across) < 0.25) * 255).astype(np.uint8))[:, None]
        targets = torch.from_numpy(angles.astype(np.float32))
        num_test = config.num_images // 5
        return image_data(images[num_test:], targets[num_test:], images[:num_test], targets[:num_test], seed=seed, meta={"task": self.name})

    def network_inputs(self, meta: Mapping[str, Any]) -> NetworkInputs:
        return NetworkInputs(meta["in_channels"], meta["resolution"], 2)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        return torch.nn.functional.mse_loss(outputs, torch.stack([torch.cos(2 * targets), torch.sin(2 * targets)], dim=1))

    def evaluate(self, outputs: torch.Tensor, targets: torch.Tensor, meta: Mapping[str, Any]) -> dict[str, float]:
        predicted = torch.atan2(outputs[:, 1], outputs[:, 0]) / 2
        error = (predicted - targets).remainder(math.pi)
        return {"mean_error_degrees": math.degrees(float(torch.minimum(error, math.pi - error).mean()))}
