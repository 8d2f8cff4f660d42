"""Dumb bytes and the few rules that keep a search whole: a `BlobStore` port with local, memory and S3 adapters, and a search's place in
one.

`open_store(uri)` is the only switch between adapters.
"""

from kfnas.storage.blobs import BlobStore, VersionedBlob, check_key
from kfnas.storage.directories import Manifest, get_blob, get_directory, put_blob, put_directory, read_manifest
from kfnas.storage.head import Head, Pointer
from kfnas.storage.local import LocalStore
from kfnas.storage.memory import MemoryStore
from kfnas.storage.opening import open_store
from kfnas.storage.owner import Owner
from kfnas.storage.records import delete_record, get_record, list_records, put_record
from kfnas.storage.search_store import LEASE_SECONDS, SHARED_KINDS, SearchStore

__all__ = [
    "LEASE_SECONDS",
    "SHARED_KINDS",
    "BlobStore",
    "Head",
    "LocalStore",
    "Manifest",
    "MemoryStore",
    "Owner",
    "Pointer",
    "SearchStore",
    "VersionedBlob",
    "check_key",
    "delete_record",
    "get_blob",
    "get_directory",
    "get_record",
    "list_records",
    "open_store",
    "put_blob",
    "put_directory",
    "put_record",
    "read_manifest",
]
