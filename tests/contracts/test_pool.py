"""A pool keeps its promises on every adapter, with writers racing and dying."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kfnas.errors import CorruptError, NotFound, PoolMismatch, StateVersionError, StoreUnavailable, UserError
from kfnas.pool import EMPTY, Pool, PoolEntry, PoolSnapshot, PoolVersion, mirror
from kfnas.storage import BlobStore, MemoryStore, open_store
from kfnas.testing import faults, pool_races
from kfnas.testing.faults import FaultPlan, FaultyStore

SPACE = "5" * 64
NOW = 1_700_000_000.0
DAY = 86_400.0
WRITES = ("put", "put_if_absent", "swap")


_clients: dict[str, object] = {}


@pytest.fixture
def store(store_uri: str) -> BlobStore:
    """The empty store; the S3 one on a client that all tests share, since making one takes longer than most of these tests."""
    if not store_uri.startswith("s3://"):
        return open_store(store_uri)
    from kfnas.storage.s3 import S3Store, make_client

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    if endpoint not in _clients:
        _clients[endpoint] = make_client()
    bucket, _, prefix = store_uri.removeprefix("s3://").partition("/")
    return S3Store(_clients[endpoint], bucket, prefix)


@pytest.fixture
def pool(store: BlobStore) -> Pool:
    return Pool(store, "demo", pack_bytes=4_000)


def entry(tokens: tuple[int, ...] = (0, 0), source: str = "a", score: float | None = None, *, block: int = 0, size: int = 200, **fields: object) -> PoolEntry:
    rng = np.random.default_rng([block, *tokens, *map(ord, source)])
    tensors = {"0.conv.weight": rng.standard_normal(size, dtype=np.float32), "0.bn.num_batches_tracked": np.array(size)}
    embedding = np.zeros(8, dtype=np.float32)
    embedding[[4 * index + token for index, token in enumerate(tokens)]] = 1
    return PoolEntry(block, tokens, embedding, tensors, source, 100, score=score, **fields)  # type: ignore[arg-type]


def push(pool: Pool, *entries: PoolEntry) -> PoolVersion:
    return pool.push(entries, space=SPACE, iterations=100).version


def contents(snapshot: PoolSnapshot) -> list[tuple[object, ...]]:
    return [(row.key, row.task, row.source, row.score, row.sha256) for row in snapshot.rows]


def assert_answers(pool: Pool, *entries: PoolEntry) -> None:
    snapshot = pool.at()
    for wanted in entries:
        match = snapshot.query(wanted.block, wanted.tokens)
        assert match is not None
        assert (match.source, match.similarity) == (wanted.source, 1.0)
        fetched = snapshot.fetch([match])[match]
        assert fetched.keys() == wanted.tensors.keys()
        assert all(np.array_equal(fetched[name], wanted.tensors[name]) and fetched[name].dtype == wanted.tensors[name].dtype for name in fetched)
    assert snapshot.problems == []


def blobs(store: BlobStore, kind: str) -> list[str]:
    return list(store.list(f"pools/demo/{kind}/"))


def test_before_the_first_push_a_pool_is_empty(pool: Pool) -> None:
    assert pool.head() == EMPTY
    assert len(pool.at()) == 0
    assert pool.at().query(0, (0, 0)) is None
    assert pool.info().num_entries == 0
    with pytest.raises(NotFound, match="pool 'demo' does not exist"):
        pool.verify()


def test_what_was_pushed_comes_back(pool: Pool) -> None:
    entries = [entry((first, second), f"c{first}") for first in range(3) for second in range(3)]
    report = pool.push(entries, space=SPACE, iterations=100)
    assert (report.added, report.replaced, report.known, report.version.number) == (9, 0, 0, 1)
    assert pool.head() == report.version
    assert_answers(pool, *entries)
    info = pool.info()
    assert (info.space, info.iterations, info.num_entries, info.blocks) == (SPACE, 100, 9, {0: 9})
    assert info.num_packs > 1


def test_pushing_the_same_again_makes_no_version(pool: Pool, store: BlobStore) -> None:
    entries = [entry((0, 0)), entry((0, 1))]
    version = push(pool, *entries)
    before = list(store.list(""))
    again = Pool(store, "demo").push(reversed(entries), space=SPACE, iterations=100)
    assert (again.version, again.added, again.known) == (version, 0, 2)
    assert list(store.list("")) == before


def test_pushing_nothing_makes_no_pool(pool: Pool) -> None:
    assert push(pool) == EMPTY
    assert pool.head() == EMPTY


@pytest.mark.parametrize(
    "better",
    [
        (entry(source="b", score=0.5), entry(source="a", score=0.9)),
        (entry(source="a"), entry(source="z", score=0.1)),
        (entry(source="b", score=0.5), entry(source="a", score=0.5)),
        (entry(source="a", size=7), entry(source="a", size=9)),
    ],
    ids=["score", "a score at all", "first source", "first digest"],
)
def test_which_of_two_entries_stays_does_not_depend_on_the_order_of_pushes(store: BlobStore, better: tuple[PoolEntry, PoolEntry]) -> None:
    pools = [Pool(store, name) for name in ("forwards", "backwards", "together")]
    for first in better:
        push(pools[0], first)
    for first in reversed(better):
        push(pools[1], first)
    push(pools[2], *better)
    assert len({pool.head().digest for pool in pools}) == 1
    assert contents(pools[0].at()) == contents(pools[1].at()) == contents(pools[2].at())
    assert len(pools[0].at()) == 1


def test_a_lesser_entry_of_a_known_slot_makes_no_version(pool: Pool) -> None:
    version = push(pool, entry(score=0.9))
    report = pool.push([entry(source="b", score=0.8)], space=SPACE, iterations=100)
    assert (report.version, report.known) == (version, 1)


def test_a_better_entry_replaces_and_the_older_version_keeps_the_lesser(pool: Pool) -> None:
    first = push(pool, entry(source="old", score=0.1))
    report = pool.push([entry(source="new", score=0.2)], space=SPACE, iterations=100)
    assert (report.added, report.replaced) == (0, 1)
    assert [row.source for row in pool.at().rows] == ["new"]
    assert [row.source for row in pool.at(first).rows] == ["old"]
    assert [row.source for row in pool.at(1).rows] == ["old"]


def test_each_task_has_its_own_entry(pool: Pool) -> None:
    push(pool, entry(source="a", score=0.9, task="easy"), entry(source="b", score=0.1, task="hard"))
    snapshot = pool.at()
    assert [snapshot.query(0, (0, 0), task=task).source for task in ("easy", "hard", "other")] == ["a", "b", "a"]  # type: ignore[union-attr]


def test_an_open_version_does_not_see_later_pushes(pool: Pool) -> None:
    push(pool, entry((0, 0)))
    snapshot = pool.at()
    push(pool, entry((0, 1)))
    assert len(snapshot) == 1
    assert len(pool.at()) == 2


def test_unequal_children_are_refused(pool: Pool) -> None:
    push(pool, entry())
    with pytest.raises(PoolMismatch, match=r"holds children trained for 100 iterations in all, and these were trained for 200"):
        pool.push([PoolEntry(0, (0, 0), entry().embedding, entry().tensors, "b", 200)], space=SPACE, iterations=200)
    with pytest.raises(PoolMismatch, match=r"child 'a' was trained for 100 iterations in all, not 200"):
        pool.push([entry()], space=SPACE, iterations=200)
    with pytest.raises(PoolMismatch, match="is of space 555555555555, and this one is 666666666666"):
        pool.push([entry()], space="6" * 64, iterations=100)
    with pytest.raises(PoolMismatch, match="generation 1, not 0"):
        pool.push([entry(generation=1)], space=SPACE, iterations=100)
    with pytest.raises(UserError, match="score nan is not finite"):
        push(pool, entry(score=float("nan")))
    assert pool.head().number == 1


def test_children_of_a_pool_come_after_children_that_began_at_random(pool: Pool) -> None:
    pool.push([entry(source="warm", score=0.9, generation=1)], space=SPACE, iterations=100, generation=1)
    push(pool, entry(source="cold", score=0.1))
    assert [row.source for row in pool.at().rows] == ["cold"]


def test_an_entry_that_no_other_can_be_compared_with_is_refused(pool: Pool) -> None:
    push(pool, entry((0, 0)))
    with pytest.raises(
        UserError, match="entry block 0 of child b has 1 tokens and an embedding of 8, and others there have 2 tokens and an embedding of 8; push"
    ):
        push(pool, entry((0,), "b"))
    longer = PoolEntry(0, (0, 1), np.zeros(9, dtype=np.float32), entry().tensors, "b", 100)
    with pytest.raises(UserError, match="an embedding of 9"):
        push(pool, longer)
    with pytest.raises(UserError, match="entry block 1 of child a has 1 tokens"):
        push(pool, entry((0, 0), block=1), entry((0,), block=1))
    assert pool.verify().num_unneeded == 0
    assert_answers(pool, entry((0, 0)))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_an_unfit_pool_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="not allowed"):
        Pool(MemoryStore(), name)


def test_two_pools_of_a_store_do_not_meet(store: BlobStore) -> None:
    push(Pool(store, "one"), entry())
    assert Pool(store, "one.two").head() == EMPTY
    assert Pool(store, "on").head() == EMPTY


# Damage


def harm(store: BlobStore, key: str, how: str) -> None:
    data = store.get(key)
    if how == "missing":
        store.delete(key)
    else:
        store.put(key, {"torn": data[: len(data) // 2], "flipped": bytes([data[0], data[1] ^ 1]) + data[2:], "other": os.urandom(len(data))}[how])


@pytest.mark.parametrize("how", ["torn", "flipped", "other", "missing"])
def test_a_damaged_pack_is_never_loaded_and_the_next_best_entry_answers(store: BlobStore, pool: Pool, how: str) -> None:
    push(pool, entry((0, 0), "kept"))
    (kept,) = blobs(store, "packs")
    push(pool, entry((0, 1), "lost"))
    (damaged,) = set(blobs(store, "packs")) - {kept}
    harm(store, damaged, how)
    snapshot = pool.at()
    match = snapshot.query(0, (0, 1))
    assert match is not None
    assert match.source == "lost"
    assert snapshot.fetch([match]) == {}
    assert len(snapshot.problems) == 1
    assert "0-1 of child lost" in snapshot.problems[0]
    other = snapshot.query(0, (0, 1))
    assert other is not None
    assert (other.source, other.similarity) == ("kept", 0.5)
    assert set(snapshot.fetch([other])) == {other}
    report = pool.verify()
    assert len(report.problems) == 1
    assert len(pool.verify(deep=False).problems) == (1 if how == "missing" else 0)


@pytest.mark.parametrize("how", ["torn", "missing"])
def test_compacting_drops_what_is_damaged_and_pushing_again_brings_it_back(store: BlobStore, pool: Pool, how: str) -> None:
    entries = [entry((0, 0), "kept"), entry((0, 1), "lost")]
    push(pool, entries[0])
    (kept,) = blobs(store, "packs")
    push(pool, entries[1])
    (damaged,) = set(blobs(store, "packs")) - {kept}
    harm(store, damaged, how)
    report = pool.compact(now=NOW)
    assert (report.num_entries, len(report.dropped)) == (1, 1)
    push(pool, *entries)
    pool.prune(now=NOW, grace_seconds=0)
    assert pool.verify().problems == ()
    assert_answers(pool, *entries)


def test_a_damaged_entry_whose_slot_has_a_lesser_one_gives_way_to_it(store: BlobStore, pool: Pool) -> None:
    push(pool, entry(source="lesser", score=0.1))
    before = set(blobs(store, "packs"))
    push(pool, entry(source="better", score=0.9))
    (damaged,) = set(blobs(store, "packs")) - before
    harm(store, damaged, "torn")
    assert pool.compact(now=NOW).num_entries == 1
    assert [row.source for row in pool.at().rows] == ["lesser"]


@pytest.mark.parametrize("how", ["torn", "flipped", "missing"])
def test_a_damaged_segment_is_reported_and_the_others_answer(store: BlobStore, pool: Pool, how: str) -> None:
    entries = [entry((0, 0)), entry((0, 1))]
    push(pool, entries[0])
    (kept,) = blobs(store, "segments")
    push(pool, entries[1])
    (damaged,) = set(blobs(store, "segments")) - {kept}
    harm(store, damaged, how)
    fresh = Pool(store, "demo")
    assert len(fresh.at()) == 1
    assert len(fresh.at().problems) == len(fresh.info().problems) == len(fresh.verify().problems) == 1
    push(fresh, *entries)
    assert len(fresh.at()) == 2
    assert fresh.compact(now=NOW).num_entries == 2
    assert Pool(store, "demo").at().problems == []


def test_a_pool_with_an_entry_of_another_length_is_opened_without_it_and_mended(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry((0, 0)), entry((0, 1))]
    push(pool, *entries)
    with monkeypatch.context() as patched:  # as an earlier kfnas let it in
        patched.setattr("kfnas.pool.pushing._check_lengths", lambda rows, index: None)
        push(pool, entry((0,), "odd"))
    snapshot = pool.at()
    assert snapshot.query(0, (0, 1)).source == "a"  # type: ignore[union-attr]
    assert len(snapshot.problems) == len(pool.verify().problems) == 1
    assert "entry block 0 of child odd has 1 tokens" in snapshot.problems[0]
    copy = Pool(MemoryStore(), "copy")
    assert len(mirror(pool, copy).problems) == 1
    report = pool.compact(now=NOW)
    assert (report.num_entries, report.dropped, report.version.digest) == (2, tuple(snapshot.problems), copy.head().digest)
    pool.prune(now=NOW, grace_seconds=0)
    assert pool.verify().problems == ()
    assert_answers(pool, *entries)


def test_what_is_damaged_since_it_was_read_is_found_and_dropped(store: BlobStore, pool: Pool) -> None:
    push(pool, entry())
    (key,) = blobs(store, "segments")
    store.delete(key)
    assert len(pool.verify().problems) == 1
    assert len(pool.compact(now=NOW).dropped) == 1
    pool.prune(now=NOW, grace_seconds=0)
    assert pool.verify().problems == ()


def test_a_segment_that_was_gone_at_a_push_and_came_back_is_reported_and_compacting_mends_the_record(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0)))
    (key,) = blobs(store, "segments")
    data = store.get(key)
    store.delete(key)
    push(Pool(store, "demo"), entry((0, 1)))
    store.put(key, data)
    (problem,) = pool.verify().problems
    assert "version 2 has 2 entries of digest" in problem and "and 1 of digest" in problem
    whole = Pool(MemoryStore(), "whole")
    push(whole, entry((0, 0)), entry((0, 1)))
    report = pool.compact(now=NOW)
    assert (report.dropped, report.version.digest) == ((), whole.head().digest)
    pool.prune(now=NOW, grace_seconds=0)
    assert pool.verify().problems == ()


def test_an_entry_damaged_while_a_compaction_runs_is_reported_and_gives_way_to_the_lesser(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0), "lesser", 0.1))
    before = set(blobs(store, "packs"))
    push(pool, entry((0, 0), "better", 0.9))
    (damaged,) = set(blobs(store, "packs")) - before
    push(pool, entry((0, 1)))
    faulty = interrupted(store, "get", lambda: harm(store, damaged, "torn"), nth=2, key=damaged)  # between comparing and copying
    report = Pool(faulty, "demo").compact(now=NOW)
    assert (report.num_entries, len(report.dropped)) == (2, 1)
    assert "of child better" in report.dropped[0]
    assert [row.source for row in pool.at().rows] == ["lesser", "a"]


def test_what_a_newer_kfnas_wrote_is_neither_read_nor_dropped(store: BlobStore, pool: Pool) -> None:
    push(pool, entry())
    (key,) = blobs(store, "segments")
    newer = store.get(key).replace(b'"format":1', b'"format":2')
    name = key.rpartition("-")[0] + "-" + hashlib.sha256(newer).hexdigest()
    store.put(name, newer)
    manifest = store.get("pools/demo/MANIFEST")
    store.put("pools/demo/MANIFEST", manifest.replace(key.removeprefix("pools/demo/").encode(), name.removeprefix("pools/demo/").encode()))
    for act in (pool.at, pool.info, pool.verify, lambda: pool.compact(now=NOW), lambda: push(pool, entry((0, 1)))):
        with pytest.raises(StateVersionError, match="format 2, and this kfnas knows 1"):
            act()


def test_a_torn_upload_under_the_right_name_is_replaced(store: BlobStore) -> None:
    other = MemoryStore()
    push(Pool(other, "demo"), entry())
    (key,) = other.list("pools/demo/packs/")
    store.put(key, other.get(key)[:100])
    push(Pool(store, "demo"), entry())
    assert_answers(Pool(store, "demo"), entry())


def test_a_damaged_or_newer_manifest_is_refused(store: BlobStore, pool: Pool) -> None:
    push(pool, entry())
    whole = store.get("pools/demo/MANIFEST")
    store.put("pools/demo/MANIFEST", whole[:-20])
    with pytest.raises(CorruptError, match=r"not a pool's manifest .* delete pools/demo/MANIFEST, then `kfnas pool sync` from a whole copy"):
        pool.head()
    store.put("pools/demo/MANIFEST", whole.replace(b'"format":1', b'"format":2'))
    with pytest.raises(StateVersionError, match="format 2"):
        pool.at()


# Keeping


def many(pool: Pool) -> list[PoolEntry]:
    entries = [entry((first, second), f"c{second}", block=block) for first in range(4) for second in range(4) for block in range(2)]
    for index in range(0, len(entries), 4):
        push(pool, *entries[index : index + 4])
    push(pool, *[entry(each.tokens, "worse", block=each.block) for each in entries[:3]])
    return entries


def test_compacting_keeps_every_answer_and_the_digest(pool: Pool) -> None:
    entries = many(pool)
    before = pool.at()
    larger = Pool(pool.access.store, "demo", pack_bytes=16_000)
    report = larger.compact(now=NOW)
    assert report.changed
    assert report.version.number == before.version.number + 1
    assert report.version.digest == before.version.digest
    assert contents(pool.at()) == contents(before)
    assert_answers(pool, *entries)
    info = pool.info()
    assert info.num_segments == 1
    assert (info.num_packs, report.num_rewritten) == (2, 32)
    assert [match.row for match in map(before.query, [0, 1], [(3, 3), (1, 2)]) if match] == [
        match.row for match in map(pool.at().query, [0, 1], [(3, 3), (1, 2)]) if match
    ]
    assert not larger.compact(now=NOW).changed


def test_pruning_forgets_replaced_versions_after_the_grace_and_deletes_what_they_had(store: BlobStore, pool: Pool) -> None:
    entries = many(pool)
    old = pool.at(2)
    Pool(store, "demo", pack_bytes=16_000).compact(now=NOW)
    early = pool.prune(now=NOW + DAY - 1)
    assert (early.num_versions, early.num_deleted) == (0, 0)
    assert contents(pool.at(2)) == contents(old)
    late = pool.prune(now=NOW + DAY)
    assert late.kept_versions == (pool.head().number,)
    assert late.num_deleted == 8 + 8
    assert late.num_waiting == 0
    with pytest.raises(NotFound, match="no version 2"):
        pool.at(2)
    report = pool.verify()
    assert (report.num_versions, report.num_unneeded, report.problems) == (1, 0, ())
    assert len(blobs(store, "segments")) == 1
    assert_answers(pool, *entries)
    assert pool.prune(now=NOW + 9 * DAY).num_deleted == 0


def test_a_replaced_version_waits_from_when_a_prune_first_sees_it(pool: Pool) -> None:
    push(pool, entry((0, 0)))
    push(pool, entry((0, 1)))
    assert pool.prune(now=NOW).kept_versions == (1, 2)
    assert pool.prune(now=NOW + DAY - 1).kept_versions == (1, 2)
    assert pool.prune(now=NOW + DAY).kept_versions == (2,)


def test_a_pinned_version_stays_until_its_pin_expires(pool: Pool) -> None:
    many(pool)
    version = pool.at(3).version
    held = contents(pool.at(3))
    pool.pin(version, "search-1", now=NOW, seconds=10 * DAY)
    pool.compact(now=NOW)
    report = pool.prune(now=NOW + 5 * DAY, grace_seconds=0)
    assert report.kept_versions == (3, pool.head().number)
    snapshot = Pool(pool.access.store, "demo").at(version)
    assert contents(snapshot) == held
    matches = [match for match in (snapshot.query(row.key.block, row.key.tokens) for row in snapshot.rows) if match]
    assert len(snapshot.fetch(matches)) == len(held)
    assert snapshot.problems == []
    late = pool.prune(now=NOW + 10 * DAY, grace_seconds=0)
    assert late.expired_pins == ("search-1",)
    assert late.kept_versions == (pool.head().number,)
    with pytest.raises(NotFound, match="no version 3"):
        pool.at(version)


def test_a_pin_is_renewed_moved_and_given_up(pool: Pool) -> None:
    first, second = push(pool, entry((0, 0))), push(pool, entry((0, 1)))
    pool.pin(first, "search", now=NOW, seconds=10)
    pool.pin(first, "search", now=NOW + 5, seconds=10)
    assert pool.info().pins["search"].expires == NOW + 15
    pool.pin(second, "search", now=NOW, seconds=10)
    assert pool.info().pins["search"].number == 2
    pool.unpin("search")
    pool.unpin("search")
    assert pool.info().pins == {}
    assert pool.head() == second
    pool.prune(now=NOW, grace_seconds=0)
    with pytest.raises(NotFound, match=r"no version 1 \(kept: 2\)"):
        pool.pin(first, "late", now=NOW, seconds=10)


def test_a_version_of_another_pool_is_not_opened(store: BlobStore, pool: Pool) -> None:
    push(pool, entry())
    stranger = push(Pool(store, "other"), entry(source="b"))
    with pytest.raises(NotFound, match="it is one of another pool"):
        pool.at(stranger)
    with pytest.raises(NotFound, match="it is one of another pool"):
        pool.pin(stranger, "search", now=NOW, seconds=1)


def test_a_version_is_found_by_its_content_after_a_compaction_took_its_number(pool: Pool) -> None:
    push(pool, entry((0, 0), "a"))
    frozen = push(pool, entry((0, 1), "b"))
    pool.compact(now=NOW)
    pool.prune(now=NOW, grace_seconds=0)
    assert pool.head().number != frozen.number and pool.head().digest == frozen.digest
    assert [row.source for row in pool.at(frozen).rows] == ["a", "b"]
    pool.pin(frozen, "search", now=NOW, seconds=10)
    assert pool.info().pins["search"].number == pool.head().number


# Two at once


def interrupted(store: BlobStore, kind: faults.Kind, action: Callable[[], object], nth: int = 1, key: str = "") -> FaultyStore:
    """The store, with something else happening just before one of its operations."""

    def act() -> None:
        action()

    return FaultyStore(store, FaultPlan(nth=nth, kinds=(kind,), when="before", key=key), act)


def test_a_prune_between_upload_and_commit_takes_nothing_from_the_push(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0)))
    deleted = []
    faulty = interrupted(store, "swap", lambda: deleted.append(pool.prune(now=NOW, grace_seconds=0).num_deleted))
    push(Pool(faulty, "demo"), entry((0, 1)), entry((0, 2)))
    assert deleted == [2]
    assert pool.verify().problems == ()
    assert_answers(pool, entry((0, 0)), entry((0, 1)), entry((0, 2)))


def test_a_check_is_not_alarmed_by_a_prune_meanwhile(store: BlobStore, pool: Pool) -> None:
    entries = many(pool)
    Pool(store, "demo", pack_bytes=16_000).compact(now=NOW)
    faulty = interrupted(store, "get", lambda: pool.prune(now=NOW + DAY), key="/packs/")
    assert Pool(faulty, "demo").verify().problems == ()
    (kept, *_) = {row.pack for row in pool.at().rows}
    harm(store, f"pools/demo/{kept}", "torn")
    assert pool.verify().problems != ()
    assert len(pool.at()) == len(entries)


def test_a_reader_of_the_newest_version_is_not_harmed_by_a_compaction_and_a_prune_meanwhile(store: BlobStore, pool: Pool) -> None:
    entries = many(pool)

    def tidy() -> None:
        Pool(store, "demo").compact(now=NOW)
        pool.prune(now=NOW, grace_seconds=0)

    snapshot = Pool(interrupted(store, "get", tidy, key="/segments/"), "demo").at()
    assert (len(snapshot), snapshot.problems) == (len(entries), [])


@pytest.mark.parametrize("kind", ["segments", "packs"])
def test_a_mirroring_is_not_harmed_by_a_compaction_and_a_prune_meanwhile(store: BlobStore, pool: Pool, kind: str) -> None:
    entries = many(pool)

    def tidy() -> None:
        Pool(store, "demo").compact(now=NOW)
        pool.prune(now=NOW, grace_seconds=0)

    copy = Pool(MemoryStore(), "copy")
    report = mirror(Pool(interrupted(store, "get", tidy, nth=2, key=f"/{kind}/"), "demo"), copy)
    assert (report.added, report.known, report.problems, report.target) == (len(entries), 0, (), copy.head())
    assert report.source.digest == report.target.digest
    assert_answers(copy, *entries)


def test_a_prune_within_its_grace_costs_a_push_no_second_upload(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0)))
    counted = FaultyStore(interrupted(store, "swap", lambda: pool.prune(now=NOW)), FaultPlan(kinds=("put_if_absent",), key="packs"))
    push(Pool(counted, "demo"), entry((0, 1)))
    assert len(counted.operations) == 1
    assert_answers(pool, entry((0, 0)), entry((0, 1)))


def test_what_a_dead_writer_left_is_pruned_after_the_grace(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0)))
    with pytest.raises(StoreUnavailable):
        push(Pool(FaultyStore(store, FaultPlan(nth=1, kinds=("swap",), action="raise")), "demo"), entry((0, 1)))
    assert pool.verify().num_unneeded == 2
    assert pool.prune(now=NOW).num_waiting == 2
    assert pool.prune(now=NOW + DAY).num_deleted == 2
    assert pool.verify().num_unneeded == 0
    assert len(pool.at()) == 1


def test_a_push_meanwhile_survives_a_compaction(store: BlobStore, pool: Pool) -> None:
    entries = many(pool)
    faulty = interrupted(store, "swap", lambda: push(Pool(store, "demo"), entry((0, 0), "late", block=5)))
    report = Pool(faulty, "demo", pack_bytes=4_000).compact(now=NOW)
    assert report.num_entries == len(entries) + 1
    assert_answers(pool, *entries, entry((0, 0), "late", block=5))


def test_a_compaction_meanwhile_survives_another(store: BlobStore, pool: Pool) -> None:
    entries = many(pool)
    faulty = interrupted(store, "swap", lambda: (pool.compact(now=NOW), pool.prune(now=NOW, grace_seconds=0)))
    Pool(faulty, "demo", pack_bytes=4_000).compact(now=NOW)
    assert pool.verify().problems == ()
    assert_answers(pool, *entries)


def test_the_same_push_twice_at_once_is_there_once(store: BlobStore, pool: Pool) -> None:
    entries = [entry((0, number)) for number in range(3)]
    faulty = interrupted(store, "swap", lambda: push(pool, *entries))
    report = Pool(faulty, "demo").push(entries, space=SPACE, iterations=100)
    assert (report.version.number, report.added, report.known) == (1, 0, 3)
    assert len(pool.at()) == 3


class _KilledError(BaseException):
    """The writer is gone: nothing of it runs any more."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_any_write_leaves_all_or_nothing_and_its_retry_doubles_nothing(store: BlobStore, when: str) -> None:
    entries = [entry((0, number), size=700) for number in range(3)]

    def kill() -> None:
        raise _KilledError

    num_writes = 0
    for nth in range(1, 20):
        name = f"demo-{nth}"
        before = push(Pool(store, name), entry((3, 3)))
        plan = FaultPlan(nth=nth, kinds=WRITES, when=when, key=f"pools/{name}/")  # type: ignore[arg-type]
        try:
            push(Pool(FaultyStore(store, plan, kill), name, pack_bytes=4_000), *entries)
        except _KilledError:
            num_writes += 1
        else:
            break
        assert len(Pool(store, name).at()) in (1, 4)
        assert len(Pool(store, name).at(before)) == 1
        assert push(Pool(store, name, pack_bytes=4_000), *entries).number == 2
        assert_answers(Pool(store, name), *entries, entry((3, 3)))
    assert num_writes == 5  # three packs, a segment, the manifest


