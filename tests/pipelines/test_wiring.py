"""What each step is given, found by running both pipelines on real kfp.local with steps that write down their own call.

A stand-in for a step writes to each of its outputs the expression that made it, `update(A, B).next_state`; so the calls of a whole run can be told in full.
"""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import kfnas
import kfnas_components
from kfnas_pipelines.compile import compile_finish_search, compile_search_rounds, compile_supernet_rounds, compile_sync_pool
from kfnas_pipelines.local_runner import log_lines

STEPS = sorted(module.name for module in pkgutil.iter_modules(kfnas_components.__path__) if module.name != "images")
ITEMS = ['{"shard":0,"more":null}', '{"shard":1,"more":[1,2.0]}']
STAND_IN = """
import json, os
from pathlib import Path

def {name}(config, *arguments):
    assert config == {config!r}
    given = [argument if isinstance(argument, str) else argument.read_text() for argument in arguments if isinstance(argument, str) or argument.exists()]
    call = "{name}(" + ", ".join(given) + ")"
    for path in arguments:
        if isinstance(path, Path) and not path.exists():
            path.write_text("{{}}" if path.name in ("metrics", "costs") else call + "." + path.name)
    descriptor = os.open({calls!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (call + "\\n").encode())
    os.close(descriptor)
    return {items!r}
"""
CONFIG = '{"name":"flowers"}'


@pytest.fixture
def stand_ins(tmp_path, monkeypatch) -> Path:
    """A package `kfnas` whose steps are stand-ins and whose rest is the real one; returns the file of calls."""
    package = tmp_path / "path" / "kfnas"
    (package / "steps").mkdir(parents=True)
    real = Path(kfnas.__file__).parent
    (package / "__init__.py").write_text(f"__version__ = 'x'\n__path__ = {[str(package), str(real)]!r}\n")
    (package / "steps" / "__init__.py").write_text(f"__path__ = {[str(package / 'steps'), str(real / 'steps')]!r}\n")
    calls = tmp_path / "calls"
    for name in STEPS:
        items = ITEMS if name in ("measure_latency", "choose_finalists", "plan_potentials") else None
        (package / "steps" / f"{name}.py").write_text(STAND_IN.format(name=name, config=CONFIG, calls=str(calls), items=items))
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    return calls


def run(pipeline: Path, calls: Path, **arguments: str) -> list[str]:
    given = pipeline.with_suffix(".json")
    given.write_text(json.dumps({"config": CONFIG, **arguments}))
    root = pipeline.parent / "root"
    command = [sys.executable, "-m", "kfnas_pipelines.local_runner", str(pipeline), str(given), "--root", str(root)]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "\n".join(log_lines(root / "run.log")[-50:])
    return calls.read_text().splitlines()


def call(step: str, *given: str) -> str:
    return f"{step}({', '.join(given)})"


def opening(run_id: str) -> tuple[str, str, list[str]]:
    """The data and state artifacts that a run begins with, and the calls that make them."""
    prepare = call("prepare_data")
    init = call("init_search", f"{prepare}.data", run_id)
    return f"{prepare}.data", f"{init}.state", [prepare, init]


def test_rounds_hand_on_their_state_and_each_shard_gets_its_own_item(tmp_path, stand_ins):
    calls = run(compile_search_rounds(tmp_path / "p.yaml", 2), stand_ins, run_id="run-1")
    data, state, expected = opening("run-1")
    for _ in range(2):
        sample = call("sample", state)
        opened, batch = f"{sample}.next_state", f"{sample}.batch"
        measure = call("measure_latency", data, opened, batch)
        plan = f"{measure}.plan"
        shards = [call("train_children", data, plan, item) for item in ITEMS]
        update = call("update", opened, plan)
        state = f"{update}.next_state"
        expected += [sample, measure, *shards, update, call("finish_round", state)]
        assert calls.index(update) > max(calls.index(shard) for shard in shards)
    expected.append(call("release_search", state))
    assert calls[-1] == expected[-1]
    assert sorted(calls) == sorted(expected)


