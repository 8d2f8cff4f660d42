"""How an operator latency table is taken: what is measured, in which order, and how the rounds become a table.

In each round every part and every network is measured once, in random order. A processor that grows slower by and by, or a neighbour that comes and goes,
then falls on all of them alike; were each measured three times in a row, the first ones would come out faster than the last. What was taken one after another
is a random sample of all there is, so its level says how fast the machine was just then. Levels are divided out, and the median over the
rounds is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median

import numpy as np

from kfnas.config import Config
from kfnas.errors import MeasurementError, SpaceError
from kfnas.measure.latency import Device
from kfnas.measure.onnx_graph import build_onnx, build_part, graph_digest, part_digest
from kfnas.measure.operator_table import NetworkLatency, OperatorTable, TableConfig, TableQuestion, fitted, shares_of
from kfnas.measure.records import LatencyConfig
from kfnas.space import NetworkArguments, NetworkSpec, Part, Space, distinct_parts, mult_adds, num_params, parts_of

MAX_TRIES = 3
MAX_UNMEASURED = 0.02
"""Share of the parts that may stay without an entry."""

MIN_LEVEL = 8
"""Measurements in a row that a level is taken from, at least."""

_DRAWS_PER_NETWORK = 100
_LEVEL_PASSES = 12
_NETWORKS, _ORDER = 0x7AB1E, 0x0EDE2


@dataclass(frozen=True)
class TablePlan:
    """What is measured, by digest.

    Attributes:
        parts: every part of the space, and None, the graph that does next to nothing.
        networks: the networks that are measured whole.
        names: printed architectures of the networks.
        fit: digests of those that the correction is fitted on; the others are held out.
        batch: images of one inference.
    """

    parts: Mapping[str, Part | None]
    networks: Mapping[str, NetworkSpec]
    names: Mapping[str, str]
    fit: tuple[str, ...]
    batch: int

    @property
    def digests(self) -> tuple[str, ...]:
        """All that is measured."""
        return (*self.parts, *self.networks)

    def model(self, digest: str) -> bytes:
        """The ONNX file of a part or a network."""
        spec = self.networks.get(digest)
        model = build_onnx(spec, None, batch=self.batch) if spec is not None else build_part(self.parts[digest], self.batch)
        return bytes(model.SerializeToString())


class Taken(Config):
    """Some measurements of one round, in the order in which they were taken.

    Attributes:
        latencies: milliseconds by digest.
        unmeasured: why each of the others has none.
        runtime: what ran the graphs; empty when nothing could be measured.
    """

    latencies: dict[str, float]
    unmeasured: dict[str, str]
    runtime: str = ""


def plan_table(space: Space, arguments: NetworkArguments, settings: TableConfig, batch: int) -> TablePlan:
    """Every part of the space, and as many random networks as the settings ask for, each another graph.

    Raises:
        SpaceError: the space has too few networks, or its parts cannot be listed (`distinct_parts`).
    """
    rng = np.random.default_rng([settings.seed, _NETWORKS])
    wanted = settings.fit_networks + settings.held_out
    networks: dict[str, NetworkSpec] = {}
    names: dict[str, str] = {}
    for _ in range(_DRAWS_PER_NETWORK * wanted):
        if len(networks) == wanted:
            break
        architecture = space.canonical(space.random(rng))
        spec = space.network(architecture, arguments)
        digest = graph_digest(spec, batch)
        networks.setdefault(digest, spec)
        names.setdefault(digest, str(architecture))
    if len(networks) < wanted:
        raise SpaceError(f"space {space.name!r}: {len(networks)} different networks were found, the table wants {wanted}; lower fit_networks or held_out")
    parts: list[Part | None] = [None, *distinct_parts(space, arguments)]
    return TablePlan({part_digest(part, batch): part for part in parts}, networks, names, tuple(networks)[: settings.fit_networks], batch)


def next_of(plan: TablePlan, earlier: Sequence[Taken], seed: int, round: int, size: int) -> list[str]:
    """What is to be measured next in a round, at most `size` digests in random order; empty when the round is done.

    What could not be measured is tried again after all the rest, `MAX_TRIES` times in all. The answer depends on the arguments alone.
    """
    done = {digest for taken in earlier for digest in taken.latencies}
    tries = Counter(digest for taken in earlier for digest in taken.unmeasured)
    waiting = [digest for digest in plan.digests if digest not in done and tries[digest] < MAX_TRIES]
    order = np.random.default_rng([seed, _ORDER, round, len(earlier)]).permutation(len(waiting))
    return sorted((waiting[index] for index in order), key=lambda digest: tries[digest])[:size]


def take(device: Device, plan: TablePlan, digests: Sequence[str], protocol: LatencyConfig, earlier: Sequence[Taken] = ()) -> Taken:
    """Measure some of a plan, in this order. `earlier` is what the round has already.

    Raises:
        MeasurementError: most of them could not be measured, and had not been found unstable before.
    """
    unstable = {digest for taken in earlier for digest in taken.unmeasured}
    latencies: dict[str, float] = {}
    unmeasured: dict[str, str] = {}
    runtime = ""
    for digest in digests:
        record = device.measure(plan.model(digest), protocol, graph=digest)
        if record.latency_ms is None:
            unmeasured[digest] = record.reason or "no reason was given"
        else:
            latencies[digest], runtime = record.latency_ms, record.provenance.runtime
    fresh = [digest for digest in unmeasured if digest not in unstable]
    if len(fresh) > max(MAX_TRIES, len(digests) / 2):
        raise MeasurementError(
            f"latency of {len(fresh)} of {len(digests)} operators and networks could not be measured (last: {list(unmeasured.values())[-1]}); "
            "leave a core free while measuring, or give the pod whole CPUs without a quota, and resume"
        )
    return Taken(latencies=latencies, unmeasured=unmeasured, runtime=runtime)


def table_of_rounds(question: TableQuestion, plan: TablePlan, rounds: Sequence[Sequence[Taken]]) -> OperatorTable:
    """The table that finished rounds make: medians, and the line fitted on whole networks.

    A part counts as unmeasured when fewer than half of the rounds measured it; a network that has such a part, or is unmeasured itself, is left out.

    Raises:
        MeasurementError: too many parts are unmeasured, or too few networks are left to fit on.
    """
    found = levelled(rounds)
    kept = {digest: values for digest, values in found.items() if 2 * len(values) >= len(rounds)}
    nothing = part_digest(None, plan.batch)
    parts = [digest for digest in plan.parts if digest != nothing]
    unmeasured = tuple(digest for digest in parts if digest not in kept)
    if len(unmeasured) > MAX_UNMEASURED * len(parts):
        raise MeasurementError(
            f"{len(unmeasured)} of {len(parts)} operators could not be measured in half of the rounds; leave a core free while measuring, "
            "or take the table anew with another table.seed"
        )
    entries = {digest: median(kept[digest]) for digest in parts if digest in kept}
    overhead = median(kept[nothing]) if nothing in kept else 0.0
    usable = {
        digest: NetworkLatency(
            architecture=plan.names[digest],
            latency_ms=median(kept[digest]),
            sum_ms=shares_of(parts_of(spec), entries, overhead, plan.batch),
            mult_adds=mult_adds(spec),
            params=num_params(spec),
        )
        for digest, spec in plan.networks.items()
        if digest in kept and all(part_digest(part, plan.batch) in entries for part in parts_of(spec))
    }
    fit = tuple(usable[digest] for digest in plan.fit if digest in usable)
    correction = fitted(fit)
    return OperatorTable(
        question=question,
        runtime=next((taken.runtime for round in rounds for taken in round if taken.runtime), ""),
        overhead_ms=overhead,
        entries=entries,
        unmeasured=unmeasured,
        spread=float(np.median([(max(kept[digest]) - min(kept[digest])) / entries[digest] for digest in entries])),
        **correction._asdict(),
        fit=fit,
        held_out=tuple(row for digest, row in usable.items() if digest not in plan.fit),
    )


def levelled(rounds: Sequence[Sequence[Taken]]) -> dict[str, list[float]]:
    """Latencies by digest, one for each round that has it, as they would be had the machine always been as fast as it mostly was.

    The level of what was taken in a row is the median of its latencies over their own means; few measurements have the level of those before them.
    """
    runs = [taken.latencies for round in rounds for taken in _long_enough(round)]
    levels = [1.0] * len(runs)
    for _ in range(_LEVEL_PASSES):
        # Means here, not medians: of three rounds, two slow ones would pass for the truth.
        middle = {digest: geometric_mean(values) for digest, values in _divided(runs, levels).items()}
        levels = [median(latency / middle[digest] for digest, latency in run.items()) for run in runs]
        typical = median(levels)
        levels = [level / typical for level in levels]
    return _divided(runs, levels)


def _long_enough(round: Sequence[Taken]) -> list[Taken]:
    """The measurements of a round, short runs of them joined to those before."""
    joined: list[Taken] = []
    for taken in round:
        if joined and len(taken.latencies) < MIN_LEVEL:
            joined[-1] = Taken(latencies={**joined[-1].latencies, **taken.latencies}, unmeasured={})
        elif taken.latencies:
            joined.append(taken)
    return joined


def _divided(runs: Sequence[Mapping[str, float]], levels: Sequence[float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for run, level in zip(runs, levels, strict=True):
        for digest, latency in run.items():
            found.setdefault(digest, []).append(latency / level)
    return found
