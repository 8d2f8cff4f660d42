"""The rounds of a search with a pool: how its children start, whatever is killed, repeated, damaged or shared."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

import kfnas.train
from kfnas.config import parse
from kfnas.errors import ConfigError, CorruptError, NotFound, PoolMismatch, UserError
from kfnas.pool import EMPTY, Pool
from kfnas.steps.config import RunConfig
from kfnas.steps.context import open_run, read_json, write_json
from kfnas.steps.measure_latency import measure_latency
from kfnas.steps.pool_rounds import PoolRound, check_pool, holder_of, is_warm, let_go, open_pool, pool_round, pool_rounds
from kfnas.steps.pull_pool import pull_pool
from kfnas.steps.push_pool import push_pool
from kfnas.steps.report import render
from kfnas.steps.sample import sample
from kfnas.steps.status import describe
from kfnas.steps.sync_pool import sync_pool
from kfnas.steps.view import search_view
from kfnas.storage import open_store
from kfnas.testing.sequence import StepSequence, outcome_of, small_search

POOL = {"name": "shared", "floor": 0.0, "min_match": 0.2}


def pooled(store: Path, pool: dict[str, Any] | None = None, **fields: object) -> RunConfig:
    return small_search(store, **{"rounds": 3, "pool": POOL | (pool or {}), **fields})


def rounds(sequence: StepSequence, number: int) -> StepSequence:
    for _ in range(number):
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()
    return sequence


def begun(config: RunConfig, folder: Path, number: int = 0) -> StepSequence:
    sequence = StepSequence(config, folder)
    sequence.begin()
    return rounds(sequence, number)


def pool_of(sequence: StepSequence) -> Pool:
    return open_pool(open_run(sequence.text))


def rows_of(sequence: StepSequence) -> list[Any]:
    run = open_run(sequence.text)
    return run.load_search(sequence.pointer).rows


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the pool of a search that has closed one round, of two children."""
    folder = tmp_path_factory.mktemp("donor")
    begun(pooled(folder / "store", name="donor", rounds=1), folder / "artifacts", 1)
    return folder / "store"


@pytest.fixture
def shared(donor: Path, tmp_path: Path) -> Path:
    """A copy of the donor's store, for a test to change."""
    return Path(shutil.copytree(donor, tmp_path / "store"))


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor] | None]:
    """Initial weights that children are trained from, by candidate."""
    given: dict[str, Any] = {}
    train_shard = kfnas.train.train_shard

    def watched(jobs, *arguments, **options):
        given.update({job.id: job.initial_weights for job in jobs})
        train_shard(jobs, *arguments, **options)

    monkeypatch.setattr(kfnas.train, "train_shard", watched)
    return given


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# How children start


@pytest.mark.parametrize(
    ("match_ratio", "was_warm", "warm"), [(0.98, None, False), (0.99, None, True), (0.98, False, False), (1.0, False, True), (0.0, True, True)]
)
def test_a_search_changes_to_the_pool_once_and_stays(match_ratio: float, was_warm: bool | None, warm: bool) -> None:
    earlier = None if was_warm is None else PoolRound(version=EMPTY, warm=was_warm, queried=0, matched=0, hits=0, similarity=None, entries=0)
    assert is_warm(match_ratio, earlier, 0.99) is warm