def test_a_pooled_round_asks_the_pool_before_it_trains_and_gives_to_it_before_it_closes(tmp_path, stand_ins):
    calls = run(compile_search_rounds(tmp_path / "p.yaml", 2, pooled=True), stand_ins, run_id="run-1")
    data, state, expected = opening("run-1")
    for _ in range(2):
        sample = call("sample", state)
        opened, batch = f"{sample}.next_state", f"{sample}.batch"
        measure = call("measure_latency", data, opened, batch)
        pull = call("pull_pool", data, opened, f"{measure}.plan")
        plan = f"{pull}.pooled"
        shards = [call("train_children", data, plan, item) for item in ITEMS]
        push, update = call("push_pool", data, opened, plan), call("update", opened, plan)
        state = f"{update}.next_state"
        expected += [sample, measure, pull, *shards, push, update, call("finish_round", state)]
        assert calls.index(update) > calls.index(push) > max(calls.index(shard) for shard in shards)
    expected.append(call("release_search", state))
    assert sorted(calls) == sorted(expected)


def test_a_round_of_pcnas_trains_scores_each_shard_and_decides_with_what_was_trained(tmp_path, stand_ins):
    calls = run(compile_supernet_rounds(tmp_path / "p.yaml", "pcnas", 2), stand_ins, run_id="run-1")
    data, state, expected = opening("run-1")
    expected.append(call("operator_costs", data, state))
    for _ in range(2):
        train = call("train_supernet", data, state)
        planned = call("plan_potentials", data, f"{train}.next_state")
        shards = [call("score_potentials", data, f"{planned}.plan", item) for item in ITEMS]
        decide = call("decide_mixop", f"{train}.next_state", f"{planned}.plan")
        state = f"{decide}.next_state"
        expected += [train, planned, *shards, decide, call("finish_round", state)]
        assert calls.index(decide) > max(calls.index(shard) for shard in shards)
    expected.append(call("release_search", state))
    assert calls[2] == expected[2]
    assert sorted(calls) == sorted(expected)


@pytest.mark.parametrize(("algorithm", "steps"), [("betanas", ["alternate"]), ("oneshot", ["train_supernet", "evolve"])])
def test_rounds_without_shards_hand_on_the_state_from_step_to_step(tmp_path, stand_ins, algorithm, steps):
    calls = run(compile_supernet_rounds(tmp_path / "p.yaml", algorithm, 1), stand_ins, run_id="run-1")
    data, state, expected = opening("run-1")
    expected.append(call("operator_costs", data, state))
    for step in steps:
        expected.append(call(step, data, state))
        state = f"{expected[-1]}.next_state"
    expected += [call("finish_round", state), call("release_search", state)]
    assert calls[2] == expected[2]
    assert sorted(calls) == sorted(expected)


def test_a_pool_is_synced_with_the_store_and_the_direction_that_are_given(tmp_path, stand_ins):
    calls = run(compile_sync_pool(tmp_path / "p.yaml"), stand_ins, other="s3://bucket/x")
    assert calls == [call("sync_pool", "s3://bucket/x", "both")]


def test_each_finalist_is_trained_evaluated_and_exported_before_any_is_registered(tmp_path, stand_ins):
    calls = run(compile_finish_search(tmp_path / "p.yaml"), stand_ins, run_id="run-1")
    data, state, expected = opening("run-1")
    expected.append(call("choose_finalists", data, state))
    for item in ITEMS:
        retrain = call("retrain", data, item)
        expected += [retrain, call("evaluate", data, f"{retrain}.model"), call("export", data, f"{retrain}.model")]
    expected.append(call("register", state))
    assert sorted(calls) == sorted(expected)
    assert calls[-1] == expected[-1]


def test_a_run_without_an_id_is_named_by_the_cluster(tmp_path, stand_ins):
    calls = run(compile_finish_search(tmp_path / "p.yaml"), stand_ins)
    (init,) = [line for line in calls if line.startswith("init_search(")]
    name = init.removesuffix(")").rpartition(", ")[2]
    assert name
    assert "{{" not in name
