"""The S3 adapter's errors, each from a real fault: dead ports, servers that answer 500, wrong secrets, servers that ignore conditions."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from kfnas.errors import AccessDenied, NotFound, StorageFull, StoreUnavailable, UnsupportedStore, UserError
from kfnas.storage import open_store
from kfnas.testing.seaweedfs import SeaweedFS, free_ports

Answer = tuple[int, Mapping[str, str], bytes]
Handle = Callable[[str, str, Mapping[str, str], bytes], Answer | None]


@contextmanager
def http_server(handle: Handle) -> Iterator[str]:
    """A real HTTP server on a loopback port; `handle(method, path, headers, body)` gives the answer, None closes the connection without one."""

    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = handle(self.command, self.path, dict(self.headers), body)
            if answer is None:
                self.close_connection = True
                return
            status, headers, data = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def forwarded(endpoint: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """The answer of another server to the same request; the Host header stays, so the signature does too."""
    connection = HTTPConnection(urlsplit(endpoint).netloc)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body or None)
    response = connection.getresponse()
    data = response.read()
    kept = {name: value for name, value in response.getheaders() if name.lower() not in ("transfer-encoding", "connection", "date", "server")}
    connection.close()
    return response.status, kept, data


def error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said {code}</Message></Error>".encode()


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_port_that_nothing_listens_on_is_unavailable_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match=rf"no answer from {endpoint} .*check that the service runs and that AWS_ENDPOINT_URL names it"):
        open_store("s3://bucket/prefix")
    assert time.monotonic() - start < 15


def test_a_server_that_always_answers_500_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[str] = []

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        requests.append(method)
        return 500, {}, error_body("InternalError")

    with http_server(handle) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StoreUnavailable, match=rf"{endpoint} answers with an error .*HTTP 500.*check that service"):
            open_store("s3://bucket/prefix")
    assert len(requests) == 3


def test_a_server_that_closes_every_connection_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda *request: None) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(StoreUnavailable, match=f"no answer from {endpoint}"):
            open_store("s3://bucket")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (401, "Unauthorized", AccessDenied),
        (404, "NoSuchBucket", UserError),
        (503, "SlowDown", StoreUnavailable),
        (429, "TooManyRequests", StoreUnavailable),
        (507, "InsufficientStorage", StorageFull),
        (403, "QuotaExceeded", StorageFull),
        (501, "NotImplemented", UnsupportedStore),
        (400, "InvalidRequest", UserError),
    ],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, status: int, code: str, expected: type[Exception]) -> None:
    with http_server(lambda *request: (status, {}, error_body(code))) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setattr("kfnas.storage.s3.MAX_ATTEMPTS", 1)
        with pytest.raises(expected, match=f"said {code}|bucket 'bucket' does not exist; create it"):
            open_store("s3://bucket/prefix")


def test_a_web_page_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda *request: (200, {"Content-Type": "text/html"}, b"<html>hello</html>")) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(UnsupportedStore, match="no S3 service"):
            open_store("s3://bucket")


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AccessDenied, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        open_store("s3://bucket")


@pytest.mark.parametrize(("variable", "value"), [("AWS_ENDPOINT_URL", "no address"), ("AWS_PROFILE", "none-such")])
def test_an_unusable_configuration_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=value):
        open_store("s3://bucket")


def test_a_bucket_name_that_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="Invalid bucket name"):
        open_store("s3://no bucket/prefix")


@pytest.fixture
def weed(seaweedfs_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> SeaweedFS:
    for name, value in seaweedfs_server.environment.items():
        monkeypatch.setenv(name, value)
    return seaweedfs_server


@pytest.mark.server
def test_a_wrong_secret_is_denied(weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDenied, match=r"SignatureDoesNotMatch.*check AWS_ACCESS_KEY_ID"):
        open_store(weed.uri("wrong-secret"))


@pytest.mark.server
def test_an_unknown_user_is_denied(weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(AccessDenied, match="InvalidAccessKeyId"):
        open_store(weed.uri("unknown-user"))


@pytest.mark.server
def test_a_missing_bucket_is_no_missing_blob(weed: SeaweedFS) -> None:
    with pytest.raises(UserError, match="bucket 'no-such-bucket' does not exist; create it") as caught:
        open_store("s3://no-such-bucket/prefix")
    assert not isinstance(caught.value, NotFound)


class SmallS3:
    """The few operations of S3 that the probe needs, on objects in a dictionary; it keeps only the conditions that it is told to keep."""

    def __init__(self, kept: set[str]) -> None:
        self.kept = kept
        self.objects: dict[str, bytes] = {}

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "DELETE":
            self.objects.pop(path, None)
            return 204, {}, b""
        current = f'"{hashlib.md5(self.objects[path]).hexdigest()}"' if path in self.objects else None
        exists = headers.get("If-None-Match") == "*" and current is not None
        differs = "If-Match" in headers and headers["If-Match"] != current
        if ("If-None-Match" in self.kept and exists) or ("If-Match" in self.kept and differs):
            return 412, {}, error_body("PreconditionFailed")
        self.objects[path] = body
        return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b""


@pytest.mark.parametrize(("kept", "lacking"), [({"If-Match"}, "If-None-Match"), ({"If-None-Match"}, "If-Match"), (set(), "If-None-Match")])
def test_a_store_that_ignores_a_condition_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, kept: set[str], lacking: str) -> None:
    server = SmallS3(kept)
    with http_server(server) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(UnsupportedStore, match=f"{endpoint} ignores `{lacking}.*use a store that keeps them"):
            open_store("s3://bucket/prefix")
    assert server.objects == {}


def test_a_store_that_keeps_both_conditions_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SmallS3({"If-Match", "If-None-Match"})
    with http_server(server) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert open_store("s3://bucket/prefix").uri == "s3://bucket/prefix"
    assert server.objects == {}


def test_a_write_that_meets_another_one_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon answers 409 while another conditional write on the key is under way."""
    server = SmallS3({"If-Match", "If-None-Match"})
    conflicts = [(409, {}, error_body("ConditionalRequestConflict"))] * 2

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return conflicts.pop() if "busy" in path and conflicts else server(method, path, headers, body)

    with http_server(handle) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store("s3://bucket")
        assert store.put_if_absent("busy", b"x") is True
        assert store.put_if_absent("busy", b"y") is False
    assert conflicts == []


