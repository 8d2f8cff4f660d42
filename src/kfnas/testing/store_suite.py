"""What every `BlobStore` must do: one suite for all adapters.

    class TestMyStore(BlobStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

        @pytest.fixture
        def shared_uri(self, store):
            return store.uri

`store` is an empty store. `shared_uri` is the address at which other processes reach the same blobs through `open_store`; None, the
default, holds the races among threads.

For asserts with details, call `pytest.register_assert_rewrite("kfnas.testing.store_suite")` before importing it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kfnas.errors import NotFound, PreconditionFailed, UserError
from kfnas.storage import BlobStore, open_store
from kfnas.testing import races

UNFIT_KEYS = ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".hidden", "a/.kfnas", "a b", "a\n", "a\x00b", "a\\b", "\u00e4"]
UNFIT_KEYS += ["a*", "x" * 201, "a/" * 460 + "a"]
UNFIT_PREFIXES = ["/", "/a", "a//", "../", "a/../b", "a b", "a\x00", "\u00e4"]


class BlobStoreContract:
    """Subclass it in a test module as the module docstring says."""

    @pytest.fixture
    def shared_uri(self) -> str | None:
        return None

    def test_an_absent_blob_is_not_found(self, store: BlobStore) -> None:
        with pytest.raises(NotFound, match="folder/none"):
            store.get("folder/none")
        with pytest.raises(NotFound, match="folder/none"):
            store.get_versioned("folder/none")
        with pytest.raises(NotFound, match="folder/none"):
            store.get_range("folder/none", 0, 1)
        assert not store.exists("folder/none")

    @pytest.mark.parametrize("data", [b"", b"\x00", bytes(range(256)), b"line\r\n" * 3], ids=["empty", "nul", "every byte", "lines"])
    def test_bytes_come_back_as_they_were_put(self, store: BlobStore, data: bytes) -> None:
        store.put("a/b", data)
        assert store.get("a/b") == data
        assert store.get_versioned("a/b").data == data
        assert store.exists("a/b")

    def test_five_megabytes_come_back(self, store: BlobStore) -> None:
        data = os.urandom(5_000_000)
        store.put("large", data)
        assert store.get("large") == data

    def test_a_range_is_the_part_of_the_blob_that_it_names(self, store: BlobStore) -> None:
        data = os.urandom(300_000)
        store.put("a/b", data)
        for start, length in [(0, 1), (0, 300_000), (1, 299_999), (299_999, 1), (100_000, 100_000), (299_000, 5_000), (0, 400_000)]:
            assert store.get_range("a/b", start, length) == data[start : start + length]

    def test_a_range_beyond_the_end_is_empty(self, store: BlobStore) -> None:
        store.put("ten", b"0123456789")
        store.put("none", b"")
        assert [store.get_range("ten", 10, 1), store.get_range("ten", 500, 7), store.get_range("none", 0, 3)] == [b"", b"", b""]

    @pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0), (3, -2)])
    def test_a_range_that_is_none_is_refused(self, store: BlobStore, start: int, length: int) -> None:
        store.put("ten", b"0123456789")
        with pytest.raises(UserError, match=f"no range of {length} bytes from offset {start}"):
            store.get_range("ten", start, length)

    def test_put_replaces(self, store: BlobStore) -> None:
        store.put("a", b"a longer first value")
        store.put("a", b"second")
        assert store.get("a") == b"second"

    def test_put_if_absent_writes_once(self, store: BlobStore) -> None:
        assert store.put_if_absent("a/b", b"first") is True
        assert store.put_if_absent("a/b", b"second") is False
        assert store.put_if_absent("a/b", b"first") is False
        assert store.get("a/b") == b"first"

    def test_put_if_absent_writes_again_after_delete(self, store: BlobStore) -> None:
        store.put("a", b"first")
        store.delete("a")
        assert store.put_if_absent("a", b"second") is True
        assert store.get("a") == b"second"

    def test_swap_creates_where_there_is_none(self, store: BlobStore) -> None:
        version = store.swap("a/head", b"first", None)
        assert store.get_versioned("a/head") == (b"first", version)

    def test_swap_does_not_create_over_a_blob(self, store: BlobStore) -> None:
        store.put("head", b"first")
        with pytest.raises(PreconditionFailed, match="head"):
            store.swap("head", b"second", None)
        assert store.get("head") == b"first"

    def test_swaps_chain_by_the_versions_that_they_return(self, store: BlobStore) -> None:
        version = None
        for number in range(4):
            version = store.swap("head", b"%d" % number, version)
        assert store.get_versioned("head") == (b"3", version)

    def test_swap_refuses_a_version_that_was_replaced(self, store: BlobStore) -> None:
        old = store.swap("head", b"first", None)
        store.swap("head", b"second", old)
        with pytest.raises(PreconditionFailed):
            store.swap("head", b"third", old)
        assert store.get("head") == b"second"

    def test_swap_refuses_after_a_plain_put(self, store: BlobStore) -> None:
        old = store.swap("head", b"first", None)
        store.put("head", b"put")
        with pytest.raises(PreconditionFailed):
            store.swap("head", b"third", old)
        assert store.get("head") == b"put"

    def test_swap_does_not_revive_a_deleted_blob(self, store: BlobStore) -> None:
        old = store.swap("head", b"first", None)
        store.delete("head")
        with pytest.raises(PreconditionFailed):
            store.swap("head", b"second", old)
        assert not store.exists("head")

    def test_swap_goes_on_from_a_version_that_was_read(self, store: BlobStore) -> None:
        store.put("head", b"first")
        store.swap("head", b"second", store.get_versioned("head").version)
        assert store.get("head") == b"second"

    def test_delete_removes_and_may_be_repeated(self, store: BlobStore) -> None:
        store.put("a/b", b"x")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/there")
        assert not store.exists("a/b")
        assert list(store.list("")) == []

    def test_list_is_sorted_by_code_point_and_cut_by_text(self, store: BlobStore) -> None:
        keys = ["a-b", "a.b", "a/b", "a/c/d", "aB", "ab", "b/a"]
        for key in reversed(keys):
            store.put(key, b"")
        assert list(store.list("")) == sorted(keys)
        assert list(store.list("a")) == sorted(keys)[:-1]
        assert list(store.list("a/")) == ["a/b", "a/c/d"]
        assert list(store.list("a/c")) == ["a/c/d"]
        assert list(store.list("a/c/")) == ["a/c/d"]
        assert list(store.list("b/a/")) == []
        assert list(store.list("none/")) == []

    def test_unfit_keys_are_refused(self, store: BlobStore) -> None:
        calls: list[Callable[[str], object]] = [
            store.get,
            store.get_versioned,
            lambda key: store.get_range(key, 0, 1),
            store.exists,
            lambda key: store.put(key, b""),
            lambda key: store.put_if_absent(key, b""),
            lambda key: store.swap(key, b"", None),
            store.delete,
        ]
        for key in UNFIT_KEYS:
            for call in calls:
                with pytest.raises(UserError, match="not allowed"):
                    call(key)
        assert list(store.list("")) == []

    def test_unfit_prefixes_are_refused(self, store: BlobStore) -> None:
        for prefix in UNFIT_PREFIXES:
            with pytest.raises(UserError, match="not allowed"):
                store.list(prefix)

    def test_the_address_opens_the_same_blobs(self, store: BlobStore, shared_uri: str | None) -> None:
        if shared_uri is None:
            pytest.skip("no other process reaches this store")
        store.put("a", b"x")
        other = open_store(shared_uri)
        assert other.get("a") == b"x"
        assert open_store(other.uri).get("a") == b"x"

    def test_a_reader_sees_whole_blobs_only(self, store: BlobStore) -> None:
        values = {bytes([number]) * 100_000 for number in range(8)}
        store.put("blob", next(iter(values)))
        done = threading.Event()

        def write() -> None:
            for value in [*values] * 3:
                store.put("blob", value)
            done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while not done.is_set() and not writing.done():
                assert store.get("blob") in values
            writing.result()

    def test_one_of_many_racing_creators_wins(self, store: BlobStore, shared_uri: str | None) -> None:
        outcomes = races.race(races.create, shared_uri or store)
        for key in races.CREATED:
            winners = [racer for racer, created in enumerate(outcomes) if key in created]
            assert len(winners) == 1
            assert store.get(key) == b"%d" % winners[0]

    def test_racing_swaps_lose_no_update(self, store: BlobStore, shared_uri: str | None) -> None:
        store.put(races.COUNTER, b"0")
        races.race(races.increase, shared_uri or store)
        assert int(store.get(races.COUNTER)) == races.NUM_RACERS * races.NUM_INCREASES
