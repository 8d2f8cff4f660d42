"""Step: what a fidelity study trains: architectures, donors, data, ledger keys."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np

from kfnas.errors import SpaceError
from kfnas.space import Architecture, Space
from kfnas.steps.context import DATA_PREFIX, DataPointer, Run, write_json
from kfnas.steps.fidelity_children import FidelityPlan, PlannedChild, Role, Study, missing_of, open_study, seed_of, shards_of
from kfnas.steps.measure_latency import child_key
from kfnas.steps.prepare_data import prepare
from kfnas.steps.prepared import load_data
from kfnas.storage import put_directory

logger = logging.getLogger(__name__)
_DRAWS_PER_ARCHITECTURE = 100


def fidelity_plan(config: str, plan: Path) -> list[str]:
    """Write to `plan` every training of the study but those that start from the pool; return one JSON text a shard of what is not trained yet, never none.

    The study's children: each architecture long with each of the truth's seeds, and shortly once for each length. Donors are other architectures, on images
    that no other child is trained or scored on.

    Raises:
        ConfigMismatch: the study was started with another configuration.
        DataError: the data set is missing or unfit, or too small for two splits without common images.
        SpaceError: the space has too few architectures.
    """
    study = open_study(config)
    study.require_own()
    planned = plan_of(study)
    write_json(plan, planned.model_dump(mode="json"))
    missing = missing_of(study, planned.children)
    logger.info("study %s: %d trainings planned, %d of them to do", study.config.name, len(planned.children), len(missing))
    return shards_of(missing, study.any_run.config.execution.shards)


def plan_of(study: Study) -> FidelityPlan:
    """The same plan for the same configuration, however often it is asked for: what starts from the pool is not in it."""
    settings = study.config
    data, donor_data = _data(study)
    ranked, donors = draw_architectures(study.any_run.space, settings.architectures, settings.donors.architectures, settings.seed)

    def child(role: Role, index: int, architecture: Architecture, epochs: int, replicate: int = 0) -> PlannedChild:
        run, on = study.run(epochs), donor_data if role == "donor" else data
        # One short training after another begins alike, whatever its length and its initial weights: what differs is what is compared.
        seed = seed_of(settings.seed, "proxy" if role == "random" else role, index, replicate)
        name = f"{role}-{index:03d}-" + (f"s{replicate}" if role == "truth" else f"e{epochs}")
        tokens = architecture.tokens
        return PlannedChild(
            id=name, role=role, index=index, replicate=replicate, epochs=epochs, tokens=tokens, seed=seed, key=child_key(run, list(tokens), seed, on)
        )

    truth = [child("truth", i, a, settings.truth.epochs, seed) for i, a in enumerate(ranked) for seed in range(settings.truth.seeds)]
    short = [child("random", i, a, epochs) for i, a in enumerate(ranked) for epochs in settings.epochs]
    filling = [child("donor", i, a, settings.donors.epochs) for i, a in enumerate(donors)]
    return FidelityPlan(data=data, donor_data=donor_data, children=(*filling, *truth, *short))


def draw_architectures(space: Space, num_ranked: int, num_donors: int, seed: int) -> tuple[list[Architecture], list[Architecture]]:
    """So many different architectures to rank, and so many others to fill the pool, uniformly at random and in canonical form.

    Raises:
        SpaceError: the space has too few.
    """
    rng = np.random.default_rng([seed, 5])
    found: dict[Architecture, None] = {}
    wanted = num_ranked + num_donors
    for _ in range(_DRAWS_PER_ARCHITECTURE * wanted):
        if len(found) == wanted:
            break
        found[space.canonical(space.random(rng))] = None
    if len(found) < wanted:
        raise SpaceError(f"space {space.name}: {len(found)} different architectures were found, and the study needs {wanted}; lower architectures or donors")
    drawn = list(found)
    return drawn[:num_ranked], drawn[num_ranked:]


def _data(study: Study) -> tuple[DataPointer, DataPointer]:
    """The study's data and the donors'; a study that has prepared them once goes on with the same."""
    run = study.any_run
    if run.searches.record("data", "pointer") is None:
        run.searches.put_record("data", "pointer", prepare(run).model_dump(mode="json"))
    data = DataPointer.model_validate(run.searches.record("data", "pointer"))
    if run.searches.record("data", "donors") is None:
        run.searches.put_record("data", "donors", _donor_data(run, data).model_dump(mode="json"))
    return data, DataPointer.model_validate(run.searches.record("data", "donors"))


def _donor_data(run: Run, data: DataPointer) -> DataPointer:
    from kfnas.train import TRAINING_SPLITS
    from kfnas.train.disjoint import disjoint_data

    prepared = disjoint_data(load_data(run, data, TRAINING_SPLITS), seed=seed_of(run.config.seed, "donor data"))
    with tempfile.TemporaryDirectory(prefix="kfnas-data-") as folder:
        digest = prepared.to_files(Path(folder))
        return DataPointer(digest=digest, snapshot=put_directory(run.store, DATA_PREFIX, Path(folder)), meta=dict(prepared.meta))