@pytest.mark.server
def test_the_probe_leaves_nothing_behind(weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[str, str]] = []

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        requests.append((method, urlsplit(path).path))
        return forwarded(weed.endpoint, method, path, headers, body)

    with http_server(handle) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        open_store(weed.uri("probed"))
    assert [method for method, _ in requests] == ["PUT"] * 4 + ["DELETE"]
    assert len({path for _, path in requests}) == 1


@pytest.mark.server
def test_a_write_whose_answer_was_lost_is_taken_for_our_own(weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy passes the first conditional write on and closes the connection instead of answering: botocore repeats it."""
    lost: list[str] = []

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        answer = forwarded(weed.endpoint, method, path, headers, body)
        if method == "PUT" and "/lost/" in path and path not in lost:
            lost.append(path)
            return None
        return answer

    with http_server(handle) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store(weed.uri("answers"))
        assert store.put_if_absent("lost/created", b"ours") is True
        version = store.swap("lost/swapped", b"ours", None)
        assert store.get_versioned("lost/swapped") == (b"ours", version)
        assert len(lost) == 2


@pytest.mark.server
def test_a_body_that_breaks_off_is_read_again(weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[str] = []

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        status, kept, data = forwarded(weed.endpoint, method, path, headers, body)
        if method == "GET" and not broken:
            broken.append(path)
            return status, {**kept, "Connection": "close"}, data[:1000]
        return status, kept, data

    with http_server(handle) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store(weed.uri("broken"))
        data = os.urandom(200_000)
        store.put("blob", data)
        assert store.get("blob") == data
        assert broken


@pytest.mark.server
@pytest.mark.slow
def test_more_keys_than_a_page_are_listed(weed: SeaweedFS) -> None:
    store = open_store(weed.uri("pages"))
    keys = [f"many/{number:04d}" for number in range(1005)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert list(store.list("many/")) == keys


@pytest.mark.server
def test_a_server_that_stops_makes_later_calls_unavailable(weed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server(lambda *request: forwarded(weed.endpoint, *request)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = open_store(weed.uri("stops"))
        store.put("blob", b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.get("blob"),
        lambda: store.exists("blob"),
        lambda: store.put("blob", b""),
        lambda: store.swap("blob", b"", None),
        lambda: store.list(""),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="no answer from"):
            call()
