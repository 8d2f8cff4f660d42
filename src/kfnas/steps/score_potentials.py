"""Step: the potentials of one shard of partial models, each read once."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from kfnas.config import parse
from kfnas.oneshot.pc_nas import potential
from kfnas.steps.context import open_run, read_data, read_json, write_json
from kfnas.steps.operator_costs import limit_of, require_costs
from kfnas.steps.supernet_search import Tokens, mixop_space
from kfnas.storage import Pointer

logger = logging.getLogger(__name__)
POTENTIAL_KIND = "potential"
SECONDS = "device_seconds"


def score_potentials(config: str, data: Path, plan: Path, shard: str, results: Path) -> None:
    """Score those of the shard's candidates that have no record yet, and write the potentials of all of them to `results`.

    Each potential is recorded as it is found, so a step that is run again finds what is missing and no more. It depends on the seed, the candidate and the
    weights, and on no shard.

    Raises:
        UserError: an accuracy is no finite number.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    planned = read_json(plan)
    pointer = parse(Pointer, planned["pointer"], source="plan")
    partials: list[Tokens] = [tuple(tokens) for tokens in json.loads(shard)["candidates"]]
    run.require_current(pointer)
    missing = [partial for partial in partials if run.searches.record(POTENTIAL_KIND, potential_key(pointer, partial)) is None]
    logger.info("shard: %d candidates, %d to score", len(partials), len(missing))
    if missing:
        from kfnas.steps.shared_weights import SharedWeights
        from kfnas.train.loop import cpu_threads

        pinned, num_choices = require_costs(run), mixop_space(run).num_choices
        settings, costs = run.config.shared.pcnas_within(limit_of(run, pinned)), None if pinned is None else pinned.costs
        evaluator = SharedWeights(run, read_data(data)).evaluator(run.searches.blob(planned["weights"]))
        with cpu_threads(run.config.shared.training.threads):
            for partial in missing:
                started = time.monotonic()
                found = potential(partial, num_choices, evaluator, settings, cost=costs, seed=run.config.seed)
                run.require_current(pointer)
                run.searches.put_record(POTENTIAL_KIND, potential_key(pointer, partial), {**found.to_json(), SECONDS: time.monotonic() - started})
                run.renew(pointer)
    write_json(results, {"potentials": [run.searches.record(POTENTIAL_KIND, potential_key(pointer, partial)) for partial in partials]})


def potential_key(pointer: Pointer, partial: Tokens) -> str:
    """Key of a candidate's record: the state that its weights are of, and its choices."""
    return f"{pointer.digest[:32]}-{'-'.join(map(str, partial))}"
