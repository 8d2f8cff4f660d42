"""Shared weights of a supernet, trained along one path a mini-batch.

A step has one or more parts, each a mini-batch and a path of its own; their gradients are accumulated, then one SGD step trains the operators on these
paths, and no others: an operator that was on no path keeps weights and momentum, and is not decayed.

Paths, batches and augmentation of step s depend on (seed, s) alone, so a training that goes on from a checkpoint, or is spread over ranks, gives the same
weights: bit for bit where a step has at most two parts, else up to the order of the additions.

Source of the recipe's defaults: PC-NAS, section 4.1.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from kfnas.config import canonical_json
from kfnas.errors import ConfigError, ConfigMismatch
from kfnas.nn.supernet import Supernet
from kfnas.oneshot.batches import Batches
from kfnas.oneshot.packing import Packed, pack, unpack
from kfnas.oneshot.paths import Path, Sampler
from kfnas.oneshot.ranks import OneRank, Ranks
from kfnas.oneshot.recipe import SupernetConfig, learning_rate
from kfnas.oneshot.seeds import derived_seed, random_stream

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Mean loss, a scalar, of float32 outputs [N, O] and targets [N, ...]."""
Autocast: TypeAlias = Callable[[], contextlib.AbstractContextManager[Any]]
"""A context in which the forward pass runs; where mixed precision is switched on."""


class TrainedStep(NamedTuple):
    """What one step did.

    Attributes:
        loss: mean over the parts, before the step.
        paths: of all parts, in order.
    """

    loss: float
    paths: tuple[Path, ...]


