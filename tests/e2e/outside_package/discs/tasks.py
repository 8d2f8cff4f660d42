"""Images of one disc; the network tells its diameter in pixels. Less error is better, and the loss is none of kfnas's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from kfnas.config import Config
from kfnas.errors import DataError
from kfnas.train import ImageTask, NetworkInputs

if TYPE_CHECKING:
    import torch

    from kfnas.train import PreparedData


class DiscSizeConfig(Config):
    num_images: int = Field(120, ge=20)
    resolution: int = Field(16, ge=8)
    colour: str = "white"


class DiscSize(ImageTask):
    name = "disc_size"
    metric = "mean_error_pixels"
    higher_is_better = False
    config_type: type[Config] = DiscSizeConfig

    def check(self, config: DiscSizeConfig) -> NetworkInputs:
        if config.colour != "white":
            raise DataError(f"colour {config.colour!r}: the discs are white; write colour: white")
        return NetworkInputs(1, config.resolution, 1)

    def prepare(self, config: DiscSizeConfig, *, seed: int, cache_dir: Path | None = None) -> PreparedData:
        import torch

        from kfnas.train import image_data

        rng = np.random.default_rng(seed)
        diameters = rng.uniform(3, config.resolution - 2, config.num_images)
        x, y = rng.uniform(-1, 1, (2, config.num_images, 1, 1)) + config.resolution / 2
        rows, columns = np.mgrid[: config.resolution, : config.resolution] + 0.5
        images = np.hypot(rows - y, columns - x) < diameters[:, None, None] / 2
        pixels = torch.from_numpy((images * 255).astype(np.uint8))[:, None]
        targets = torch.from_numpy(diameters.astype(np.float32))
        num_test = config.num_images // 4
        return image_data(pixels[num_test:], targets[num_test:], pixels[:num_test], targets[:num_test], seed=seed, meta={"task": self.name})

    def network_inputs(self, meta: Mapping[str, Any]) -> NetworkInputs:
        return NetworkInputs(meta["in_channels"], meta["resolution"], 1)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        from torch.nn import functional as F

        return F.smooth_l1_loss(outputs[:, 0], targets)

    def evaluate(self, outputs: torch.Tensor, targets: torch.Tensor, meta: Mapping[str, Any]) -> dict[str, float]:
        errors = (outputs[:, 0] - targets).abs()
        return {"mean_error_pixels": float(errors.mean()), "worst_error_pixels": float(errors.max())}
