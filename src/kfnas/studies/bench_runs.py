"""One run of a comparison: a search on what an objective shows, judged by what it is worth; and the file that keeps it."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.config import canonical_json
from kfnas.controller import Knowledge, Result, Search, SearchConfig
from kfnas.controller.config import POLICY_AGENTS
from kfnas.errors import AccessDenied, SearchExhausted, StorageFull
from kfnas.studies.entrants import Entrant
from kfnas.studies.objectives import Objective, shuffled
from kfnas.studies.peers import Peer, RidgeConfig, RidgePeer, TPEConfig, TPEPeer

logger = logging.getLogger(__name__)

WINDOW = 100
DONOR_SEEDS = 1_000_003
"""Seed of the donor's search less the seed of the search that it helps: the two share no draws."""


class Run(NamedTuple):
    """A finished run.

    Attributes:
        observed: what the search saw of each activated sample, [samples] in order, fewer where the space was used up; NaN where it failed.
        score: what each was worth, [samples].
        tokens: canonical tokens of each.
        draws: architectures that were drawn, known ones included, samples of an experience buffer not.
        distinct: distinct ones among them.
        distinct_last: distinct ones among the last `WINDOW` of them, or among all where there are fewer.
        cpu_seconds: processor time of the search, without the objective's own.
        metrics: the agent's last.
        code: digest of the code that ran.
    """

    observed: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    tokens: tuple[tuple[int, ...], ...]
    draws: int
    distinct: int
    distinct_last: int
    cpu_seconds: float
    metrics: dict[str, float]
    code: str


class Trace(NamedTuple):
    """What a search did."""

    tokens: list[tuple[int, ...]]
    observed: list[float]
    drawn: list[tuple[int, ...]]
    metrics: dict[str, float]


def search_once(objective: Objective, entrant: Entrant, seed: int, samples: int) -> Run:
    """One search of `samples` activated samples, or of as many as there are."""
    prior = None if entrant.donor is None else donor_knowledge(entrant, seed)
    clock = _Clock(objective, seed)
    if entrant.agent in POLICY_AGENTS:
        importlib.import_module("kfnas.controller.ppo")  # torch takes seconds to load, which are not the search's
    started = time.process_time()
    config = entrant.annealed(samples).config
    if isinstance(config, SearchConfig):
        trace = _own_search(Search(objective.space, config, seed=seed, prior=prior), clock.observe, samples, objective.unit)
    else:
        trace = _peer_search(_peer(entrant, objective, seed), clock.observe, samples)
    seconds = time.process_time() - started - clock.seconds
    tokens = trace.tokens[:samples]
    return Run(
        observed=np.array(trace.observed[:samples]),
        score=np.asarray(objective.score(np.array(tokens)), dtype=np.float64),
        tokens=tuple(tokens),
        draws=len(trace.drawn),
        distinct=len(set(trace.drawn)),
        distinct_last=len(set(trace.drawn[-WINDOW:])),
        cpu_seconds=seconds,
        metrics=trace.metrics,
        code=entrant.code(),
    )


class _Clock:
    """Observes, and keeps the time apart that observing takes."""

    def __init__(self, objective: Objective, seed: int) -> None:
        self._objective, self._seed = objective, seed
        self.seconds = 0.0

    def observe(self, tokens: Sequence[tuple[int, ...]]) -> list[float]:
        started = time.process_time()
        values = np.asarray(self._objective.observe(np.array(tokens), self._seed), dtype=np.float64).tolist()
        self.seconds += time.process_time() - started
        return list(values)


Observe = Callable[[Sequence[tuple[int, ...]]], list[float]]


