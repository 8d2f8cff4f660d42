"""Whether a budget can be met: against every architecture of a small space."""

from __future__ import annotations

import itertools
import math

import pytest

from kfnas.config import parse
from kfnas.errors import BudgetError
from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkSpec, Space, mult_adds, num_params
from kfnas.steps import reach
from kfnas.steps.config import RunConfig
from kfnas.steps.prepared import finite
from kfnas.steps.reach import cheapest_network, require_counted_reach


def network(choices, arguments):
    width = choices["width"]
    op = ConvSpec("op", 1, width, (choices["kernel"],) * 2, choices["stride"])
    size = 8 // choices["stride"]
    return NetworkSpec(1, 8, (LayerSpec("stem", (op,), 1, width, choices["stride"], 8, size),), (LinearSpec(width, 2),))


def allowed(choices) -> bool:
    return choices["kernel"] > 1 or choices["width"] > 4


SPACE = Space.from_decisions({"width": [16, 4, 8], "kernel": [5, 3, 1], "stride": [2, 1]}, name="small", is_valid=allowed, network=network)
ALL = [SPACE.architecture(tokens) for tokens in itertools.product(*map(range, SPACE.num_choices)) if SPACE.is_valid(tokens)]


def build(architecture) -> NetworkSpec:
    return SPACE.network(architecture, None)


def config(cost: str, target: float | None, kind: str = "hard") -> RunConfig:
    return parse(
        RunConfig, {"name": "x", "cost": cost, "search": {"reward": {"kind": kind, "target": target}}, "proxy": {"epochs": 1}, "retrain": {"epochs": 1}}
    )


@pytest.mark.parametrize(("cost", "count"), [("mult_adds", mult_adds), ("params", num_params), ("latency_ms", mult_adds)])
def test_the_cheapest_network_is_found_among_valid_ones(cost, count):
    assert count(cheapest_network(config(cost, 1.0), SPACE, build)) == min(count(build(architecture)) for architecture in ALL)


def test_from_any_one_draw_the_way_goes_down_to_the_cheapest(monkeypatch):
    monkeypatch.setattr(reach, "NUM_DRAWS", 1)
    free = Space(SPACE.decisions, name="free", network=network)
    for seed in range(5):
        chosen = config("mult_adds", 1.0).model_copy(update={"seed": seed})
        found = cheapest_network(chosen, free, lambda architecture: free.network(architecture, None))
        assert found == free.network(free.architecture((1, 2, 0)), None)


def test_a_budget_is_refused_below_the_cheapest_and_not_at_it():
    lowest = min(mult_adds(build(architecture)) for architecture in ALL)
    require_counted_reach(config("mult_adds", float(lowest)), SPACE, build)
    with pytest.raises(BudgetError, match=rf"no architecture meets mult_adds {lowest - 1:g}; the cheapest that was found has {lowest}: raise the target"):
        require_counted_reach(config("mult_adds", lowest - 1.0), SPACE, build)


@pytest.mark.parametrize("chosen", [config("mult_adds", None), config("mult_adds", 1.0, "soft"), config("latency_ms", 1e-6)])
def test_what_is_no_hard_budget_of_a_count_passes(chosen):
    require_counted_reach(chosen, SPACE, build)


def test_a_record_holds_the_metrics_that_are_numbers():
    assert finite({"top1": 0.5, "spread": math.nan, "worst": math.inf}) == {"top1": 0.5}
