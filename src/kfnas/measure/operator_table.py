"""Operator latency table: what each part of a space's networks takes on one device, and from that what a network takes.

One run of a graph takes some time beside its operations (`overhead_ms`, measured on a graph that does next to nothing), so a part's share of a network is
its entry less that. The sum over the parts is biased, since a runtime treats a layer alone otherwise than one among others (memory formats, caches): a
correction of two numbers, fitted on whole networks, mends that,

    latency = offset + scale x sum of (entry - overhead),    or    scale x sum of (entry - overhead) + rate x parameters,

whichever foretells better what it was not fitted on.

Entries and networks must be measured interleaved and shuffled, in several rounds, and their medians taken (`kfnas.measure.table_rounds`): what drifts
while the table is taken then falls on all alike. How good the table is, is said by networks that the correction was not fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from kfnas.config import Config, digest_of
from kfnas.errors import MeasurementError, NotFound, UserError
from kfnas.measure.onnx_graph import BUILDER_VERSION, graph_digest, part_digest
from kfnas.measure.records import PRECISION, LatencyConfig
from kfnas.space import (
    LayerSpec,
    MixopLayers,
    NetworkArguments,
    NetworkSpec,
    OperatorCosts,
    Part,
    Space,
    Tail,
    num_params,
    param_costs,
    part_of,
    parts_of,
)

TABLE_VERSION = 2
MIN_FIT = 3
_SMALLEST_MS = 1e-6

Floats = npt.NDArray[np.float64]
Predictor = Literal["table", "sum", "mult_adds"]
"""What foretells a network's latency: the table, the table without its correction, or a line on the number of mult-adds, to compare with."""


class TableConfig(Config):
    """How an operator latency table is taken, and on what it is fitted and tried."""

    rounds: int = Field(3, ge=3, le=101, description="times that every part and network is measured, each time in another order; the median counts")
    fit_networks: int = Field(10, ge=MIN_FIT, le=1000, description="random networks that the correction is fitted on")
    held_out: int = Field(30, ge=0, le=1000, description="other random networks, on which the table's error is stated")
    seed: int = Field(0, ge=0, lt=2**31, description="of the networks and the orders")


class TableQuestion(Config):
    """Everything that a table depends on; its digest, but for how long and how strictly each window was (`protocol`), is the table's key.

    `device` is a fingerprint, runtime version included. `network` is the graph digest of one network of the space: spaces of equal decisions may build
    different ones.
    """

    version: int = TABLE_VERSION
    builder: int = BUILDER_VERSION
    space: str
    network: str
    arguments: NetworkArguments
    device: str
    provider: str
    threads: int
    batch: int
    precision: str = PRECISION
    settings: TableConfig
    protocol: LatencyConfig

    @classmethod
    def of(cls, space: Space, arguments: NetworkArguments, device: str, protocol: LatencyConfig, settings: TableConfig) -> TableQuestion:
        """The question that a space, a device and a configuration ask.

        Raises:
            SpaceError: the space builds no networks.
        """
        example = space.reference or space.random(np.random.default_rng(0))
        return cls(
            space=space.digest,
            network=graph_digest(space.network(example, arguments), protocol.batch),
            arguments=arguments,
            device=device,
            provider=protocol.provider,
            threads=protocol.threads,
            batch=protocol.batch,
            settings=settings,
            protocol=protocol,
        )

    @property
    def key(self) -> str:
        """Sha256 (hex) of what decides."""
        return digest_of(self.decisive)

    @property
    def decisive(self) -> dict[str, Any]:
        """What two questions must agree in to have one answer, as JSON values. Windows are no part of it, as with a single latency."""
        return self.model_dump(mode="json", exclude={"protocol"})


class NetworkLatency(Config):
    """A network that was measured whole. `sum_ms` is the uncorrected sum of the table."""

    architecture: str
    latency_ms: float = Field(gt=0)
    sum_ms: float = Field(ge=0)
    mult_adds: int
    params: int


class TableErrors(NamedTuple):
    """How far predictions are from what was measured end to end.

    Attributes:
        num_networks: that were compared.
        mean_absolute: mean of |predicted / measured - 1|, a share.
        bias: mean of predicted / measured - 1, a share.
        r2: share of the variance of the latencies that is explained, or None where they are all equal.
        spearman: rank correlation, or None where either has no ranks.
        error_95: a new network takes at most (1 + error_95) times its prediction with a probability of 95%; 0 or more. With fewer than 19 networks it is the
            largest that was seen, which promises less.
    """

    num_networks: int
    mean_absolute: float
    bias: float
    r2: float | None
    spearman: float | None
    error_95: float


class Correction(NamedTuple):
    """What makes a sum of parts the latency of a network: offset + scale x sum, or scale x sum + what its weights cost.

    The second is what large caches ask for: a part that is run again and again keeps its weights in the nearest one, a network of many parts does not.
    """

    offset_ms: float
    scale: float
    ms_per_million_params: float

    def __call__(self, sum_ms: float, params: float) -> float:
        """Milliseconds."""
        return self.offset_ms + self.scale * sum_ms + self.ms_per_million_params * params / 1e6


