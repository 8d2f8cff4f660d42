"""Recipes: how long and how a network is trained. Plain configuration, free of torch, so that a step which trains nothing can read one.

A recipe is part of a child's key (`kfnas.storage`): two children share a result only where every field here is equal.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kfnas.config import Config

TRAINING_CODE_VERSION = 1
"""Part of a child's key. Raised whenever the same recipe and seed would give other weights."""


class TrainingConfig(Config):
    """What proxy training and retraining have in common. The learning rate follows a cosine from `learning_rate` to zero after a linear warm-up."""

    epochs: float | None = Field(None, gt=0, description="passes over the training images; exactly one of epochs and steps")
    steps: int | None = Field(None, ge=1, description="optimiser steps; exactly one of epochs and steps")
    batch_size: int = Field(64, ge=2, description="images a step")
    optimizer: Literal["sgd", "adamw", "rmsprop"] = Field("sgd", description="sgd is SGD with Nesterov momentum")
    learning_rate: float = Field(0.1, gt=0, description="the highest learning rate, reached after the warm-up")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and rmsprop")
    weight_decay: float = Field(1e-4, ge=0, description="of convolution and linear weights; none on biases and batch normalisation")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises linearly")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target's weight spread over all classes, where the task has classes")
    augment: bool = Field(True, description="whether the task's random augmentation is on")
    max_grad_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this norm; None: never")
    batch_norm_momentum: float = Field(0.1, gt=0, le=1, description="weight of a new batch in the running statistics of batch normalisation")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one. bfloat16 autocast is used on CUDA only")
    threads: int = Field(1, ge=1, description="CPU threads of a training process; several processes with one thread each are faster than one with several")

    @model_validator(mode="after")
    def _has_one_budget(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give exactly one of epochs and steps, not epochs={self.epochs} and steps={self.steps}")
        return self

    def num_steps(self, num_images: int) -> int:
        """Optimiser steps for a training set of `num_images`; an epoch drops its last, incomplete batch."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * (num_images // min(self.batch_size, num_images))))


class ProxyConfig(TrainingConfig):
    """Recipe of a child: a short training on mini-train, scored on mini-val."""

    augment: bool = Field(False, description="whether the task's random augmentation is on; in the first few epochs it only slows learning")
    learning_rate: float = Field(0.05, gt=0, description="the highest learning rate, reached after the warm-up")
    batch_norm_momentum: float = Field(
        0.2, gt=0, le=1, description="weight of a new batch in running statistics of batch normalisation; short trainings need more"
    )


class RetrainConfig(TrainingConfig):
    """Recipe of a finalist: a training from scratch on the whole training set."""

    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target's weight spread over all classes, where the task has classes")
    mixup_alpha: float = Field(0.0, ge=0, description="images are mixed in pairs by a Beta(alpha, alpha) share; 0: never")
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="decay of the averaged weights, which are the result; it warms up as (1 + step) / (10 + step). 0: no averaging"
    )
    checkpoint_steps: int = Field(500, ge=1, description="optimiser steps between two checkpoints")
