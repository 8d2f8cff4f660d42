"""Blobs as objects of an S3 bucket: Amazon's, SeaweedFS, MinIO or any other that keeps conditional writes.

`If-None-Match: *` and `If-Match: <etag>` carry the two conditional writes. Some servers ignore them without a word, and two searches would
then overwrite each other's
head: so `S3Store.open` tries both on a throwaway object and refuses such a store.

botocore repeats a request whose answer was lost. If the lost answer was "written", the repetition is told that its condition failed: where
a request was repeated, a blob that holds exactly our bytes is taken for our own write.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import exceptions as boto
from botocore.config import Config as BotoConfig

from kfnas.errors import AccessDenied, KfnasError, NotFound, PreconditionFailed, StorageFull, StoreUnavailable, UnsupportedStore, UserError
from kfnas.storage.blobs import RESERVED, VersionedBlob, check_key, check_prefix, check_range, is_key

TIMEOUTS = {"connect_timeout": 3, "read_timeout": 30}
MAX_ATTEMPTS = 3

_NO_CREDENTIALS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.NoAuthTokenError)
_NO_ANSWER = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_BUSY = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}


class _ConflictError(Exception):
    """Another conditional write on the same key is under way (409): ask again."""


class _BeyondEndError(Exception):
    """The range asked for begins where the object has ended (416)."""


class S3Store:
    """A `BlobStore` in the objects of a bucket whose names start with a prefix. Safe among threads.

    Args:
        client: a boto3 S3 client.
        bucket: an existing bucket.
        prefix: folder within the bucket, without slashes at its ends; "" for all of it.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._folder = f"{prefix}/" if prefix else ""

    @classmethod
    def open(cls, bucket: str, prefix: str = "") -> S3Store:
        """Connect as the environment says and check that the store keeps conditional writes.

        Raises:
            UnsupportedStore, StoreUnavailable, AccessDenied, UserError: see `open_store`.
        """
        try:
            client = make_client()
        except (boto.BotoCoreError, ValueError) as error:
            raise _without_answer(f"s3://{bucket}", "the configured endpoint", error) from error
        store = cls(client, bucket, prefix)
        store.probe()
        return store

    @property
    def uri(self) -> str:
        """The store's address, without the endpoint."""
        return f"s3://{self._bucket}/{self._prefix}"

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        return self.get_versioned(key).data

    def get_versioned(self, key: str) -> VersionedBlob:
        """See `BlobStore.get_versioned`."""
        return self._read(key, {})

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `BlobStore.get_range`."""
        check_range(key, start, length)
        try:
            return self._read(key, {"Range": f"bytes={start}-{start + length - 1}"}).data
        except _BeyondEndError:
            return b""

    def _read(self, key: str, which: dict[str, str]) -> VersionedBlob:
        """The object, or the range of it that `which` names."""
        name = self._name(key)
        with self._mapped(key):
            for attempt in range(1, MAX_ATTEMPTS + 1):
                response = self._client.get_object(Bucket=self._bucket, Key=name, **which)
                try:
                    return VersionedBlob(response["Body"].read(), response["ETag"])
                except (boto.HTTPClientError, boto.IncompleteReadError):
                    if attempt == MAX_ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    def exists(self, key: str) -> bool:
        """See `BlobStore.exists`."""
        try:
            with self._mapped(key):
                self._client.head_object(Bucket=self._bucket, Key=self._name(key))
        except NotFound:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        with self._mapped(key):
            self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `BlobStore.put_if_absent`."""
        try:
            self._write_if(key, data, {"IfNoneMatch": "*"})
        except PreconditionFailed:
            return False
        return True

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `BlobStore.swap`."""
        return self._write_if(key, data, {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected})

    def list(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.list`."""
        start = self._folder + check_prefix(prefix)
        with self._mapped(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            names = [item["Key"].removeprefix(self._folder) for page in pages for item in page.get("Contents", [])]
        return iter(sorted(filter(is_key, names)))  # servers differ in the order of "a/b" and "a-b"

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        self._delete(key, self._name(key))

    def probe(self) -> None:
        """Try both conditional writes, kept and broken, on a throwaway object.

        Raises:
            UnsupportedStore: one of them did not do what it must.
        """
        name = f"{self._folder}{RESERVED}/probe-{secrets.token_hex(8)}"
        version = self._try_probe(name, b"1", {"IfNoneMatch": "*"})
        if version is None:
            raise self._unsupported("refuses `If-None-Match: *` where there is no object")
        try:
            self._probe_existing(name, version)
        finally:
            self._delete("the probe of conditional writes", name)

    def _probe_existing(self, name: str, version: str) -> None:
        if self._try_probe(name, b"2", {"IfNoneMatch": "*"}):
            raise self._unsupported("ignores `If-None-Match: *`: it overwrote an object")
        if self._try_probe(name, b"3", {"IfMatch": '"00000000000000000000000000000000"'}):
            raise self._unsupported("ignores `If-Match`: it overwrote an object of another version")
        if not self._try_probe(name, b"4", {"IfMatch": version}):
            raise self._unsupported("refuses `If-Match` with the object's own version")

    def _try_probe(self, name: str, data: bytes, condition: dict[str, str]) -> str | None:
        """The new version, or None where the condition failed."""
        try:
            return self._write_object("the probe of conditional writes", name, data, condition)
        except PreconditionFailed:
            return None

    def _unsupported(self, fault: str) -> UnsupportedStore:
        return UnsupportedStore(
            f"{self._where()} {fault}. Without conditional writes two runs can overwrite each other's state; use a store that keeps them "
            "(Amazon S3, SeaweedFS, MinIO, Ceph) or a local folder"
        )

    def _write_if(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        return self._write_object(key, self._name(key), data, condition)

    def _write_object(self, key: str, name: str, data: bytes, condition: dict[str, str]) -> str:
        """Write under a condition; the new version.

        Raises:
            PreconditionFailed: the condition does not hold.
        """
        for attempt in range(5):
            time.sleep(0.05 * attempt)
            try:
                with self._mapped(key, conditional=True):
                    version = self._client.put_object(Bucket=self._bucket, Key=name, Body=data, **condition).get("ETag")
                if not version:
                    raise UnsupportedStore(f"{self._where()} answers a write without an ETag, so it is no S3 service; check the endpoint")
                return str(version)
            except _ConflictError:
                continue
            except PreconditionFailed as failure:
                version = self._own_write(name, data, failure)
                if version is None:
                    raise
                return version
        raise StoreUnavailable(f"{self._where()} keeps answering that {key!r} is being written by another; try again")

    def _own_write(self, name: str, data: bytes, failure: PreconditionFailed) -> str | None:
        """The version of our own earlier try, if the failed request was a repetition and the object holds our bytes."""
        cause = failure.__cause__
        if not isinstance(cause, boto.ClientError) or not cause.response.get("ResponseMetadata", {}).get("RetryAttempts"):
            return None
        try:
            with self._mapped(name):
                response = self._client.get_object(Bucket=self._bucket, Key=name)
                return str(response["ETag"]) if response["Body"].read() == data else None
        except NotFound:
            return None

    def _delete(self, key: str, name: str) -> None:
        try:
            with self._mapped(key):
                self._client.delete_object(Bucket=self._bucket, Key=name)
        except NotFound:
            return

    def _name(self, key: str) -> str:
        return self._folder + check_key(key)

    def _where(self) -> str:
        return f"{self.uri} at {self._client.meta.endpoint_url}"

    @contextmanager
    def _mapped(self, key: str, *, conditional: bool = False) -> Iterator[None]:
        """Turn a botocore error into one of ours."""
        try:
            yield
        except boto.ClientError as error:
            raise self._from_answer(key, error, conditional) from error
        except (boto.BotoCoreError, ValueError) as error:
            raise _without_answer(self.uri, self._client.meta.endpoint_url, error) from error

    def _from_answer(self, key: str, error: boto.ClientError, conditional: bool) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = f"{code}: {error.response.get('Error', {}).get('Message', '')}".strip(": ")
        if code == "NoSuchBucket":
            return UserError(f"{self._where()}: bucket {self._bucket!r} does not exist; create it, or mend the store's address")
        if conditional and (status in (404, 412) or code == "PreconditionFailed"):
            return PreconditionFailed(f"{self.uri}: blob {key!r} is not of the expected version; read it again")
        if conditional and status == 409:
            return _ConflictError()
        if status == 416:
            return _BeyondEndError()
        if status == 501 and conditional:
            return self._unsupported(f"does not implement conditional writes ({said})")
        if status == 404:
            return NotFound(f"{self.uri}: no blob {key!r}")
        if code in _FULL or status == 507:
            return StorageFull(f"{self._where()} has no room for {key!r} ({said}); free some and resume: the blob that was there before is unchanged")
        if status in (401, 403):
            return AccessDenied(
                f"{self._where()} refuses the credentials for {key!r} ({said}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"
            )
        if status >= 500 or status == 429 or code in _BUSY:
            return StoreUnavailable(f"{self._where()} answers with an error for {key!r} (HTTP {status}, {said}); check that service, then try again")
        return UserError(f"{self._where()} refuses the request for {key!r} (HTTP {status}, {said}); check the store's address and AWS_ENDPOINT_URL")


def make_client() -> Any:
    """A boto3 S3 client as the environment says: short time-outs, few attempts, `us-east-1` where no region is named."""
    session = boto3.session.Session()
    config = BotoConfig(**TIMEOUTS, retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS})
    return session.client("s3", region_name=session.region_name or "us-east-1", config=config)


def _without_answer(store: str, endpoint: str, error: Exception) -> KfnasError:
    """What an error that is no answer of the server means."""
    said = " ".join(str(error).split())
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(f"{store} at {endpoint}: no usable credentials ({said}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role")
    if isinstance(error, _NO_ANSWER):
        return StoreUnavailable(f"{store}: no answer from {endpoint} ({said}); check that the service runs and that AWS_ENDPOINT_URL names it, then try again")
    return UserError(f"{store} at {endpoint}: {said}; mend the store's address, AWS_ENDPOINT_URL or the AWS configuration")