class SupernetTraining:
    """A supernet on its way: weights, momentum, and how many steps are done; `save` gives all of it.

    Args:
        supernet: on its device; is trained in place.
        batches: training images; their parts must be `config.num_parts`.
        loss: of a batch.
        config: the recipe.
        num_steps: of the whole training, over which the learning rate falls.
        seed: of paths and dropout.
        head: a module that `loss` needs and that is trained along with every path (a margin head, say), or None.
        autocast: context of the forward pass.
        ranks: processes that share the parts of each step.

    Raises:
        ConfigError: more ranks than parts.
    """

    def __init__(
        self,
        supernet: Supernet,
        batches: Batches,
        loss: Loss,
        config: SupernetConfig,
        *,
        num_steps: int,
        seed: int,
        head: nn.Module | None = None,
        autocast: Autocast = contextlib.nullcontext,
        ranks: Ranks | None = None,
    ) -> None:
        self.supernet = supernet
        self.num_steps_done = 0
        self._batches, self._loss, self._config, self._seed, self._autocast = batches, loss, config, seed, autocast
        self._ranks: Ranks = OneRank() if ranks is None else ranks
        if self._ranks.size > config.num_parts:
            raise ConfigError(f"num_parts: {config.num_parts} parts a step leave some of {self._ranks.size} ranks idle; set it to the number of ranks or more")
        self._num_steps = num_steps
        self._trained = nn.ModuleDict({"supernet": supernet} if head is None else {"supernet": supernet, "head": head})
        self._head_parameters = [] if head is None else list(head.parameters())
        self._names = {parameter: name for name, parameter in self._trained.named_parameters()}
        self._optimizer = _optimizer(list(self._names), config)
        self._dropout = torch.Generator(next(supernet.parameters()).device)

    @property
    def num_epochs(self) -> int:
        """Whole epochs done."""
        return self.num_steps_done // self._batches.steps_per_epoch

    def train(self, sample: Sampler, *, until: int) -> None:
        """Train along paths that `sample` draws until `until` epochs are done in all.

        Raises:
            FloatingPointError: the loss is no finite number.
        """
        while self.num_steps_done < until * self._batches.steps_per_epoch:
            self.step(sample)

    def step(self, sample: Sampler) -> TrainedStep:
        """One step on the next batch.

        Raises:
            FloatingPointError: the loss is no finite number.
        """
        step, num_parts = self.num_steps_done, self._config.num_parts
        paths = tuple(sample(random_stream(self._seed, "path", step, part)) for part in range(num_parts))
        loss = torch.zeros((), device=next(self.supernet.parameters()).device)
        for part in range(self._ranks.rank, num_parts, self._ranks.size):
            loss += self._backward(step, part, paths[part])
        trained = list(dict.fromkeys([*(parameter for path in paths for parameter in self._parameters(path)), *self._head_parameters]))
        self._add_gradients(trained, loss)
        value = float(loss)
        if not math.isfinite(value):
            raise FloatingPointError(f"diverged: the loss of step {step} is no finite number; lower learning_rate")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._num_steps, self._config)
        if self._config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(trained, self._config.max_grad_norm)
        self._optimizer.step()
        for parameter in trained:
            parameter.grad = None
        self.num_steps_done += 1
        return TrainedStep(value, paths)

    def save(self) -> bytes:
        """Weights, momentum and step as one blob; equal states give equal bytes."""
        arrays = {f"weights/{name}": _array(tensor) for name, tensor in self._trained.state_dict().items()}
        for parameter, name in self._names.items():
            if (momentum := self._optimizer.state.get(parameter, {}).get("momentum_buffer")) is not None:
                arrays[f"momentum/{name}"] = _array(momentum)
        return pack(Packed({**self._identity(), "step": self.num_steps_done}, arrays))

    @torch.no_grad()
    def restore(self, data: bytes) -> None:
        """Become what `save` was called on.

        Raises:
            CorruptError: the bytes are damaged.
            ConfigMismatch: they are of another space, recipe, length or seed.
        """
        values, arrays = unpack(data)
        _check(values, self._identity())
        self._trained.load_state_dict({name.removeprefix("weights/"): torch.from_numpy(array) for name, array in arrays.items() if name.startswith("weights/")})
        self._optimizer.state.clear()
        for parameter, name in self._names.items():
            if (momentum := arrays.get(f"momentum/{name}")) is not None:
                # Laid out in memory as the parameter is.
                self._optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(torch.from_numpy(momentum))
        self.num_steps_done = values["step"]

    def _backward(self, step: int, part: int, path: Path) -> Tensor:
        """Accumulate the gradients of one part; its share of the step's loss, a scalar."""
        images, targets = self._batches.part(step, part)
        self._dropout.manual_seed(derived_seed(self._seed, "dropout", step, part))
        with self._autocast():
            outputs = self.supernet(images, self.supernet.space.architecture(path), generator=self._dropout)
        loss = self._loss(outputs.float(), targets) / self._config.num_parts
        loss.backward()
        return loss.detach()

    def _parameters(self, path: Path) -> list[nn.Parameter]:
        return self.supernet.path_parameters(self.supernet.space.architecture(path))

    def _add_gradients(self, trained: list[nn.Parameter], loss: Tensor) -> None:
        if self._ranks.size == 1:
            return
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._ranks.add([*(parameter.grad for parameter in trained if parameter.grad is not None), loss])

    def _identity(self) -> dict[str, Any]:
        """What a saved state must agree on."""
        return {
            **_networks(self.supernet),
            "config": canonical_json(self._config),
            "num_steps": self._num_steps,
            "seed": self._seed,
        }


@torch.no_grad()
def load_weights(supernet: Supernet, data: bytes) -> None:
    """Give `supernet` the weights that `SupernetTraining.save` saved: all that a process needs which only evaluates paths.

    Raises:
        CorruptError: the bytes are damaged.
        ConfigMismatch: they are of another space, or of networks with other arguments.
    """
    values, arrays = unpack(data)
    _check(values, _networks(supernet))
    prefix = "weights/supernet."
    supernet.load_state_dict({name.removeprefix(prefix): torch.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)})


def _networks(supernet: Supernet) -> dict[str, Any]:
    return {"space": supernet.space.digest, "arguments": canonical_json(supernet.arguments)}


def _check(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if differing := sorted(key for key in expected if saved.get(key) != expected[key]):
        shown = "; ".join(f"{key}: {saved.get(key)} there, {expected[key]} here" for key in differing)
        raise ConfigMismatch(f"the saved weights belong to another training ({shown}); use its configuration, or start anew")


def _optimizer(parameters: list[nn.Parameter], config: SupernetConfig) -> torch.optim.SGD:
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, foreach=True)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().numpy()