def test_children_start_at_random_until_the_pool_knows_their_blocks_and_then_from_it(tmp_path: Path, starts: dict[str, Any]) -> None:
    sequence = begun(pooled(tmp_path / "store"), tmp_path / "artifacts", 2)
    first, second = pool_rounds(open_run(sequence.text)).values()
    assert (first.warm, first.match_ratio, first.entries) == (False, 0.0, 0)
    assert (second.warm, second.version) == (True, pool_of(sequence).head())
    shown = f"pool       shared: {second.entries} entries in round 1, {second.match_ratio:.0%} of blocks matched; children start from it"
    assert shown in describe(sequence.text).splitlines()
    assert first.filled is None and "pool/filled" not in first.metrics
    assert 0 < second.metrics["pool/filled"] < 1
    label = f"pool:{second.version.digest[:12]}"
    assert [row.initialisation for row in rows_of(sequence)] == ["random", "random", label, label]

    searches = open_run(sequence.text).searches
    children = {record["id"]: record for record in map(searches.child, searches.children())}
    donors = [safetensors.torch.load(searches.child_weights(children[name])) for name in ("00000-0000", "00000-0001")]
    for name in ("00001-0000", "00001-0001"):
        assert children[name]["initialisation"] == label
        trained = safetensors.torch.load(searches.child_weights(children[name]))
        given = starts[name]
        assert given is not None
        assert {name.partition(".")[0] for name in trained} - {name.partition(".")[0] for name in given} == {"classifier"}
        assert any(torch.equal(given["stem.conv.conv.weight"], donor["stem.conv.conv.weight"]) for donor in donors)
        assert not torch.equal(given["stem.conv.conv.weight"], trained["stem.conv.conv.weight"])
    assert starts["00000-0000"] is None

    # Children that start at random are those of a search without a pool.
    plain = begun(small_search(tmp_path / "plain", rounds=3), tmp_path / "other", 1)
    assert set(outcome_of(plain.config).children) == {key for key, child in outcome_of(sequence.config).children.items() if child["id"].startswith("00000")}

    assert {row.task for row in pool_of(sequence).at().rows} == {"classification digits"}

    # Only those go into the pool, and the version that a search has started from stays what it reads.
    begun(pooled(tmp_path / "store", name="another", seed=5, rounds=1, pool={"floor": 1.0}), tmp_path / "another", 1)
    assert pool_of(sequence).head().number == second.version.number + 1
    rounds(sequence, 1)
    third = pool_round(open_run(sequence.text), 2)
    assert third is not None
    assert third.version == second.version
    assert {row.source for row in pool_of(sequence).at().rows} <= {key for key, child in children_by_key(sequence, "small", "another").items()}


def children_by_key(sequence: StepSequence, *names: str) -> dict[str, Any]:
    """Randomly initialised children of some searches of a store."""
    found = {}
    for name in names:
        searches = open_run(sequence.config.model_copy(update={"name": name}).text).searches
        found.update({key: record for key in searches.children() if "initialisation" not in (record := searches.child(key) or {})})
    return found


def test_a_batch_of_which_the_pool_knows_too_little_starts_at_random_together(shared: Path, tmp_path: Path, starts: dict[str, Any]) -> None:
    sequence = begun(pooled(shared, {"floor": 1.0, "min_match": 0.99}, seed=9), tmp_path / "artifacts", 1)
    used = pool_round(open_run(sequence.text), 0)
    assert used is not None
    assert used.entries > 0
    assert not used.warm
    assert (used.match_ratio or 0) < 0.99
    assert set(starts.values()) == {None}


