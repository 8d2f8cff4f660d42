"""Fixtures that several test packages share: a real S3 server for the whole session, and a fresh place in it for each test."""

import uuid
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("kfnas.testing.store_suite")

from kfnas.testing.seaweedfs import SeaweedFS, seaweedfs  # noqa: E402


@pytest.fixture(scope="session")
def seaweedfs_server() -> Iterator[SeaweedFS]:
    """A SeaweedFS server; mark tests that use it with `server`."""
    with seaweedfs() as server:
        yield server


@pytest.fixture
def s3_uri(seaweedfs_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty S3 store, and the environment to open it with."""
    use_s3_environment(seaweedfs_server, monkeypatch)
    return seaweedfs_server.uri(f"test-{uuid.uuid4().hex}")


def use_s3_environment(server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point boto3 at the server, and away from this machine's own AWS configuration."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
