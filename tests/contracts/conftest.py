"""One empty blob store of each kind."""

import uuid
from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.server)])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty store: memory, a local folder, a real S3 server."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    if request.param == "local":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("s3_uri"))
