"""A search's place in a store keeps its rules on every adapter."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kfnas.errors import ConfigMismatch, ConflictError, CorruptError, NotFound, SearchBusy, StaleFence, StoreUnavailable, UserError
from kfnas.storage import BlobStore, Owner, Pointer, SearchStore, open_store
from kfnas.testing.faults import FaultPlan, FaultyStore

NOW = 1_700_000_000.0
DIGEST = "c" * 64


def remote(run_id: str) -> Owner:
    """A run of another machine: only its lease speaks for it."""
    return Owner(run_id=run_id, host="elsewhere", boot_id="another-boot", pid=1, pid_start="1")


def write_state(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "state.json").write_text(text)
        (folder / "history-00000.jsonl").write_bytes(b"the same in every state")

    return write


def state_folder(parent: Path, text: str) -> Path:
    folder = parent / f"next-{text}"
    folder.mkdir(exist_ok=True)
    write_state(text)(folder)
    return folder


@pytest.fixture
def store(store_uri: str) -> BlobStore:
    return open_store(store_uri)


@pytest.fixture
def search(store: BlobStore) -> SearchStore:
    return SearchStore(store, "demo")


def claim(search: SearchStore, run_id: str = "first", *, now: float = NOW, **options: object) -> Pointer:
    return search.claim(remote(run_id), DIGEST, write_state("initial"), now=now, **options)  # type: ignore[arg-type]


def read(search: SearchStore, state: Pointer | str, folder: Path) -> str:
    search.read_state(state, folder)
    return (folder / "state.json").read_text()


def test_before_the_first_claim_there_is_no_head(search: SearchStore) -> None:
    assert search.head() is None
    with pytest.raises(NotFound, match="no search 'demo'"):
        search.renew("first", now=NOW)


def test_the_first_claim_writes_the_initial_state(search: SearchStore, tmp_path: Path) -> None:
    pointer = claim(search)
    assert (pointer.search_id, pointer.fence, pointer.sequence, pointer.round) == ("demo", 1, 0, 0)
    assert read(search, pointer, tmp_path / "out") == "initial"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["history-00000.jsonl", "state.json"]
    head = search.head()
    assert head is not None
    assert head.pointer() == pointer
    assert (head.claimed_at, head.lease_expires, head.finished) == (NOW, NOW + 120, False)


def test_the_same_run_may_claim_again_and_keeps_its_fence(search: SearchStore) -> None:
    first = claim(search)
    assert claim(search, now=NOW + 60) == first
    head = search.head()
    assert head is not None
    assert head.lease_expires == NOW + 180


def test_the_initial_state_is_made_once(search: SearchStore) -> None:
    first = claim(search)

    def never(folder: Path) -> None:
        raise AssertionError("the search exists")

    assert search.claim(remote("first"), DIGEST, never, now=NOW) == first


def test_a_second_live_run_is_refused_with_the_holder_and_the_way_to_take_over(search: SearchStore) -> None:
    claim(search)
    holder = r"held by run 'first' \(process 1 on host elsewhere\) since 2023-11-14 22:13:20 UTC, lease until 2023-11-14 22:15:20 UTC"
    with pytest.raises(SearchBusy, match=rf"{holder}; wait for it, stop it, or take the search over \(take_over=True"):
        claim(search, "second", now=NOW + 119)


def test_a_lease_that_has_ended_is_taken_over(search: SearchStore) -> None:
    claim(search)
    assert claim(search, "second", now=NOW + 120).fence == 2


def test_a_live_run_can_be_taken_over_on_purpose(search: SearchStore) -> None:
    claim(search)
    assert claim(search, "second", take_over=True).fence == 2


def test_a_released_search_is_free_at_once(search: SearchStore) -> None:
    claim(search)
    search.release("first")
    search.release("first")
    assert claim(search, "second").fence == 2


def test_release_by_a_run_that_does_not_hold_it_changes_nothing(search: SearchStore) -> None:
    claim(search)
    before = search.head()
    search.release("second")
    assert search.head() == before


def test_renewing_keeps_others_out(search: SearchStore) -> None:
    claim(search)
    search.renew("first", now=NOW + 100)
    with pytest.raises(SearchBusy):
        claim(search, "second", now=NOW + 219)
    assert claim(search, "second", now=NOW + 220).fence == 2


def test_a_lease_is_never_shortened(search: SearchStore) -> None:
    claim(search, lease_seconds=1000)
    search.renew("first", now=NOW + 1, lease_seconds=10)
    head = search.head()
    assert head is not None
    assert head.lease_expires == NOW + 1000


def test_an_old_fence_can_neither_commit_nor_renew(search: SearchStore, tmp_path: Path) -> None:
    old = claim(search)
    new = claim(search, "second", take_over=True)
    with pytest.raises(StaleFence, match=r"taken over by run 'second'.*fence 2, this step has 1"):
        search.commit(old, state_folder(tmp_path, "one"), round=1)
    with pytest.raises(StaleFence, match="not held by run 'first' any more but by run 'second'"):
        search.renew("first", now=NOW)
    head = search.head()
    assert head is not None
    assert head.pointer() == new


def test_an_old_fence_cannot_even_repeat_its_own_commit(search: SearchStore, tmp_path: Path) -> None:
    old = claim(search)
    search.commit(old, state_folder(tmp_path, "one"), round=1)
    claim(search, "second", take_over=True)
    with pytest.raises(StaleFence):
        search.commit(old, state_folder(tmp_path, "one"), round=1)


def test_commits_move_the_head_and_old_states_stay_readable(search: SearchStore, tmp_path: Path) -> None:
    pointers = [claim(search)]
    for number in range(1, 4):
        pointers.append(search.commit(pointers[-1], state_folder(tmp_path, f"state {number}"), round=number))
    assert [pointer.sequence for pointer in pointers] == [0, 1, 2, 3]
    assert [pointer.round for pointer in pointers] == [0, 1, 2, 3]
    head = search.head()
    assert head is not None
    assert head.pointer() == pointers[-1]
    for number, pointer in enumerate(pointers[1:], 1):
        assert read(search, pointer, tmp_path / f"out-{number}") == f"state {number}"
        assert read(search, pointer.digest, tmp_path / f"again-{number}") == f"state {number}"


def test_equal_files_of_several_states_are_stored_once(search: SearchStore, store: BlobStore, tmp_path: Path) -> None:
    pointer = claim(search)
    for number in range(3):
        pointer = search.commit(pointer, state_folder(tmp_path, str(number)), round=number)
    assert len(list(store.list("searches/demo/snapshots/"))) == 4
    assert len(list(store.list("searches/demo/blobs/"))) == 5


def test_the_same_commit_again_gives_the_same_pointer(search: SearchStore, tmp_path: Path) -> None:
    start = claim(search)
    first = search.commit(start, state_folder(tmp_path, "one"), round=1)
    assert search.commit(start, state_folder(tmp_path, "one"), round=1) == first
    later = search.commit(first, state_folder(tmp_path, "two"), round=2)
    last = search.commit(later, state_folder(tmp_path, "three"), round=3)
    assert search.commit(start, state_folder(tmp_path, "one"), round=1) == first
    assert search.commit(first, state_folder(tmp_path, "two"), round=2) == later
    head = search.head()
    assert head is not None
    assert head.pointer() == last


def test_another_result_of_the_same_step_is_refused(search: SearchStore, tmp_path: Path) -> None:
    start = claim(search)
    first = search.commit(start, state_folder(tmp_path, "one"), round=1)
    with pytest.raises(ConflictError, match="must give the same result"):
        search.commit(start, state_folder(tmp_path, "other"), round=1)
    search.commit(first, state_folder(tmp_path, "two"), round=2)
    with pytest.raises(ConflictError, match="must give the same result"):
        search.commit(start, state_folder(tmp_path, "other"), round=1)


def test_a_commit_on_a_state_that_never_was_is_refused(search: SearchStore, tmp_path: Path) -> None:
    start = claim(search)
    with pytest.raises(ConflictError, match="resume from there"):
        search.commit(start.model_copy(update={"sequence": 7}), state_folder(tmp_path, "one"), round=1)
    with pytest.raises(ConflictError, match="resume from there"):
        search.commit(start.model_copy(update={"digest": "d" * 64}), state_folder(tmp_path, "one"), round=1)


def test_a_pointer_of_another_search_is_refused(search: SearchStore, store: BlobStore, tmp_path: Path) -> None:
    claim(search)
    other = claim(SearchStore(store, "other"))
    with pytest.raises(UserError, match="'other', not of 'demo'"):
        search.commit(other, state_folder(tmp_path, "one"), round=1)
    with pytest.raises(UserError, match="'other', not of 'demo'"):
        search.read_state(other, tmp_path / "out")


def test_a_finished_search_can_be_gone_on_with(search: SearchStore, tmp_path: Path) -> None:
    last = search.commit(claim(search), state_folder(tmp_path, "one"), round=1, finished=True)
    head = search.head()
    assert head is not None
    assert head.finished
    search.commit(last, state_folder(tmp_path, "two"), round=2)
    head = search.head()
    assert head is not None
    assert not head.finished


def test_another_configuration_is_refused_with_both_shown(search: SearchStore) -> None:
    search.claim(remote("first"), DIGEST, write_state("initial"), now=NOW, config='{"proxy":{"epochs":1},"seed":0,"name":"a"}')
    with pytest.raises(ConfigMismatch) as caught:
        search.claim(remote("second"), "d" * 64, write_state("initial"), now=NOW + 999, take_over=True, config='{"proxy":{"epochs":2},"seed":0,"x":true}')
    message = str(caught.value)
    assert DIGEST in message
    assert "d" * 64 in message
    assert "proxy.epochs: 1 then, 2 now" in message
    assert 'name: "a" then, absent now' in message
    assert "x: absent then, true now" in message
    assert "seed" not in message


@pytest.mark.parametrize("part", ["manifest", "blob"])
@pytest.mark.parametrize("fault", ["changed", "cut", "gone"])
def test_a_damaged_state_is_refused(search: SearchStore, store: BlobStore, tmp_path: Path, part: str, fault: str) -> None:
    pointer = search.commit(claim(search), state_folder(tmp_path, "one"), round=1)
    key = f"searches/demo/snapshots/{pointer.digest}.json"
    if part == "blob":
        key = next(each for each in store.list("searches/demo/blobs/") if store.get(each) == b"one")
    data = store.get(key)
    if fault == "gone":
        store.delete(key)
    else:
        store.put(key, data[:-1] if fault == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(NotFound if (part, fault) == ("manifest", "gone") else CorruptError):
        search.read_state(pointer, tmp_path / "out")
    assert not (tmp_path / "out" / "state.json").exists()


def test_a_damaged_head_is_refused(search: SearchStore, store: BlobStore) -> None:
    claim(search)
    store.put("searches/demo/HEAD", store.get("searches/demo/HEAD")[:-9])
    with pytest.raises(CorruptError, match="not a search's head"):
        search.head()


def test_children_are_written_once_and_looked_up(search: SearchStore, store: BlobStore) -> None:
    assert search.child("k1") is None
    assert search.put_child("k1", {"accuracy": 0.5, "reason": None}, weights=b"weights") is True
    assert search.put_child("k1", {"accuracy": 0.9}, weights=b"others") is False
    assert search.put_child("k2", {"status": "failed"}) is True
    record = search.child("k1")
    assert record is not None
    assert (record["accuracy"], record["reason"]) == (0.5, None)
    assert search.child_weights(record) == b"weights"
    assert list(search.children()) == ["k1", "k2"]
    with pytest.raises(NotFound, match="no weights"):
        search.child_weights(search.child("k2") or {})
    search.delete_child("k1")
    search.delete_child("k1")
    assert list(search.children()) == ["k2"]
    assert list(store.list("searches/demo/children/")) == ["searches/demo/children/k2.json"]


def test_damaged_weights_are_refused(search: SearchStore, store: BlobStore) -> None:
    search.put_child("k1", {}, weights=b"weights")
    record = search.child("k1") or {}
    store.put(f"searches/demo/blobs/{record['weights']}", b"weightz")
    with pytest.raises(CorruptError, match="differ from their digest"):
        search.child_weights(record)


def test_latency_records_are_shared_by_searches_and_others_are_not(search: SearchStore, store: BlobStore) -> None:
    other = SearchStore(store, "other")
    assert search.put_record("latency", "k", {"latency_ms": 1.25}) is True
    assert other.put_record("latency", "k", {"latency_ms": 9.0}) is False
    assert other.record("latency", "k") == {"latency_ms": 1.25}
    assert search.put_record("final", "k", {"top1": 0.9}) is True
    assert other.record("final", "k") is None
    assert list(search.records("final")) == ["k"]
    assert list(other.records("latency")) == ["k"]


def test_racing_claims_give_one_holder(store_uri: str, search: SearchStore) -> None:
    """Eight runs start at once: one holds the search, the others are told so."""

    def try_to_claim(number: int) -> bool:
        try:
            claim(SearchStore(search.store, "demo"), f"run-{number}")
        except SearchBusy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(try_to_claim, range(8))) == 1
    head = search.head()
    assert head is not None
    assert head.fence == 1


def test_commits_and_heartbeats_do_not_lose_each_other(search: SearchStore, tmp_path: Path) -> None:
    def beat() -> None:
        for number in range(20):
            search.renew("first", now=NOW + number)

    pointer = claim(search)
    with ThreadPoolExecutor(2) as pool:
        beats = [pool.submit(beat) for _ in range(2)]
        for number in range(8):
            pointer = search.commit(pointer, state_folder(tmp_path, str(number)), round=number)
        for each in beats:
            each.result()
    head = search.head()
    assert head is not None
    assert head.pointer() == pointer
    assert head.lease_expires == NOW + 19 + 120


def test_a_commit_that_fails_at_any_write_can_be_repeated(search: SearchStore, store: BlobStore, tmp_path: Path) -> None:
    """Before and after each of a commit's three writes: the file that is new, the manifest, the head."""
    pointer = claim(search)
    for number, (nth, when) in enumerate([(nth, when) for nth in (1, 2, 3) for when in ("before", "after")], 1):
        plan = FaultPlan(nth=nth, when=when, action="raise")  # type: ignore[arg-type]
        faulty = SearchStore(FaultyStore(store, plan), "demo")
        folder = state_folder(tmp_path, f"state {number}")
        with pytest.raises(StoreUnavailable):
            faulty.commit(pointer, folder, round=number)
        head = search.head()
        assert head is not None
        assert read(search, head.pointer(), tmp_path / f"after-{number}") in (f"state {number - 1}" if number > 1 else "initial", f"state {number}")
        pointer = search.commit(pointer, folder, round=number)
        assert pointer.sequence == number
        assert read(search, pointer, tmp_path / f"out-{number}") == f"state {number}"


@pytest.mark.parametrize("search_id", ["", "..", "a/b", ".hidden", "a b"])
def test_an_unfit_search_name_is_refused(search_id: str) -> None:
    with pytest.raises(UserError, match="search name"):
        SearchStore(open_store("memory://names"), search_id)
