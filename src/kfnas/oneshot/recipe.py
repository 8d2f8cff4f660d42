"""How shared weights are trained, as configuration: what a run's configuration is made of, without torch.

Source of the defaults: PC-NAS, section 4.1.
"""

from __future__ import annotations

import math

from pydantic import Field

from kfnas.config import Config


class SupernetConfig(Config):
    """How shared weights are trained; the defaults are the paper's."""

    learning_rate: float = Field(0.1, gt=0, description="of the first step")
    final_learning_rate: float = Field(5e-4, ge=0, description="towards which a cosine falls")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum; 0: none")
    weight_decay: float = Field(1e-4, ge=0, description="of convolution and linear weights; none on biases and batch normalisation")
    num_parts: int = Field(1, ge=1, description="mini-batches of a step, each along a path of its own; their gradients are averaged")
    max_grad_norm: float | None = Field(None, gt=0, description="gradients of a step are scaled down to this norm; None: never")


def learning_rate(step: int, num_steps: int, config: SupernetConfig) -> float:
    """Cosine from the first rate at step 0 towards the final one at `num_steps` (Loshchilov and Hutter, arXiv:1608.03983, without restarts)."""
    falling = 0.5 * (1 + math.cos(math.pi * min(step / max(num_steps, 1), 1.0)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * falling
