"""Task: what is learned, apart from how a network is trained.

A task prepares the data, says what the network must take in and give out, turns stored images into a batch, and owns the loss and the metric. The loops of
`kfnas.train` (children, retraining, final evaluation) know nothing else of it. Another package adds a task by an entry point:

    [project.entry-points."kfnas.tasks"]
    my_task = "my_package.tasks:MyTask"

The object named there is called without arguments and gives a `Task`. It must be picklable, since packed children are trained in worker processes.
Most tasks derive from `ImageTask`, which answers `build_head` and `make_batch`, and are then about fifty lines: `prepare` (usually through
`kfnas.train.image_data`), `network_inputs`, `loss` and `evaluate`. A task may also have

    def check(self, config) -> NetworkInputs | None

which is called before anything runs: it refuses what can be known at once (DataError for a folder that is not there, say) without reading an image or
importing torch, and answers what `network_inputs` will, where it knows.

Shapes: N images of a batch, C channels, R pixels a side, O network outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kfnas import plugins
from kfnas.config import Config
from kfnas.errors import PluginError, UserError

if TYPE_CHECKING:
    import torch

    from kfnas.train.data import PreparedData


class NetworkInputs(NamedTuple):
    """What the data ask of a network's builder."""

    in_channels: int
    resolution: int
    num_outputs: int


class Task(Protocol):
    """The plug-in point. `meta` is always the JSON mapping that `prepare` put beside the data."""

    name: str
    metric: str
    """Name of the value, among those that `evaluate` gives, which the search and the final choice go by."""
    higher_is_better: bool
    """Where False the metric is 0 or more, and the search maximises 1 / (1 + metric). With a target cost the search needs a fraction: a metric of which
    more is better must then lie in [0, 1]."""
    config_type: type[Config]
    """Model of the task's own part of the configuration."""

    def prepare(self, config: Any, *, seed: int, cache_dir: Path | None = None) -> PreparedData:
        """Read, check and split the source that `config` (a `config_type`) names.

        Args:
            config: the task's configuration.
            seed: of every split.
            cache_dir: where downloads are kept; None is `kfnas.train.default_cache_dir()`.

        Raises:
            DataError: the source is missing, unreadable or unfit.
        """

    def network_inputs(self, meta: Mapping[str, Any]) -> NetworkInputs:
        """What a network for these data takes in and gives out."""

    def build_head(self, meta: Mapping[str, Any], generator: torch.Generator) -> torch.nn.Module | None:
        """A module that `loss` needs and that is trained along with the network (a margin head, say), or None.

        It is no part of the model that is evaluated and exported. It draws nothing from torch's global generator.
        """

    def make_batch(
        self, images: torch.Tensor, targets: torch.Tensor, meta: Mapping[str, Any], generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stored images, uint8 [N, C, R, R], and their targets as the network sees them: float32 [N, C, R, R] and targets, on the same device.

        Args:
            images: as stored.
            targets: [N, ...] as stored.
            meta: of the data.
            generator: of the random augmentation (a CPU generator); None while evaluating: no augmentation.
        """

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        """Scalar mean loss of float32 outputs [N, O]; `head` is what `build_head` gave, `label_smoothing` may be ignored by a task without classes."""

    def evaluate(self, outputs: torch.Tensor, targets: torch.Tensor, meta: Mapping[str, Any]) -> Mapping[str, float]:
        """Metrics of a whole split from the network's outputs, float32 [N, O] on the CPU; `metric` must be among them."""


class ImageTask:
    """Answers that most image tasks share: nothing to check at once, no head; crop, flip and normalise as `meta["augmentation"]`, `meta["mean"]` and
    `meta["std"]` say."""

    def check(self, config: Any) -> NetworkInputs | None:
        """None: nothing is known before the data are read."""
        return None

    def build_head(self, meta: Mapping[str, Any], generator: torch.Generator) -> torch.nn.Module | None:
        """None: the network's own classifier gives the outputs that `loss` takes."""
        return None

    def make_batch(
        self, images: torch.Tensor, targets: torch.Tensor, meta: Mapping[str, Any], generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Randomly cropped and flipped where `generator` is given, changed by AutoAugment where the data's `meta` names a policy, then normalised. Targets are
        as stored."""
        from kfnas.train.augment import auto_augment, crop_and_flip, normalise

        if generator is not None:
            augmentation = meta["augmentation"]
            if augmentation.get("auto_augment") is not None:
                images = auto_augment(images, augmentation["auto_augment"], generator)
            images = crop_and_flip(images, padding=augmentation["crop_padding"], flip=augmentation["flip"], generator=generator)
        return normalise(images, meta["mean"], meta["std"]), targets


def oriented(task: Task, metrics: Mapping[str, float]) -> float:
    """The task's metric as something to maximise, what the search calls accuracy: a fraction also where less is better, so that any reward can weigh it
    against cost. NaN where the metric is not finite.

    Raises:
        UserError: the task's metric is negative where less is better.
    """
    value = float(metrics[task.metric])
    if not math.isfinite(value):
        return math.nan
    if task.higher_is_better:
        return value
    if value < 0:
        raise UserError(f"task {task.name}: {task.metric} is {value:.4g}, and a metric of which less is better must be 0 or more; mend the task's `evaluate`")
    return 1 / (1 + value)


def load_task(name: str) -> Task:
    """The task that an installed package provides as entry point `name` of group `kfnas.tasks`.

    Raises:
        PluginError: nothing provides the name, or it provides something that is no task.
    """
    made: Any = plugins.resolve(plugins.TASKS, name)()
    wanted = ("name", "metric", "higher_is_better", "config_type", "prepare", "network_inputs", "build_head", "make_batch", "loss", "evaluate")
    if lacking := [attribute for attribute in wanted if not hasattr(made, attribute)]:
        raise PluginError(f"task {name!r} is made as {type(made).__name__}, which lacks {', '.join(lacking)}; see kfnas.train.Task")
    task: Task = made
    return task
