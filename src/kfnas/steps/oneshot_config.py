"""Configuration of the searches on one supernet: how shared weights are trained and read, and what each algorithm is told.

The budget of a run is `search.reward.target` in units of `cost`, whatever the algorithm: PC-NAS and evolution take it as their limit, BetaNAS as its target.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kfnas.config import Config
from kfnas.oneshot import BetaNASConfig, EvolutionConfig, PCNASConfig, SupernetConfig, pc_nas_evaluations
from kfnas.space import Space
from kfnas.space.layers import Activation, NetworkSpec
from kfnas.space.mixop_variants import with_activation, with_squeeze_excite

Algorithm = Literal["fnas", "mnas", "pcnas", "betanas", "oneshot", "random", "evolution", "local_search"]
OneShotAlgorithm = Literal["pcnas", "betanas", "oneshot"]
ONE_SHOT: tuple[str, ...] = ("pcnas", "betanas", "oneshot")


class SharedTrainingConfig(SupernetConfig):
    """How shared weights are trained: the optimiser's part, and what it is given."""

    batch_size: int = Field(512, ge=2, description="images a step, over all its parts")
    augment: bool = Field(True, description="whether the task's random augmentation is on")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target's weight spread over all classes, where the task has classes")
    checkpoint_steps: int = Field(500, ge=1, description="steps between two checkpoints")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one. bfloat16 autocast is used on CUDA only")
    threads: int = Field(1, ge=1, description="CPU threads of a process that trains or evaluates shared weights")

    @property
    def optimiser(self) -> SupernetConfig:
        """The part that `kfnas.oneshot` takes."""
        return SupernetConfig(**{name: getattr(self, name) for name in SupernetConfig.model_fields})


class SharedValidationConfig(Config):
    """How the accuracy of a path is read from shared weights."""

    batch_size: int = Field(512, ge=2, description="images of a mini-batch of mini-val; a rest that fills none is left out")
    normalised_by: Literal["batch", "recalibrated"] = Field(
        "batch", description="statistics of batch normalisation: the mini-batch's, or gathered for the path"
    )
    calibration_batches: int = Field(4, ge=1, description="mini-batches of mini-train that statistics are gathered on")


class RetrainedAs(Config):
    """What is done to every network before it is trained from scratch, and therefore to those that it is compared with.

    The budget is of what comes of it: searches go by the costs of operators that are changed alike.
    """

    width: float = Field(1.0, gt=0, le=16, description="width multiplier, on top of space.width")
    squeeze_excite: float | None = Field(None, gt=0, le=1, description="ratio of squeeze-excite in each decided layer; none: none is added")
    place: Literal["operator", "spatial"] = Field("operator", description="where: behind each operator (PC-NAS), or behind its spatial convolution (BetaNAS)")
    auto_augment: Literal["cifar10", "imagenet", "svhn"] | None = Field(
        None, description="policy of AutoAugment while it is trained, on top of the task's own augmentation; none: none. Wants retrain.augment"
    )
    activation: Activation | None = Field(None, description="in place of every activation, such as swish; none: as searched")

    @property
    def changes_layers(self) -> bool:
        """Whether layers become others, width aside."""
        return self.squeeze_excite is not None or self.activation is not None

    def change(self, spec: NetworkSpec) -> NetworkSpec:
        """The network with what is added, width aside."""
        if self.activation is not None:
            spec = with_activation(spec, self.activation)
        if self.squeeze_excite is not None:
            spec = with_squeeze_excite(spec, self.squeeze_excite, place=self.place, activation=self.activation or "relu")
        return spec


class OneShotConfig(Config):
    """A search on one supernet. The sections of algorithms other than the run's are not read, and leave no trace in the run's digest."""

    training: SharedTrainingConfig = Field(default_factory=SharedTrainingConfig)
    validation: SharedValidationConfig = Field(default_factory=SharedValidationConfig)
    margin: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share by which the limit is tightened while searching; none: by the table's 95% error, or not where costs are counted",
    )
    pcnas: PCNASConfig = Field(default_factory=PCNASConfig)
    epochs: int = Field(100, ge=1, description="oneshot: epochs of uniformly drawn paths before the evolution")
    weights_of: str | None = Field(
        None, description="oneshot: name of a finished search of the same store, space and data whose shared weights are taken; none: they are trained"
    )
    evolution: EvolutionConfig | None = Field(None, description="oneshot: budget and population; none: as many validation mini-batches as `pcnas` would see")
    betanas: BetaNASConfig = Field(default_factory=lambda: BetaNASConfig(num_steps=10_000))
    steps_per_round: int = Field(500, ge=1, description="betanas: alternations of one round, after which the search is committed and shown")
    retrained_as: RetrainedAs = Field(default_factory=RetrainedAs)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = {
            "pcnas.limit": self.pcnas.limit,
            "evolution.limit": self.evolution.limit if self.evolution is not None else None,
            "betanas.latency_target": self.betanas.latency_target,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is {value:g}, and a run has one budget: give it as search.reward.target, in units of `cost`")
        return self

    def used_by(self, algorithm: str) -> dict[str, object]:
        """What of this configuration determines the result of an algorithm, as JSON values; checkpoints, threads and devices do not."""
        theirs = {"pcnas": ("pcnas",), "oneshot": ("pcnas", "epochs", "evolution"), "betanas": ("betanas", "steps_per_round")}[algorithm]
        if algorithm == "oneshot" and self.evolution is not None:
            theirs = ("epochs", "evolution")
        value = self.model_dump(mode="json", include={"training", "validation", "margin", "retrained_as", *theirs})
        if algorithm == "oneshot" and self.weights_of is not None:
            value["weights_of"] = self.weights_of
        for name in ("checkpoint_steps", "device", "threads"):
            value["training"].pop(name)
        return value

    def pcnas_within(self, limit: float | None) -> PCNASConfig:
        """PC-NAS's own configuration under the run's budget, tightened."""
        return self.pcnas.model_copy(update={"limit": limit})

    def evolution_within(self, limit: float | None, space: Space) -> EvolutionConfig:
        """The evolution's own configuration under the run's budget, tightened."""
        chosen = self.evolution or EvolutionConfig(num_evaluations=pc_nas_evaluations(self.pcnas, space.num_choices))
        return chosen.model_copy(update={"limit": limit})

    def betanas_towards(self, target: float | None) -> BetaNASConfig:
        """BetaNAS's own configuration with the run's budget as its target, which is no limit and so is not tightened."""
        return self.betanas.model_copy(update={"latency_target": target})