@pytest.mark.parametrize("seed", [0, 1])
def test_racing_writers_lose_nothing_when_one_is_killed_and_another_prunes(store: BlobStore, store_uri: str, tmp_path: Path, seed: int) -> None:
    log = tmp_path / "log"
    if store_uri.startswith("memory"):
        _race_threads(store, log, seed)
    else:
        _race_processes(store_uri, tmp_path, log, seed)
    pushes = pool_races.returned(log)
    assert {push for push in pool_races.ALL_PUSHES if push[0] > 0} <= set(pushes)
    pool_races.check(store, "race", pushes)
    pool_races.write(store, "race", 0, log)
    assert pool_races.check(store, "race", pool_races.ALL_PUSHES) == set(pool_races.ALL_PUSHES)


def _victim_plan(seed: int, counter: Path | None = None) -> FaultPlan:
    """Where writer 0 dies: just before one of the first dozen of its writes, by the seed."""
    return FaultPlan(nth=random.Random(seed).randint(2, 12), kinds=WRITES, key="pools/race/", counter=counter)


def _race_threads(store: BlobStore, log: Path, seed: int) -> None:
    def kill() -> None:
        raise _KilledError

    victim = FaultyStore(store, _victim_plan(seed), kill)
    with ThreadPoolExecutor(pool_races.NUM_WRITERS + 1) as executor:
        futures = [executor.submit(pool_races.write, victim if writer == 0 else store, "race", writer, log) for writer in range(pool_races.NUM_WRITERS)]
        futures.append(executor.submit(pool_races.keep, store, "race", 10))
    with pytest.raises(_KilledError):
        futures[0].result()
    for future in futures[1:]:
        future.result()