class OperatorTable(Config):
    """A table, with its provenance. Entries are raw medians in milliseconds by the digest of their part (`part_digest`)."""

    version: int = TABLE_VERSION
    question: TableQuestion
    runtime: str = Field(description="name and version of what ran the graphs")
    overhead_ms: float = Field(ge=0, description="what a run takes beside its operations; 0 where that could not be measured")
    entries: dict[str, float]
    unmeasured: tuple[str, ...] = Field((), description="parts whose latency stayed unstable")
    spread: float = Field(ge=0, description="half of the parts differed by less than this between their rounds: (largest - smallest) / median")
    offset_ms: float
    scale: float = Field(gt=0)
    ms_per_million_params: float = Field(description="what weights cost a network that a part alone keeps in the nearest cache; 0 where there is an offset")
    fit: tuple[NetworkLatency, ...]
    held_out: tuple[NetworkLatency, ...]

    def part_ms(self, part: Part) -> float:
        """What a part adds to the uncorrected sum.

        Raises:
            MeasurementError: its latency could not be measured.
            NotFound: it is no part of the space and the arguments that the table is of.
        """
        return shares_of([part], self.entries, self.overhead_ms, self.question.batch, self.unmeasured)

    def sum_ms(self, spec: NetworkSpec) -> float:
        """The uncorrected sum of a network's parts.

        Raises:
            MeasurementError, NotFound: as `part_ms`.
        """
        return shares_of(parts_of(spec), self.entries, self.overhead_ms, self.question.batch, self.unmeasured)

    def latency_ms(self, spec: NetworkSpec) -> float:
        """What a network is foretold to take, above 0.

        Raises:
            MeasurementError, NotFound: as `part_ms`.
        """
        return max(_SMALLEST_MS, self._correction(self.sum_ms(spec), num_params(spec)))

    def costs(self, layers: MixopLayers) -> OperatorCosts:
        """Corrected costs of every operator of a mixed-operator space, in milliseconds; called with tokens, they equal `latency_ms` of that path.

        Raises:
            MeasurementError, NotFound: as `part_ms`.
        """
        last, counted = layers.after[-1], param_costs(layers)
        fixed = sum(self._layer_ms(layer) for layer in (*layers.before, *layers.after))
        fixed += self.part_ms(Tail(last.out_channels, last.out_size, layers.classifier))
        added = self._correction._replace(offset_ms=0.0)
        entries = tuple(
            tuple(added(self._layer_ms(layer), params) for layer, params in zip(choices, row, strict=True))
            for choices, row in zip(layers.mixops, counted.entries, strict=True)
        )
        return OperatorCosts(self._correction(fixed, counted.fixed), entries)

    def errors(self, predictor: Predictor = "table") -> TableErrors | None:
        """Errors on the held-out networks; None without any."""
        if not self.held_out:
            return None
        rows, measured = self.held_out, np.array([row.latency_ms for row in self.held_out])
        if predictor == "mult_adds":
            offset, scale = _line(self.fit)
            return errors_of(offset + scale * _column(rows, "mult_adds"), measured)
        correction = self._correction if predictor == "table" else Correction(0.0, 1.0, 0.0)
        return errors_of(np.array([correction(row.sum_ms, row.params) for row in rows]), measured)

    def tightened(self, limit_ms: float) -> float:
        """The limit to hold predictions to, so that what they stand for keeps to `limit_ms` with a probability of 95%.

        Raises:
            UserError: there were no held-out networks.
        """
        errors = self.errors()
        if errors is None:
            raise UserError("this operator table was tried on no networks, so its error is not known; take one with held_out of 19 or more")
        return limit_ms / (1 + errors.error_95)

    def require(self, question: TableQuestion) -> None:
        """Refuse a table that answers another question.

        Raises:
            UserError: names what differs, with both values.
        """
        own, other = self.question.decisive, question.decisive
        differing = [f"{name} is {own[name]}, not {other[name]}" for name in other if own[name] != other[name]]
        if differing:
            raise UserError(f"this operator table does not fit: {'; '.join(differing)}; take a table for this space, device and protocol with `kfnas table`")

    @property
    def _correction(self) -> Correction:
        return Correction(self.offset_ms, self.scale, self.ms_per_million_params)

    def _layer_ms(self, layer: LayerSpec) -> float:
        part = part_of(layer)
        return 0.0 if part is None else self.part_ms(part)


