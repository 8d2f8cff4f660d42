"""Step: PC-NAS keeps the partial models of the highest potential, which decides one mixed operator and closes a round."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfnas.config import parse
from kfnas.errors import NotFound
from kfnas.oneshot import Potential
from kfnas.oneshot.pc_nas import update_pool
from kfnas.steps.context import Run, read_json, write_json
from kfnas.steps.operator_costs import limit_of, require_costs
from kfnas.steps.score_potentials import POTENTIAL_KIND, SECONDS, potential_key
from kfnas.steps.supernet_search import Tokens, close_round, mixop_space, open_supernet
from kfnas.storage import Pointer

logger = logging.getLogger(__name__)


def decide_mixop(config: str, state: Path, plan: Path, next_state: Path) -> None:
    """Write to `next_state` a pointer to the state with the narrower pool; the same one where the search is over.

    Raises:
        NotFound: some candidate was not scored.
        BudgetError: no candidate has a completion within the limit.
        StaleFence: a later run has taken the search over.
    """
    opened = open_supernet(config, state, next_state)
    if opened is None:
        return
    run, pointer, search = opened
    planned = read_json(plan)
    scored_at = parse(Pointer, planned["pointer"], source="plan")
    recorded = [_recorded(run, scored_at, tuple(tokens)) for tokens in planned["candidates"]]
    device_seconds = sum(record.pop(SECONDS) for record in recorded)
    found = [Potential.from_json(record) for record in recorded]
    settings = run.config.shared.pcnas_within(limit_of(run, require_costs(run)))
    decided = update_pool(search.pcnas, found, mixop_space(run).num_choices, settings)
    values = [potential.value for potential in decided.updates[-1] if potential.value is not None]
    kept = values[: settings.pool_size]
    metrics = {
        "pcnas/best_potential": kept[0],
        "pcnas/mean_potential": sum(kept) / len(kept),
        "pcnas/mean_candidate": sum(values) / len(values),
        "pcnas/num_dropped": float(len(found) - len(values)),
        "pcnas/feasible_share": sum(potential.num_feasible for potential in found) / max(1, sum(potential.num_draws for potential in found)),
        "supernet/num_epochs": float(search.num_epochs),
        "supernet/loss": search.loss,
    }
    logger.info("mixed operator %d: pool %s, best potential %.4f", search.round, [list(tokens) for tokens in decided.pool], kept[0])
    write_json(next_state, close_round(run, pointer, replace(search, pcnas=decided), metrics, device_seconds=device_seconds))


def _recorded(run: Run, pointer: Pointer, partial: Tokens) -> dict[str, Any]:
    record = run.searches.record(POTENTIAL_KIND, potential_key(pointer, partial))
    if record is None:
        raise NotFound(f"candidate {list(partial)} has no potential: its shard did not end: resume the search")
    return record