def _race_processes(store_uri: str, tmp_path: Path, log: Path, seed: int) -> None:
    program = [sys.executable, "-m", "kfnas.testing.pool_races"]
    roles = [["write", store_uri, "race", str(writer), str(log)] for writer in range(pool_races.NUM_WRITERS)]
    (tmp_path / "faults").mkdir()
    armed = faults.install(tmp_path / "faults", _victim_plan(seed, tmp_path / "operations"))
    plain = [*roles[1:], ["keep", store_uri, "race", "8"]]
    victim = subprocess.Popen([*program, *roles[0]], env={**os.environ, **armed})
    others = [subprocess.Popen([*program, *role], stderr=subprocess.PIPE, text=True) for role in plain]
    for process in others:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert victim.wait(timeout=120) == -9


# Mirroring


def test_a_mirrored_pool_answers_alike_and_has_the_same_digest(store: BlobStore, pool: Pool) -> None:
    entries = many(pool)
    copy = Pool(MemoryStore(), "copy")
    report = mirror(pool, copy)
    assert (report.added, report.known, report.problems) == (len(pool.at()), 0, ())
    assert report.source.digest == report.target.digest == copy.head().digest
    assert_answers(copy, *entries)
    again = mirror(pool, copy)
    assert (again.added, again.known, again.sent_bytes, again.target) == (0, len(pool.at()), 0, report.target)


