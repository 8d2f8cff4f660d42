"""Immutable JSON records."""

import json

import pytest

from kfnas.errors import CorruptError, StateVersionError, UserError
from kfnas.storage import MemoryStore, delete_record, get_record, list_records, put_record


def test_a_record_comes_back_as_json_has_it() -> None:
    store = MemoryStore()
    assert put_record(store, "latency", "k", {"a": (1, 2.0), "b": None, "c": {"10": "\u00e4", "2": True}})
    assert get_record(store, "latency", "k") == {"a": [1, 2.0], "b": None, "c": {"10": "\u00e4", "2": True}}


def test_number_keys_become_text_and_stay_readable() -> None:
    store = MemoryStore()
    put_record(store, "latency", "k", {"counts": {2: 1, 10: 1}})
    assert get_record(store, "latency", "k") == {"counts": {"2": 1, "10": 1}}


def test_the_first_record_stays() -> None:
    store = MemoryStore()
    assert put_record(store, "latency", "k", {"a": 1}) is True
    assert put_record(store, "latency", "k", {"a": 2}) is False
    assert get_record(store, "latency", "k") == {"a": 1}


def test_keys_are_listed_within_their_folder() -> None:
    store = MemoryStore()
    for key in ("b", "a-1", "a"):
        put_record(store, "x/y", key, {})
    put_record(store, "x/y/z", "deeper", {})
    put_record(store, "x/yy", "other", {})
    assert list(list_records(store, "x/y")) == sorted(["b", "a-1", "a"], key=lambda key: key + ".json")
    delete_record(store, "x/y", "b")
    assert "b" not in list(list_records(store, "x/y"))
    assert get_record(store, "x/y", "b") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    store = MemoryStore()
    with pytest.raises(UserError, match="record latency/k is not JSON"):
        put_record(store, "latency", "k", {"value": value})
    assert get_record(store, "latency", "k") is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"{}", b'{"format":1,"key":"k","digest":"0","record":{}}', b"\xff"])
def test_a_damaged_record_is_refused(text: bytes) -> None:
    store = MemoryStore()
    store.put("latency/k.json", text)
    with pytest.raises(CorruptError, match=r"latency/k\.json' is damaged .*; delete it"):
        get_record(store, "latency", "k")


def test_a_record_under_another_key_is_refused() -> None:
    store = MemoryStore()
    put_record(store, "latency", "k", {"a": 1})
    store.put("latency/other.json", store.get("latency/k.json"))
    with pytest.raises(CorruptError, match="digest or key differs"):
        get_record(store, "latency", "other")


def test_a_record_of_a_newer_format_is_refused() -> None:
    store = MemoryStore()
    store.put("latency/k.json", json.dumps({"format": 2, "entry": 1}).encode())
    with pytest.raises(StateVersionError, match="install a newer kfnas"):
        get_record(store, "latency", "k")
