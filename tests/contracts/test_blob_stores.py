"""Every adapter of the blob store keeps the same contract."""

from pathlib import Path

import pytest

from kfnas.storage import BlobStore, LocalStore, MemoryStore, open_store
from kfnas.testing.faults import FaultPlan, FaultyStore
from kfnas.testing.store_suite import BlobStoreContract


class TestMemoryStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return MemoryStore()


class TestLocalStore(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> BlobStore:
        return LocalStore(tmp_path / "store with a space")

    @pytest.fixture
    def shared_uri(self, store: BlobStore) -> str:
        return store.uri


@pytest.mark.server
class TestS3Store(BlobStoreContract):
    @pytest.fixture
    def store(self, s3_uri: str) -> BlobStore:
        return open_store(s3_uri)

    @pytest.fixture
    def shared_uri(self, store: BlobStore) -> str:
        return store.uri


class TestFaultyStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return FaultyStore(MemoryStore(), FaultPlan(kinds=("get", "exists", "list", "delete", "put", "put_if_absent", "swap", "rename")))
