"""What a report is made of: plain values, gathered by the caller; nothing here opens a store or reads the clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

Choice = str | int | float | bool
METRIC_NAMES = {"top1": "top-1"}
SHARED = "supernet"
"""Source of a sample that was scored with shared weights, and is no child."""


class Sample(Protocol):
    """One row of the history, such as `kfnas.tracking.SearchRow`. `accuracy` is a fraction; None stands for what was not measured.

    `value` and `uncertainty` are a critic's V and U when the sample was drawn, in units of reward; `source` is `policy | cached | trusted | exploited | audit`;
    `initialisation` says what its child started from.
    """

    @property
    def round(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def cost(self) -> float | None: ...
    @property
    def reward(self) -> float | None: ...
    @property
    def status(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def uncertainty(self) -> float | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def device_seconds(self) -> float: ...
    @property
    def epochs(self) -> float: ...
    @property
    def initialisation(self) -> str: ...
    @property
    def activated(self) -> bool: ...


SampleT = TypeVar("SampleT", bound=Sample)


def foretold(samples: Iterable[SampleT]) -> list[SampleT]:
    """Samples, in the order of the history, that were trained and whose reward the critic had foretold: for children that begin as theirs did, which in the
    round that changes the initialisation it had not.
    """
    found = []
    number, asked, kind = -1, "random", "random"
    for sample in samples:
        if sample.round != number:
            number, asked = sample.round, kind
        if sample.activated and sample.status == "ok":
            kind = sample.initialisation
            if kind == asked and sample.value is not None and sample.reward is not None:
                found.append(sample)
    return found


@dataclass(frozen=True)
class DataSummary:
    """The data set in one line; sizes are numbers of images."""

    name: str = ""
    num_train: int | None = None
    num_val: int | None = None
    num_test: int | None = None
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class PoolUse:
    """What a pool had for one round: fractions of the blocks that were asked for, None where none was; `warm`: children started from it."""

    round: int
    match_ratio: float | None
    hit_ratio: float | None
    similarity: float | None
    warm: bool


@dataclass(frozen=True)
class PathTrace:
    """One choice block of a search by gradient, along its steps: BetaNAS's figure 5.

    Attributes:
        block: its name.
        choices: names of its paths, K of them.
        steps: numbers of the importance steps shown, S of them.
        alpha: [S][K] importance; None once a path is dropped.
        counts: [S][K] training steps on each path so far.
    """

    block: str
    choices: Sequence[str]
    steps: Sequence[int]
    alpha: Sequence[Sequence[float | None]]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Drawing:
    """An architecture to draw: `choices` as `Space.choices_of` gives them, by `block/decision`."""

    title: str
    architecture: str
    choices: Mapping[str, Choice]
    note: str = ""


@dataclass(frozen=True)
class Finalist:
    """A network trained from scratch with the final recipe.

    `kind` is `searched | reference | random`; `cost` is in the unit of `ReportData.cost`; `top1` and `top5` are fractions of the test set. None stands
    for what is not known, or not known yet. `note` says how it was made, such as the width that the reference was scaled by.
    """

    name: str
    kind: str
    architecture: str
    choices: Mapping[str, Choice] = field(default_factory=dict)
    mult_adds: int | None = None
    params: int | None = None
    top1: float | None = None
    top5: float | None = None
    latency_ms: float | None = None
    cost: float | None = None
    status: str = "ok"
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class ReportData:
    """One search, as far as it has come.

    `samples` are in the order of the history; `pareto` lists the ids of those on the front; `best` are the networks to draw while there is no finalist.
    `metric` is what the finalists' `top1` is; where less of it is better, the samples' accuracy is 1 / (1 + metric).
    `cost` is `latency_ms | mult_adds | params` and `target` its budget. `rounds` is how many are planned. `device` says how latency was taken.
    `pool` has an entry for each round that used a pool, and `min_match` is the share of matched blocks from which on children start from it.
    `trace` is of a search by gradient.
    """

    name: str
    state: str = "running"
    agent: str = ""
    seed: int | None = None
    reward: str = ""
    data: DataSummary = DataSummary()
    metric: str = "top1"
    higher_is_better: bool = True
    cost: str = "latency_ms"
    target: float | None = None
    rounds: int | None = None
    samples: Sequence[Sample] = ()
    pareto: Sequence[str] = ()
    finals: Sequence[Finalist] = ()
    best: Sequence[Drawing] = ()
    pool: Sequence[PoolUse] = ()
    min_match: float | None = None
    trace: PathTrace | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    config_digest: str = ""
    code_version: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)
    generated_at: str = ""

    @property
    def quality(self) -> str:
        """Name of what the samples' accuracy is."""
        return METRIC_NAMES.get(self.metric, self.metric) if self.higher_is_better else f"1 / (1 + {self.metric})"

    @property
    def num_activated(self) -> int:
        """Children really trained, failed ones included: the unit of search cost."""
        return sum(sample.activated for sample in self.samples)

    @property
    def num_epochs(self) -> float:
        """Epochs of proxy training of all children, or of shared weights."""
        return sum(sample.epochs for sample in self.samples if _was_paid_for(sample))

    @property
    def device_hours(self) -> float:
        """Hours that children, or shared weights, were in training and scored, all devices together."""
        return sum(sample.device_seconds for sample in self.samples if _was_paid_for(sample)) / 3600


def _was_paid_for(sample: Sample) -> bool:
    """Whether the search spent the sample's epochs and seconds; what was known before cost it nothing."""
    return sample.activated or sample.source == SHARED