def test_a_search_that_has_changed_stays_with_the_pool_and_warns_when_it_knows_little(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sequence = begun(pooled(shared, {"floor": 1.0, "min_match": 0.99}, seed=9), tmp_path / "artifacts")
    sample(sequence.text, sequence.state, sequence.batch, sequence.state)
    measure_latency(sequence.text, sequence.data, sequence.state, sequence.batch, sequence.plan)
    run = open_run(sequence.text)
    before = PoolRound(version=pool_of(sequence).head(), warm=True, queried=1, matched=1, hits=1, similarity=1.0, entries=1)
    run.searches.put_record("pool", "00000", before.model_dump(mode="json"))
    write_json(sequence.plan, {**read_json(sequence.plan), "round": 1})
    with caplog.at_level(logging.WARNING, "kfnas"):
        pull_pool(sequence.text, sequence.data, sequence.state, sequence.plan, tmp_path / "pooled")
    assert "fewer than pool.min_match (99 %); the search has changed to the pool once and stays with it" in caplog.text
    used = pool_round(run, 1)
    assert used is not None
    assert used.warm
    assert used.metrics["pool/match_ratio"] < 0.99
    assert {row["initialisation"] for row in read_json(tmp_path / "pooled")["rows"]} == {used.initialisation}


def test_a_search_whose_version_is_gone_says_what_helps(shared: Path, tmp_path: Path) -> None:
    sequence = begun(pooled(shared, seed=9), tmp_path / "artifacts", 1)
    assert pool_round(open_run(sequence.text), 0).warm
    begun(pooled(shared, {"floor": 1.0}, name="another", seed=5, rounds=1), tmp_path / "another", 1)
    pool_of(sequence).prune(now=1e12, grace_seconds=0)
    with pytest.raises(
        NotFound, match=r"version 1 .* is gone from .*'shared', .* restore the pool's folder from a backup, or begin a search of another name; .*pin_hours"
    ):
        sequence.open_round()


# Again, and after others


def test_a_round_reads_its_own_record_again_whatever_has_become_of_the_pool(shared: Path, tmp_path: Path) -> None:
    sequence = begun(pooled(shared, seed=9), tmp_path / "artifacts")
    shards = sequence.open_round()
    rows = read_json(sequence.plan)["rows"]
    assert pool_round(open_run(sequence.text), 0).warm
    shutil.rmtree(shared / "pools")
    assert sequence.open_round() == shards
    assert read_json(sequence.plan)["rows"] == rows
    for name in ("first", "second"):
        pull_pool(sequence.text, sequence.data, sequence.state, sequence.plan, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes() == sequence.plan.read_bytes()
    for shard in shards:
        sequence.train(shard)
    sequence.close_round()


@pytest.mark.parametrize(("fate", "cost"), [("unmeasured", None), ("infeasible", 1e12)])
def test_a_child_that_a_later_run_trains_after_all_starts_as_its_round_does(shared: Path, tmp_path: Path, fate: str, cost: float | None) -> None:
    sequence = begun(pooled(shared, seed=9), tmp_path / "artifacts")
    sample(sequence.text, sequence.state, sequence.batch, sequence.state)
    measure_latency(sequence.text, sequence.data, sequence.state, sequence.batch, sequence.plan)
    measured = read_json(sequence.plan)
    first, second = measured["rows"]
    write_json(tmp_path / "unsteady", {**measured, "rows": [first, second | {"fate": fate, "cost": cost, "reason": "on that device"}]})
    for plan in (tmp_path / "unsteady", sequence.plan):
        pull_pool(sequence.text, sequence.data, sequence.state, plan, tmp_path / "pooled")
    assert all(row["initial_weights"] for row in read_json(tmp_path / "pooled")["rows"])


def test_pushing_again_adds_nothing_and_a_push_that_was_lost_is_made_up_for(tmp_path: Path) -> None:
    sequence = begun(pooled(tmp_path / "store"), tmp_path / "artifacts")
    for shard in sequence.open_round():
        sequence.train(shard)
    with pytest.raises(NotFound, match="does not exist"):
        pool_of(sequence).verify()
    pushed = (sequence.text, sequence.data, sequence.state, sequence.plan, tmp_path / "pushed")
    push_pool(*pushed)
    told, head = read_json(tmp_path / "pushed"), pool_of(sequence).head()
    assert told["added"] > 0
    open_run(sequence.text).store.delete("searches/small/records/pushed/00000.json")
    push_pool(*pushed)
    assert pool_of(sequence).head() == head
    assert read_json(tmp_path / "pushed") == {"added": 0, "replaced": 0, "known": told["added"] + told["known"], "version": head.number}


def test_a_push_waits_for_every_shard(tmp_path: Path) -> None:
    sequence = begun(pooled(tmp_path / "store"), tmp_path / "artifacts")
    sequence.open_round()
    with pytest.raises(NotFound, match="its shard did not end: resume the search"):
        push_pool(sequence.text, sequence.data, sequence.state, sequence.plan, tmp_path / "pushed")


def test_nothing_is_pushed_where_that_is_not_wanted(shared: Path, tmp_path: Path) -> None:
    sequence = begun(pooled(shared, {"push": False, "floor": 1.0}, seed=5), tmp_path / "artifacts")
    before = pool_of(sequence).head()
    rounds(sequence, 1)
    assert pool_of(sequence).head() == before
    assert not pool_round(open_run(sequence.text), 0).warm


def test_an_empty_pool_that_nothing_fills_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = pooled(tmp_path / "store", {"push": False, "name": "shraed"})
    with pytest.raises(ConfigError, match=r"pool\.name: pool 'shraed' in .* is empty and pool\.push is off, so that no child would ever start from it; mend"):
        StepSequence(config, tmp_path / "artifacts").begin()
    assert open_run(config.text).searches.head() is None


def test_a_pool_that_is_only_filled_starts_no_child_and_grows(shared: Path, tmp_path: Path) -> None:
    sequence = begun(pooled(shared, {"read": False}, seed=9), tmp_path / "artifacts")
    before = pool_of(sequence).head().number
    rounds(sequence, 2)
    assert [used.warm for used in pool_rounds(open_run(sequence.text)).values()] == [False, False]
    assert pool_of(sequence).head().number > before


def test_a_pool_that_is_read_as_ever_leaves_the_digest_as_it_was(tmp_path: Path) -> None:
    plain, filled = (pooled(tmp_path / "store", pool) for pool in ({}, {"read": False}))
    assert pooled(tmp_path / "store", {"read": True}).digest == plain.digest != filled.digest


def test_a_named_version_is_read_although_a_later_one_is_there(shared: Path, tmp_path: Path) -> None:
    begun(pooled(shared, {"floor": 1.0}, name="another", seed=5, rounds=1), tmp_path / "another", 1)
    sequence = begun(pooled(shared, {"version": 1}, seed=9), tmp_path / "artifacts")
    sequence.open_round()
    assert pool_of(sequence).head().number == 2
    assert pool_round(open_run(sequence.text), 0).version.number == 1


# What is not there, not fit, not whole


def test_a_pool_of_children_trained_longer_is_refused_before_anything_is_trained(shared: Path, tmp_path: Path) -> None:
    config = pooled(shared, proxy={"steps": 3, "batch_size": 8})
    with pytest.raises(PoolMismatch, match=r"pool\.name: pool 'shared' holds children trained for 2 steps, and `proxy` comes to 3; train equally long"):
        StepSequence(config, tmp_path / "artifacts").begin()
    assert open_run(config.text).searches.head() is None


def test_the_steps_of_a_recipe_in_epochs_are_counted_on_the_data(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolMismatch, match=r"holds children trained for 2 steps, and `proxy` comes to 6"):
        StepSequence(pooled(shared, proxy={"epochs": 1, "batch_size": 8}), tmp_path / "artifacts").begin()
    begun(pooled(shared, proxy={"epochs": 1, "batch_size": 24}, name="as-long"), tmp_path / "artifacts")


def test_a_pool_of_another_space_is_refused_before_anything_is_trained(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolMismatch, match=r"pool\.name: pool 'shared' is of another space .* than 'mnas_v2'"):
        check_pool(open_run(pooled(shared, space={"name": "mnas_v2"}).text))


def test_a_version_that_is_not_there_is_refused(shared: Path) -> None:
    with pytest.raises(ConfigError, match=r"pool\.version: the pool has no version 7"):
        check_pool(open_run(pooled(shared, {"version": 7}).text))


def test_a_search_goes_on_without_a_pool_that_another_one_has_made_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sequence = begun(pooled(tmp_path / "store", rounds=1), tmp_path / "artifacts")
    begun(pooled(tmp_path / "store", name="faster", proxy={"steps": 1, "batch_size": 8}, rounds=1), tmp_path / "faster", 1)
    head = pool_of(sequence).head()
    with caplog.at_level(logging.WARNING, "kfnas"):
        rounds(sequence, 1)
    assert "round 0 starts from random weights: pool.name: pool 'shared' holds children trained for 1 steps" in caplog.text
    assert "nothing was put into the pool" in caplog.text
    assert "passed over" not in caplog.text
    used = pool_round(open_run(sequence.text), 0)
    assert (used.entries, used.problems, used.metrics["pool/unfit"]) == (0, (), 1.0)
    shown = "pool       shared: not used in round 0, children start from random weights: pool.name: pool 'shared' holds children trained for 1 steps"
    assert shown in describe(sequence.text)
    assert pool_of(sequence).head() == head
    assert [row.initialisation for row in rows_of(sequence)] == ["random"] * 2


def test_damaged_entries_are_passed_over_and_counted(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (shared / "pools" / "shared" / "packs").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    sequence = begun(pooled(shared, seed=9), tmp_path / "artifacts")
    with caplog.at_level(logging.WARNING, "kfnas"):
        sequence.open_round()
    used = pool_round(open_run(sequence.text), 0)
    assert used is not None
    assert not used.warm
    assert used.matched == 0
    assert used.metrics["pool/problems"] > 0
    assert used.metrics["pool/unfit"] == 0
    assert f"{len(used.problems)} damaged entries passed over" in describe(sequence.text)
    assert "differ from their digest" in caplog.text


def test_damaged_initial_weights_are_never_trained_from(shared: Path, tmp_path: Path) -> None:
    sequence = begun(pooled(shared, seed=9), tmp_path / "artifacts")
    shards = sequence.open_round()
    digest = read_json(sequence.plan)["rows"][0]["initial_weights"]
    (shared / "searches" / "small" / "blobs" / digest).write_bytes(b"torn")
    with pytest.raises(CorruptError):
        for shard in shards:
            sequence.train(shard)


def test_a_pipeline_that_does_not_ask_the_pool_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    sequence = begun(pooled(tmp_path / "store"), tmp_path / "artifacts")
    sample(sequence.text, sequence.state, sequence.batch, sequence.state)
    (shard, *_) = measure_latency(sequence.text, sequence.data, sequence.state, sequence.batch, sequence.plan)
    with pytest.raises(ConfigError, match="run search_rounds_pooled, or remove `pool`"):
        sequence.train(shard)


def test_a_pipeline_that_asks_a_pool_that_is_not_configured_is_refused(tmp_path: Path) -> None:
    sequence = begun(small_search(tmp_path / "store"), tmp_path / "artifacts")
    sequence.open_round()
    with pytest.raises(ConfigError, match=r"pool: not configured"):
        pull_pool(sequence.text, sequence.data, sequence.state, sequence.plan, tmp_path / "pooled")


def test_a_round_with_nothing_to_train_asks_no_pool(tmp_path: Path) -> None:
    config = pooled(tmp_path / "store", rounds=1, search={"batch_size": 2, "reward": {"target": 1e9}}, skip_over=1.0)
    sequence = begun(config, tmp_path / "artifacts")
    sample(sequence.text, sequence.state, sequence.batch, sequence.state)
    measure_latency(sequence.text, sequence.data, sequence.state, sequence.batch, sequence.plan)
    planned = read_json(sequence.plan)
    write_json(sequence.plan, {**planned, "rows": [row | {"fate": "infeasible", "reason": "too slow"} for row in planned["rows"]]})
    pull_pool(sequence.text, sequence.data, sequence.state, sequence.plan, sequence.plan)
    sequence.train('{"shard": 0, "ids": []}')
    sequence.close_round()
    assert {row.status for row in rows_of(sequence)} == {"infeasible"}
    assert pool_rounds(open_run(sequence.text)) == {}


# Pins, stores, what is shown


def test_the_version_in_use_is_pinned_while_the_search_lives(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = begun(pooled(shared, {"pin_hours": 2}, seed=9), tmp_path / "artifacts")
    run = open_run(sequence.text)
    now = [1000.0]
    monkeypatch.setattr("kfnas.steps.pool_rounds.time", SimpleNamespace(time=lambda: now[0]))
    rounds(sequence, 1)
    now[0] = 5000.0
    assert pool_of(sequence).info().pins[holder_of(run)].expires == 1000.0 + 7200
    sequence.open_round()
    pin = pool_of(sequence).info().pins[holder_of(run)]
    assert (pin.number, pin.expires) == (1, 5000.0 + 7200)
    let_go(run)
    assert holder_of(run) not in pool_of(sequence).info().pins


def test_a_pool_may_be_in_a_store_of_its_own_and_is_synced_to_another(tmp_path: Path) -> None:
    config = pooled(tmp_path / "store", {"store": str(tmp_path / "pools")}, rounds=1)
    sequence = begun(config, tmp_path / "artifacts", 1)
    assert not (tmp_path / "store" / "pools").exists()
    head, other = pool_of(sequence).head(), str(tmp_path / "other")
    sync_pool(config.text, other, "to", tmp_path / "told")
    assert Pool(open_store(other), "shared").head().digest == head.digest
    assert read_json(tmp_path / "told")["sent"] > 0
    sync_pool(config.text, other, "both", tmp_path / "told")
    assert read_json(tmp_path / "told") == {"sent": 0, "fetched": 0, "problems": 0}
    for path in (tmp_path / "pools" / "pools" / "shared" / "packs").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    sync_pool(config.text, str(tmp_path / "third"), "to", tmp_path / "told")
    assert read_json(tmp_path / "told") == {"sent": 0, "problems": len(Pool(open_store(other), "shared").at())}
    with pytest.raises(UserError, match="direction 'sideways' is none; give to, from, both"):
        sync_pool(config.text, other, "sideways", tmp_path / "told")


def test_what_the_pool_and_the_agent_reported_of_each_round_is_shown(tmp_path: Path) -> None:
    sequence = begun(pooled(tmp_path / "store"), tmp_path / "artifacts", 2)
    run = open_run(sequence.text)
    view = search_view(run, run.load_search(sequence.pointer))
    assert [metrics.round for metrics in view.rounds] == [0, 1]
    assert [metrics.values["pool/warm"] for metrics in view.rounds] == [0.0, 1.0]
    assert all("policy/entropy_nats" in metrics.values for metrics in view.rounds)
    assert [row.initialisation.partition(":")[0] for row in view.rows] == ["random", "random", "pool", "pool"]
    assert "From round 1 on, children start from the blocks of earlier ones." in render(run, run.load_search(sequence.pointer))


# Configuration


def test_a_pool_changes_what_a_configuration_fixes_and_its_place_does_not() -> None:
    plain, with_pool = (parse(RunConfig, {"name": "x", "retrain": {"epochs": 1}, **fields}) for fields in ({}, {"pool": POOL}))
    assert plain.digest != with_pool.digest
    elsewhere = parse(RunConfig, {"name": "x", "retrain": {"epochs": 1}, "pool": POOL | {"store": "s3://bucket/x", "pin_hours": 1}})
    assert elsewhere.digest == with_pool.digest


def test_a_pin_lasts_a_century_at_most() -> None:
    with pytest.raises(ConfigError, match=r"pool\.pin_hours: .*876000"):
        parse(RunConfig, {"name": "x", "retrain": {"epochs": 1}, "pool": POOL | {"pin_hours": 1e9}})


def test_a_record_from_before_it_told_how_much_was_filled_is_read() -> None:
    record = {"version": EMPTY.model_dump(), "warm": False, "queried": 0, "matched": 0, "hits": 0, "similarity": None, "entries": 0}
    used = parse(PoolRound, record)
    assert (used.filled, used.reason) == (None, None)


def test_a_configuration_from_before_there_were_pools_fixes_what_it_did() -> None:
    assert small_search("/tmp/x").digest == "54f6d752751366278e01d4a95b4c167acd79b9c4b548e4584de7cec371127c0f"
