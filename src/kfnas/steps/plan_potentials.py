"""Step: which partial models PC-NAS compares next, and which shard scores which of them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from kfnas.oneshot.pc_nas import candidates
from kfnas.steps.context import open_run, read_pointer, write_json
from kfnas.steps.operator_costs import require_costs
from kfnas.steps.supernet_search import load_supernet, mixop_space, total_rounds

logger = logging.getLogger(__name__)


def plan_potentials(config: str, data: Path, state: Path, plan: Path) -> list[str]:
    """Write the candidates of the next mixed operator to `plan`; return one JSON text a shard, and never none: a search that is over has one without work.

    Raises:
        NotFound: the costs of operators are not pinned.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.require_current(pointer)
    run.renew(pointer)
    require_costs(run)
    search = load_supernet(run, pointer)
    over = search.round >= total_rounds(run)
    partials = [] if over else [list(partial) for partial in candidates(search.pcnas, mixop_space(run).num_choices)]
    num_shards = max(1, min(run.config.execution.shards, len(partials)))
    logger.info("mixed operator %d: %d candidates", search.round, len(partials))
    write_json(plan, {"pointer": pointer.model_dump(mode="json"), "weights": search.weights, "candidates": partials})
    return [json.dumps({"shard": shard, "candidates": partials[shard::num_shards]}) for shard in range(num_shards)]