def _own_search(search: Search, observe: Observe, samples: int, unit: float) -> Trace:
    """A search of kfnas's own, which is shown accuracies as fractions: rewards are not to hang on the unit of a table."""
    seen: dict[str, float] = {}
    while search.num_activated < samples:
        try:
            batch = search.suggest()
        except SearchExhausted as end:
            logger.info("the search ended after %d samples: %s", search.num_activated, end)
            break
        values = observe([search.space.canonical(candidate.architecture).tokens for candidate in batch])
        seen |= {candidate.id: value for candidate, value in zip(batch, values, strict=True)}
        search.update(
            Result(candidate.id, status="failed", reason="no value") if math.isnan(value) else Result(candidate.id, accuracy=value / unit)
            for candidate, value in zip(batch, values, strict=True)
        )
    rows = [row for row in search.rows if row.is_activated]
    drawn = [row.canonical.tokens for row in search.rows if row.source != "exploited"]
    return Trace([row.canonical.tokens for row in rows], [seen[row.id] for row in rows], drawn, search.metrics)


def _peer_search(peer: Peer, observe: Observe, samples: int) -> Trace:
    trace = Trace([], [], peer.draws, {})
    while len(trace.tokens) < samples:
        try:
            tokens = peer.ask()
        except SearchExhausted as end:
            logger.info("the search ended after %d samples: %s", len(trace.tokens), end)
            break
        (value,) = observe([tokens])
        peer.tell(tokens, value)
        trace.tokens.append(tokens)
        trace.observed.append(value)
    return trace


def _peer(entrant: Entrant, objective: Objective, seed: int) -> Peer:
    if isinstance(entrant.config, RidgeConfig):
        return RidgePeer(objective.space, entrant.config, seed)
    assert isinstance(entrant.config, TPEConfig)
    return TPEPeer(objective.space, entrant.config, seed)


def donor_knowledge(entrant: Entrant, seed: int) -> Knowledge:
    """What a donor's search learnt; its architectures stay behind but for the critic's own set."""
    assert entrant.donor is not None
    config = entrant.annealed(entrant.donor.samples).config
    assert isinstance(config, SearchConfig)
    objective = entrant.donor.source()
    if entrant.donor.shuffled:
        objective = shuffled(objective, seed)
    search = Search(objective.space, config, seed=seed + DONOR_SEEDS)
    _own_search(search, _Clock(objective, seed + DONOR_SEEDS).observe, entrant.donor.samples, objective.unit)
    return search.knowledge(task=objective.name.replace(", ", "-"))


def write_run(path: Path, settings: Mapping[str, Any], run: Run) -> None:
    """Write a run's file: equal runs give equal bytes, but for `cpu_seconds`.

    Raises:
        AccessDenied: the folder may not be written.
        StorageFull: there is no room.
    """
    value = {
        "settings": settings,
        "code": run.code,
        "observed": _numbers(run.observed),
        "score": _numbers(run.score),
        "tokens": ["-".join(map(str, tokens)) for tokens in run.tokens],
        "draws": run.draws,
        "distinct": run.distinct,
        "distinct_last": run.distinct_last,
        "cpu_seconds": round(run.cpu_seconds, 3),
        "metrics": {name: value for name, value in run.metrics.items() if math.isfinite(value)},
    }
    write_atomically(path, (canonical_json(value) + "\n").encode())


def read_run(path: Path) -> Run:
    """The run that `write_run` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file holds something else; so do `KeyError` and `TypeError`.
    """
    value = json.loads(path.read_bytes())
    observed, score = (np.array([math.nan if item is None else item for item in value[name]], dtype=np.float64) for name in ("observed", "score"))
    tokens = tuple(tuple(map(int, text.split("-"))) for text in value["tokens"])
    draws, distinct, distinct_last = (int(value[name]) for name in ("draws", "distinct", "distinct_last"))
    return Run(observed, score, tokens, draws, distinct, distinct_last, float(value["cpu_seconds"]), dict(value["metrics"]), str(value["code"]))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file at once or not at all.

    Raises:
        AccessDenied: the folder may not be written.
        StorageFull: there is no room.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except PermissionError as error:
        raise AccessDenied(f"{path}: may not be written ({error.strerror}); give another --output") from error
    except OSError as error:
        raise StorageFull(f"{path}: cannot be written ({error.strerror}); free some room, or give another --output") from error
    finally:
        part.unlink(missing_ok=True)


def _numbers(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
