"""Step: the donors of a fidelity study into its pool, and out of the pool the weights that its short trainings start from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfnas.config import Config, parse
from kfnas.errors import ConflictError, NotFound
from kfnas.pool import Pool, PoolEntry, PoolSnapshot, PoolVersion, blocks_of, initialise_all
from kfnas.steps.context import write_json
from kfnas.steps.fidelity_children import KIND, FidelityPlan, PlannedChild, Study, missing_of, open_study, read_plan, shards_of
from kfnas.steps.measure_latency import child_key

logger = logging.getLogger(__name__)
_DRAWN_CHANNELS = 3


class PoolUse(Config):
    """What the pool gave, recorded once for the study.

    Attributes:
        version: of the pool that all children start from.
        entries: parts in it.
        queried, matched, hits: blocks of all architectures; those with a donor that is similar enough and has something to give; those whose donor is their
            own like.
        similarity: mean over all blocks of the best match's cosine similarity.
        filled: mean share of a network's parameters that come from the pool.
        problems: entries that were passed over, in words.
        weights: sha256 of each architecture's initial weights, in their order.
    """

    version: PoolVersion
    entries: int
    queried: int
    matched: int
    hits: int
    similarity: float
    filled: float
    problems: tuple[str, ...] = ()
    weights: tuple[str, ...]

    @property
    def match_ratio(self) -> float:
        """Matched blocks over queried ones."""
        return self.matched / self.queried


def fidelity_pool(config: str, plan: Path, pooled: Path) -> list[str]:
    """Put the donors' blocks into the study's pool and write to `pooled` the plan with the children that start from it; return their shards, never none.

    The pool's version and the initial weights are recorded before anything is trained from them: run again, the step asks no pool.

    Raises:
        NotFound: a donor was not trained, or the training of all of them failed.
        ConflictError: the pool of that name holds other children's blocks, and the comparison would be of a pool that is not the study's.
    """
    study, planned = open_study(config), read_plan(plan)
    used = pool_use(study) or _filled(study, planned)
    whole = with_pool_children(study, planned, used)
    write_json(pooled, whole.model_dump(mode="json"))
    logger.info("pool: version %d, %d of %d blocks matched, %d hits", used.version.number, used.matched, used.queried, used.hits)
    return shards_of(missing_of(study, whole.of("pool")), study.any_run.config.execution.shards)


def pool_use(study: Study) -> PoolUse | None:
    """What is recorded of the pool; None before it is filled."""
    record = study.searches.record(KIND, "pool")
    return None if record is None else parse(PoolUse, record, source=f"pool record of study {study.config.name}")


def _filled(study: Study, planned: FidelityPlan) -> PoolUse:
    import safetensors.numpy

    donors, settings = planned.of("donor"), study.config.donors
    run = study.run(settings.epochs)
    pool = Pool(study.store, f"{study.config.name}.donors")
    entries = [entry for donor in donors for entry in _blocks(study, planned, donor)]
    if not entries:
        raise NotFound(f"study {study.config.name!r}: the training of every donor failed ({study.record_of(donors[0])['reason']}); mend base.proxy")
    _check_own(study, pool.at(), donors)
    report = pool.push(entries, space=run.space.digest, iterations=_iterations(study, planned))
    snapshot = pool.at(report.version)
    _check_own(study, snapshot, donors)
    ranked = ranked_children(planned)
    networks = [(run.space.architecture(child.tokens), run.network(child.tokens, planned.data)) for child in ranked]
    rngs = [np.random.default_rng([child.seed, _DRAWN_CHANNELS]) for child in ranked]
    starts = initialise_all(snapshot, run.space, networks, floor=settings.floor, fixed_parts=settings.fixed_parts, rngs=rngs)
    use = PoolUse(
        version=report.version,
        entries=len(snapshot),
        queried=sum(start.queried for start in starts),
        matched=sum(start.matched for start in starts),
        hits=sum(start.hits for start in starts),
        similarity=float(np.mean([similarity for start in starts for similarity in start.similarities])),
        filled=float(np.mean([start.filled for start in starts])),
        problems=tuple(snapshot.problems),
        weights=tuple(study.searches.put_blob(safetensors.numpy.save(start.weights)) for start in starts),
    )
    study.searches.put_record(KIND, "pool", use.model_dump(mode="json"))
    return pool_use(study) or use


def _check_own(study: Study, snapshot: PoolSnapshot, donors: Sequence[PlannedChild]) -> None:
    foreign = {row.source for row in snapshot.rows} - {donor.key for donor in donors}
    if foreign:
        raise ConflictError(
            f"pool {study.config.name}.donors holds blocks of {len(foreign)} children that are no donors of this study ({min(foreign)[:12]}); "
            f"give the study another name, or remove that pool"
        )


def ranked_children(planned: FidelityPlan) -> list[PlannedChild]:
    """One child of each ranked architecture, in order: the short training from random weights that comes first."""
    first: dict[int, PlannedChild] = {}
    for child in planned.of("random"):
        first.setdefault(child.index, child)
    return [first[index] for index in sorted(first)]


def with_pool_children(study: Study, planned: FidelityPlan, used: PoolUse) -> FidelityPlan:
    """The plan, and for each of its short trainings from random weights the same one from the pool's: same seed, same length, same order of images."""

    def start(child: PlannedChild) -> PlannedChild:
        weights = used.weights[child.index]
        initialisation: Any = {"pool": used.version.digest, "weights": weights}
        key = child_key(study.run(child.epochs), list(child.tokens), child.seed, planned.data, initialisation)
        name = child.id.replace("random", "pool", 1)
        return child.model_copy(update={"id": name, "role": "pool", "key": key, "initial_weights": weights})

    return planned.model_copy(update={"children": (*planned.children, *(start(child) for child in planned.of("random")))})


def _blocks(study: Study, planned: FidelityPlan, donor: PlannedChild) -> Iterator[PoolEntry]:
    import safetensors.numpy

    record, run = study.record_of(donor), study.run(donor.epochs)
    if record["status"] != "ok":
        logger.warning("donor %s is left out: %s", donor.id, record["reason"])
        return
    yield from blocks_of(
        run.space,
        run.space.architecture(donor.tokens),
        run.network(donor.tokens, planned.donor_data),
        safetensors.numpy.load(study.searches.child_weights(record)),
        source=donor.key,
        iterations=_iterations(study, planned),
        score=record["accuracy"],
        fixed_parts=study.config.donors.fixed_parts,
    )


def _iterations(study: Study, planned: FidelityPlan) -> int:
    """Optimiser steps of a donor's training."""
    return study.run(study.config.donors.epochs).config.proxy.num_steps(int(planned.donor_data.meta["sizes"]["mini_train"]))
