"""The loop that children and finalists share: one optimiser step, the learning rate, evaluation.

All randomness of step s comes from (seed, s) alone, and that of an epoch's order from (seed, epoch): a training that goes on from a checkpoint needs
no generator's state, and neither workers nor the order of children can change a result.

Shapes: N images of a batch, C channels, R pixels a side, O network outputs.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from kfnas.errors import ConfigError
from kfnas.nn import Network, build_network
from kfnas.space import NetworkSpec
from kfnas.train.augment import mixup
from kfnas.train.data import Split
from kfnas.train.recipes import TrainingConfig
from kfnas.train.task import Task

EVALUATION_BATCH = 500
DIVERGED_FACTOR = 10.0
_CHECK_STEPS = 20


def derived_seed(seed: int, stream: str, index: int = 0) -> int:
    """A 63-bit seed for one use of one stream: independent for every (seed, stream, index)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()[:8], "big") >> 1


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here.

    Raises:
        ConfigError: `cuda` is asked for where there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, and torch finds no CUDA device; set device to auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Torch computes with this many CPU threads inside the block."""
    before = torch.get_num_threads()
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads != before:
            torch.set_num_threads(before)


def learning_rate(step: int, num_steps: int, config: TrainingConfig) -> float:
    """Rate of step 0 <= step < num_steps: a linear warm-up, then a cosine that would reach zero at num_steps.

    Source: Loshchilov and Hutter, arXiv 1608.03983, without restarts.
    """
    warmup_steps = round(config.warmup * num_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / (num_steps - warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(modules: list[nn.Module], config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser of a recipe. Biases and batch normalisation (tensors of one dimension) are not decayed."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, foreach=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, foreach=True)
    return torch.optim.RMSprop(groups, lr=config.learning_rate, alpha=0.9, eps=1e-3, momentum=config.momentum, foreach=True)


class Training:
    """A network on its way: modules, optimiser, and one step at a time.

    Attributes:
        network: the network, on `device`, in channels-last memory.
        head: the task's head, or None.
        optimizer: of both.
        num_steps: of the whole training.
        steps_per_epoch: of one pass over the images.
    """

    def __init__(self, spec: NetworkSpec, split: Split, meta: Mapping[str, Any], task: Task, config: TrainingConfig, seed: int) -> None:
        self.device = resolve_device(config.device)
        self.network: Network = build_network(spec, _generator(derived_seed(seed, "network")))
        self.network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = task.build_head(meta, _generator(derived_seed(seed, "head")))
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = config.batch_norm_momentum
        modules: list[nn.Module] = [self.network]
        if self.head is not None:
            modules.append(self.head.to(self.device))
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        self.optimizer = build_optimizer(modules, config)
        self.num_steps = config.num_steps(len(split))
        self.batch_size = min(config.batch_size, len(split))
        self.steps_per_epoch = len(split) // self.batch_size
        self._images, self._targets = split.images.to(self.device), split.targets.to(self.device)
        self._meta, self._task, self._config, self._seed = meta, task, config, seed
        self._generator = torch.Generator()
        self._dropout = torch.Generator(self.device)
        self._order: tuple[int, torch.Tensor] = (-1, torch.empty(0))

    def step(self, step: int, *, mixup_alpha: float = 0.0) -> torch.Tensor:
        """One optimiser step on the batch of `step`.

        Args:
            step: from 0; its number alone decides batch, augmentation and learning rate.
            mixup_alpha: of `kfnas.train.augment.mixup`; 0: not mixed.

        Returns:
            The loss before the step, a scalar without gradient.
        """
        which = self._batch(step)
        self._generator.manual_seed(derived_seed(self._seed, "augment", step))
        images, targets = self._task.make_batch(self._images[which], self._targets[which], self._meta, self._generator if self._config.augment else None)
        mixture = mixup(images, mixup_alpha, np.random.default_rng(derived_seed(self._seed, "mixup", step))) if mixup_alpha else None
        with autocast(self.device):
            self._dropout.manual_seed(derived_seed(self._seed, "dropout", step))
            outputs = self.network(images if mixture is None else mixture.images, self._dropout)
        loss = self._loss(outputs.float(), targets)
        if mixture is not None:
            loss = mixture.share * loss + (1 - mixture.share) * self._loss(outputs.float(), targets[mixture.partner])
        rate = learning_rate(step, self.num_steps, self._config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        if self._config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self._config.max_grad_norm)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._task.loss(outputs, targets, head=self.head, label_smoothing=self._config.label_smoothing)

    def _batch(self, step: int) -> torch.Tensor:
        """Indices [N] of the images of a step: each epoch goes through a new permutation and drops what fills no batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = torch.randperm(len(self._images), generator=_generator(derived_seed(self._seed, "order", epoch)))
            self._order = (epoch, order.to(self.device))
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]


class DivergenceWatch:
    """Says when a training has diverged: a loss that is no number, or one far over the loss of the untrained network, which is that of chance.

    Attributes:
        first_loss: of the first step, None before it.
        mean_loss: of the steps between the last two looks, None before the first.
    """

    def __init__(self, first_loss: float | None = None, mean_loss: float | None = None) -> None:
        self.first_loss = first_loss
        self.mean_loss = mean_loss
        self._sum: torch.Tensor | None = None
        self._count = 0

    def check(self, loss: torch.Tensor, *, now: bool) -> str | None:
        """Reason why the training has diverged, or None. Looks every 20 steps, and where `now` says so, for a look waits for the device."""
        if self.first_loss is None:
            self.first_loss = float(loss)
        self._sum = loss if self._sum is None else self._sum + loss
        self._count += 1
        if self._count < _CHECK_STEPS and not now:
            return None
        self.mean_loss, self._sum, self._count = float(self._sum) / self._count, None, 0
        if not math.isfinite(self.mean_loss):
            return "diverged: the loss is no finite number; lower learning_rate"
        if self.mean_loss > DIVERGED_FACTOR * max(self.first_loss, 1e-3):
            return f"diverged: the loss rose from {self.first_loss:.3g} to {self.mean_loss:.3g}; lower learning_rate"
        return None


@torch.inference_mode()
def evaluate(network: nn.Module, split: Split, meta: Mapping[str, Any], task: Task, device: torch.device) -> dict[str, float]:
    """The task's metrics of a split, in evaluation mode and without augmentation; the network is left in evaluation mode.

    Raises:
        FloatingPointError: an output is no finite number.
    """
    network.eval()
    outputs, targets = [], []
    for images, wanted in zip(split.images.split(EVALUATION_BATCH), split.targets.split(EVALUATION_BATCH), strict=True):
        batch, batch_targets = task.make_batch(images.to(device), wanted.to(device), meta, None)
        with autocast(device):
            outputs.append(network(batch).float().cpu())
        targets.append(batch_targets.cpu())
    gathered = torch.cat(outputs)
    if not torch.isfinite(gathered).all():
        raise FloatingPointError("diverged: outputs of the trained network are no finite numbers; lower learning_rate")
    return {name: float(value) for name, value in task.evaluate(gathered, torch.cat(targets), meta).items()}


def autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Bfloat16 autocast on a CUDA device that has bfloat16, else nothing: on CPUs it is slower."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def copied(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A copy of a state dict on the CPU, contiguous."""
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