def test_mirroring_both_ways_makes_two_pools_one(store: BlobStore, pool: Pool) -> None:
    other = Pool(MemoryStore(), "demo")
    push(pool, entry((0, 0), "here", 0.5), entry((0, 1), "here", 0.1))
    push(other, entry((0, 0), "there", 0.1), entry((0, 2), "there"))
    mirror(pool, other)
    mirror(other, pool)
    assert pool.head().digest == other.head().digest
    assert [row.source for row in pool.at().rows] == ["here", "here", "there"]


def test_mirroring_leaves_damaged_entries_behind_and_mends_from_a_whole_copy(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0)))
    copy = Pool(MemoryStore(), "copy")
    mirror(pool, copy)
    (key,) = blobs(store, "packs")
    push(pool, entry((0, 1)))
    harm(store, key, "torn")
    second = Pool(MemoryStore(), "second")
    report = mirror(pool, second)
    assert (report.added, len(report.problems)) == (1, 1)
    assert_answers(second, entry((0, 1)))
    pool.compact(now=NOW)
    assert mirror(copy, pool).added == 1
    assert_answers(pool, entry((0, 0)), entry((0, 1)))


def test_a_damaged_manifest_is_mended_as_its_message_says(store: BlobStore, pool: Pool) -> None:
    push(pool, entry((0, 0)), entry((0, 1)))
    copy = Pool(MemoryStore(), "copy")
    mirror(pool, copy)
    store.put("pools/demo/MANIFEST", b"{")
    store.delete("pools/demo/MANIFEST")
    mirror(copy, pool)
    assert pool.verify().problems == ()
    assert_answers(pool, entry((0, 0)), entry((0, 1)))


def test_mirroring_refuses_a_pool_of_something_else(pool: Pool) -> None:
    push(pool, entry())
    other = Pool(MemoryStore(), "other")
    other.push([entry()], space="6" * 64, iterations=100)
    with pytest.raises(PoolMismatch):
        mirror(pool, other)
    assert mirror(Pool(MemoryStore(), "nothing"), pool).target == pool.head()
