"""Packs are filled, read in few ranges, and never believed without their digests."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy

from kfnas.errors import CorruptError, StateVersionError, StoreUnavailable, UserError
from kfnas.pool.entries import BlockKey, Row, pack_tensors, unpack_tensors
from kfnas.pool.packs import read_rows, write_packs
from kfnas.pool.segments import decode_segment, encode_segment
from kfnas.storage import MemoryStore
from kfnas.testing.faults import FaultPlan, FaultyStore


def blob(number: int, size: int = 100) -> tuple[Row, bytes]:
    data = bytes([number]) * size
    row = Row(BlockKey(number, "", (0, number), "s"), "task", 0, 0.25 * number, "c", "conv", (1.0, 0.5), hashlib.sha256(data).hexdigest(), len(data))
    return row, data


def test_packs_are_closed_before_they_grow_too_large() -> None:
    store = MemoryStore()
    rows = write_packs(store, "pools/p", 0, [blob(1), blob(2), blob(3, 500), blob(4), blob(5)], pack_bytes=250)
    assert [store.get(f"pools/p/{row.pack}")[row.offset : row.offset + row.length] for row in rows] == [
        blob(1)[1],
        blob(2)[1],
        blob(3, 500)[1],
        blob(4)[1],
        blob(5)[1],
    ]
    assert [len(store.get(key)) for key in dict.fromkeys(f"pools/p/{row.pack}" for row in rows)] == [200, 500, 200]


def test_a_reader_fetches_the_wanted_ranges_and_small_gaps_between() -> None:
    store = FaultyStore(MemoryStore(), FaultPlan(kinds=("get",)))
    rows = write_packs(store, "pools/p", 0, [blob(number) for number in range(10)])
    wanted = [rows[0], rows[2], rows[9], rows[3]]
    loaded = list(read_rows(store, "pools/p", wanted, merge_gap_bytes=100))
    assert [(each.row, each.data) for each in loaded] == [(rows[number], blob(number)[1]) for number in (0, 2, 3, 9)]
    assert len(store.operations) == 2


def test_every_wanted_entry_is_read_however_many_packs_there_are() -> None:
    store = MemoryStore()
    rows = write_packs(store, "pools/p", 0, [blob(number) for number in range(30)], pack_bytes=100)
    assert [each.data for each in read_rows(store, "pools/p", rows)] != []
    assert {each.row: each.data for each in read_rows(store, "pools/p", rows)} == {blob(number)[0]: blob(number)[1] for number in range(30)}


def test_a_store_that_fails_fails_the_reader() -> None:
    store = MemoryStore()
    rows = write_packs(store, "pools/p", 0, [blob(number) for number in range(30)], pack_bytes=100)
    with pytest.raises(StoreUnavailable):
        list(read_rows(FaultyStore(store, FaultPlan(nth=20, kinds=("get",), action="raise")), "pools/p", rows))


def test_a_segment_gives_its_rows_back() -> None:
    rows = write_packs(MemoryStore(), "pools/p", 3, [blob(number) for number in range(5)], pack_bytes=200)
    data = encode_segment(rows)
    back = decode_segment(data, f"segments/000003-{hashlib.sha256(data).hexdigest()}")
    assert back == rows
    assert [(row.pack, row.offset) for row in back] == [(row.pack, row.offset) for row in rows]
    assert back[0].pack.startswith("packs/000003-")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format":1}', b'{"format":0,"rows":[],"texts":[]}', b'{"format":1,"rows":[[1]],"texts":[]}', b"\xff"])
def test_what_is_no_segment_is_corrupt_even_under_its_own_digest(text: bytes) -> None:
    with pytest.raises(CorruptError, match="none that this kfnas reads"):
        decode_segment(text, f"segments/000000-{hashlib.sha256(text).hexdigest()}")
    with pytest.raises(CorruptError, match="differs from its digest"):
        decode_segment(text, f"segments/000000-{'0' * 64}")


def test_a_segment_of_a_newer_kfnas_is_not_taken_for_damage() -> None:
    text = b'{"format":2,"rows":[],"texts":[]}'
    with pytest.raises(StateVersionError, match="format 2, and this kfnas knows 1; install a newer kfnas"):
        decode_segment(text, f"segments/000000-{hashlib.sha256(text).hexdigest()}")


def header(**fields: object) -> bytes:
    text = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **fields}}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


WRONG = [header(dtype="F99"), header(shape=[3]), header(shape=[-2]), header(data_offsets=[8, 0]), header(data_offsets=[-8, 0]), header(data_offsets=[8, 16])]
WRONG += [header(shape="ab"), header(more=1), header()[:-1], header(shape=None), b"\x02" + bytes(7) + b"[]", (2**63).to_bytes(8, "little") + b"{}"]


@pytest.mark.parametrize("data", [b"", b"x" * 50, b"\xff" * 8 + b"{}", b"\x80\x04\x95pickled", *WRONG])
def test_what_is_no_safetensors_blob_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError, match="no safetensors blob"):
        unpack_tensors(data)


def test_tensors_come_back_as_safetensors_itself_reads_them() -> None:
    rng = np.random.default_rng(0)
    tensors = {"b": rng.random((3, 2, 5)), "a": np.array(7), "e": np.zeros((0, 3), dtype=np.float32), "m": np.array([True, False])}
    tensors |= {kind: rng.integers(0, 100, (2, 3)).astype(kind) for kind in ("f2", "f4", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}
    data = pack_tensors(tensors)
    assert data == pack_tensors(dict(reversed(tensors.items())))
    ours, theirs = unpack_tensors(data), safetensors.numpy.load(data)
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, array in ours.items():
        assert (array.dtype, array.shape) == (theirs[name].dtype, theirs[name].shape) == (tensors[name].dtype, tensors[name].shape)
        assert np.array_equal(array, tensors[name])


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(UserError, match="no tensors"):
        pack_tensors({})
    for array in (np.array(["text"]), np.array([1j]), np.array([None])):
        with pytest.raises(UserError, match="'a' of a pool entry is of type"):
            pack_tensors({"a": array})