def shares_of(parts: Sequence[Part], entries: dict[str, float], overhead_ms: float, batch: int, unmeasured: Sequence[str] = ()) -> float:
    """Sum of the entries of `parts`, each less the overhead and 0 at least.

    Raises:
        MeasurementError: an entry is among the unmeasured.
        NotFound: there is no such entry.
    """
    total = 0.0
    for part in parts:
        digest = digest_of_part(part, batch)
        entry = entries.get(digest)
        if entry is None and digest in unmeasured:
            raise MeasurementError(
                f"operator {digest[:12]} ({part}) has no entry: its latency stayed unstable; take a table with another table.seed on a quieter machine"
            )
        if entry is None:
            raise NotFound(
                f"operator {digest[:12]} ({part}) is not in this operator table; it is of another space, width, resolution or batch: take a table for these"
            )
        total += max(0.0, entry - overhead_ms)
    return total


digest_of_part = lru_cache(maxsize=1 << 14)(part_digest)
"""`part_digest`, remembered: a search asks for the same parts again and again."""


def fitted(networks: Sequence[NetworkLatency]) -> Correction:
    """The correction that foretells best what it was not fitted on: of the two forms of `Correction` the one with the smaller squared relative error where each
    network is foretold from the others (leave-one-out). Both have two numbers, fitted by least squared relative error.

    Raises:
        MeasurementError: there are fewer than `MIN_FIT`, or dearer parts do not make dearer networks.
    """
    if len(networks) < MIN_FIT:
        raise MeasurementError(
            f"only {len(networks)} networks could be measured to fit the operator table on, {MIN_FIT} are needed; leave a core free, and resume"
        )
    columns = np.stack([np.ones(len(networks)), _column(networks, "sum_ms"), _column(networks, "params") / 1e6], axis=1)
    relative = columns / np.array([row.latency_ms for row in networks])[:, None]
    ranked = sorted(_FORMS, key=lambda form: _left_out(relative[:, form[0]], form[1]))
    for used, solve in ranked:
        found = np.zeros(3)
        found[used] = solve(relative[:, used])
        if found[1] > 0:
            return Correction(*map(float, found))
    raise MeasurementError(
        "networks of dearer operators are not slower: the measurements say nothing; measure on a quieter machine, or fit on more networks (table.fit_networks)"
    )


def _left_out(relative: Floats, solve: Callable[[Floats], Floats]) -> float:
    """Mean squared error of foretelling 1, each row from a fit on the others."""
    others = [np.delete(relative, index, axis=0) for index in range(len(relative))]
    return float(np.mean([(row @ solve(rest) - 1) ** 2 for row, rest in zip(relative, others, strict=True)]))


def _least_squares(relative: Floats) -> Floats:
    """Factors [k] of columns [n, k] that come nearest to 1."""
    size = np.maximum(np.abs(relative).mean(axis=0), _SMALLEST_MS)
    factors: Floats = np.linalg.lstsq(relative / size, np.ones(len(relative)), rcond=None)[0] / size
    return factors


def _non_negative(relative: Floats) -> Floats:
    """The same with factors of 0 or more: an operator cannot save time."""
    from scipy.optimize import nnls

    factors: Floats = nnls(relative, np.ones(len(relative)))[0]
    return factors


_FORMS = (([0, 1], _least_squares), ([1, 2], _non_negative))
"""Columns (1, sum, millions of parameters) that a correction has factors for, and how they are found."""


def errors_of(predicted: Floats, measured: Floats) -> TableErrors:
    """Errors of predictions [n] against measured latencies [n], n at least 1.

    `error_95` is the order statistic ceil(0.95 (n + 1)) of measured / predicted - 1 (split conformal prediction: Vovk, Gammerman and Shafer 2005).
    """
    from scipy.stats import spearmanr

    predicted = np.maximum(predicted, _SMALLEST_MS)
    relative = predicted / measured - 1
    over = np.sort(measured / predicted - 1)
    rank = min(len(over), math.ceil(0.95 * (len(over) + 1)))
    total = float(np.sum((measured - measured.mean()) ** 2))
    ranked = np.ptp(measured) > 0 and np.ptp(predicted) > 0
    return TableErrors(
        num_networks=len(measured),
        mean_absolute=float(np.abs(relative).mean()),
        bias=float(relative.mean()),
        r2=1 - float(np.sum((measured - predicted) ** 2)) / total if total > 0 else None,
        spearman=float(spearmanr(predicted, measured).statistic) if ranked else None,
        error_95=max(0.0, float(over[rank - 1])),
    )


def _line(networks: Sequence[NetworkLatency]) -> tuple[float, float]:
    """Offset and scale of the line on mult-adds. Weighted by 1 / latency, so that an error counts as a share."""
    measured = np.array([row.latency_ms for row in networks])
    offset, scale = _least_squares(np.stack([np.ones(len(networks)), _column(networks, "mult_adds")], axis=1) / measured[:, None])
    return float(offset), float(scale)


def _column(networks: Sequence[NetworkLatency], column: Literal["sum_ms", "mult_adds", "params"]) -> Floats:
    return np.array([getattr(row, column) for row in networks], dtype=np.float64)
