"""What a user can get wrong, or what can fail around a search: one line with field, value and remedy, the right exit status, and nothing lost."""

from __future__ import annotations

import contextlib
import functools
import re
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image

from kfnas.errors import BudgetError, StorageFull, StoreUnavailable
from kfnas.steps.boundary import boundary, failures_in
from kfnas.steps.config import load_run_config
from kfnas.steps.context import open_run, read_json
from kfnas.steps.update import update
from kfnas.testing.mlflow_server import MLflowServer, free_port
from kfnas.testing.sequence import Outcome, StepSequence, outcome_of
from kfnas_pipelines.cli import main

HARD = {"batch_size": 2, "reward": {"target": 100.0}}


def pictures(folder: Path, *classes: str, count: int = 6) -> Path:
    """A folder of random pictures, `count` a class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


@contextlib.contextmanager
def broken_server() -> Iterator[str]:
    """Address of a server that answers 500 to everything."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

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


# ---- before anything runs


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rouns": 3}, ["rouns: unknown field (got 3)", "known: ", "rounds"]),
        ({"task": {"name": "classification", "sorce": "x"}}, ["task: sorce: unknown field (got 'x')", "source"]),
        ({"rounds": -1}, ["rounds: ", "greater than or equal to 1", "(got -1)", "`kfnas config schema`"]),
        ({"search": {"batch_size": 0}}, ["search.batch_size: ", "(got 0)"]),
        ({"name": "My Search"}, ["name: ", "'My Search'"]),
        ({"task": {"name": "classification", "resolution": 4}}, ["task: resolution: ", "greater than or equal to 8", "(got 4)"]),
        ({"task": {"name": "flying"}}, ["task 'flying' is not installed; known are classification: "]),
        ({"space": {"name": "flying"}}, ["space 'flying' is not installed; known are betanas, betanas_28, mnas_small, mnas_tiny, mnas_v2, mnas_v3, "]),
        ({"device": {"name": "flying"}}, ["device 'flying' is not installed; known are local: "]),
        ({"device": {"replay": "gone.jsonl"}}, ["device.replay: gone.jsonl cannot be read", "`kfnas records export`"]),
        ({"device": {"replay": "search.yaml"}}, ["device.replay: search.yaml: latency records, line 1: no JSON", "export the records again"]),
        ({"space": {"name": "mnas_small", "width": 0.05}}, ["space: width multiplier 0.05: ", "give 0.3 or more"]),
        ({"search": HARD}, ["search.reward.target: no architecture meets mult_adds 100; the cheapest that was found has ", "raise the target"]),
        ({"search": HARD, "cost": "params"}, ["search.reward.target: no architecture meets params 100; "]),
        ({"prior": "gone"}, ["prior: agent mnas has no critic that could start from it; set search.agent to mnas+uac or fnas"]),
        ({"prior": "gone", "search": {"agent": "fnas", "batch_size": 2}}, ["prior: no search 'gone' in file://", "give the name, and with {search, store}"]),
        ({"pool": {"name": "Shared pool"}}, ["pool.name: ", "'Shared pool'"]),
        ({"pool": {"name": "shared", "flour": 0.5}}, ["pool.flour: unknown field (got 0.5)", "known: ", "floor"]),
        ({"pool": {"name": "shared", "version": 3}}, ["pool.version: the pool is empty and has no version 3"]),
        ({"pool": {"name": "shared", "store": "memory://here"}}, ["pool.store: memory://here lives in one process", "give a folder, or s3://bucket/prefix"]),
        ({"tracking": {"uri": "ftp://host"}}, ["tracking address 'ftp://host' is none that MLflow serves; give http(s)://host:port"]),
        ({"tracking": {"uri": "http://me:secret@host"}}, ["tracking.uri: http://***@host holds credentials", "set it as MLFLOW_TRACKING_URI"]),
        ({"store": "memory://here"}, ["store: memory://here lives in one process", "give a folder, or s3://bucket/prefix"]),
        ({"store": "ftp://host/x"}, ["store 'ftp://host/x' is of no known kind; give a folder's path"]),
        ({"task": {"name": "classification", "source": "fashion-mnist", "data_dir": "gone"}}, ["task: Fashion-MNIST is not in gone; ", "set data_dir"]),
    ],
)
def test_what_is_wrong_in_a_configuration_is_said_before_anything_runs(fields, words, configured, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, lines = refused("run", configured(**fields))
    assert status == 2
    (line,) = lines
    assert line.startswith("kfnas: error: ")
    assert all(word in line for word in words), line
    assert [path.name for path in tmp_path.iterdir()] == ["search.yaml"]


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (None, "no such folder; give one with a subfolder of pictures for each class, or the name fashion-mnist, digits or animal-shapes"),
        ((), "has no subfolder; put the pictures of each class into a subfolder of its own"),
        (("cats",), "holds one class (cats); classification needs two subfolders of pictures or more"),
        (("train/cats", "train/dogs", "test/cats", "test/cows"), "holds class cows, which the training folder lacks (it has cats, dogs); rename or remove it"),
    ],
)
def test_a_folder_that_holds_no_data_set_is_refused_before_anything_runs(classes, words, configured, refused, tmp_path):
    folder = tmp_path / "data"
    if classes is not None:
        folder.mkdir()
        pictures(folder, *classes)
    status, (line,) = refused("run", configured(task={"name": "classification", "source": str(folder)}))
    assert status == 2
    assert line.startswith(f"kfnas: error: task: {folder}")
    assert line.endswith(words)
    assert not (tmp_path / "store").exists()


def test_subfolders_without_pictures_are_an_empty_data_set(configured, refused, tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "notes.txt").write_text("no picture")
    status, (line,) = refused("try", configured(task={"name": "classification", "source": str(tmp_path / "data")}))
    assert status == 2
    assert "its subfolders hold no pictures (.jpg, .png, .bmp, .ppm, .tif, .webp); add some" in line


# ---- in a step, through the pipeline and the driver


def test_a_picture_that_cannot_be_read_is_one_line_from_the_step_that_met_it(kfnas, configured, tmp_path):
    folder = pictures(tmp_path / "data", "cats", "dogs")
    (folder / "dogs" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    done = kfnas("run", configured(task={"name": "classification", "source": str(folder)}))
    assert done.returncode == 2
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("kfnas: error: ")]
    assert len(errors) == 1
    assert f"{folder}/dogs/3.png: cannot be read as a picture" in errors[0]
    assert errors[0].endswith("; replace or remove the file")
    assert "Traceback" not in done.stderr
    (log,) = (tmp_path / "store" / "logs" / "tiny").iterdir()
    assert f"the log of the failed run is {log}" in done.stderr
    assert "Traceback" in log.read_text()


# ---- budgets of latency


def test_a_latency_that_no_architecture_has_is_refused_at_the_first_batch_and_by_replay(configured, tmp_path, capsys):
    fields = {"cost": "latency_ms", "search": {"batch_size": 2, "reward": {"target": 0.0001}}, "tracking": {"enabled": False}}
    path = configured(**fields)
    measured = load_run_config(path)
    with pytest.raises(BudgetError, match=r"search.reward.target: no architecture meets latency_ms 0.0001; the cheapest that was found has .*"):
        StepSequence(measured, tmp_path / "artifacts").run()
    records = tmp_path / "records.jsonl"
    assert main(["records", "export", str(records), str(path)]) == 0
    assert capsys.readouterr().out == f"3 records written to {records}\n"

    replayed = load_run_config(configured(**fields, store=str(tmp_path / "elsewhere"), device={"replay": str(records)}))
    with pytest.raises(BudgetError, match=r"no architecture meets latency_ms 0.0001"):
        StepSequence(replayed, tmp_path / "artifacts").run()
    assert set(open_run(replayed.text).searches.records("latency")) == set(open_run(measured.text).searches.records("latency"))

    assert main(["records", "import", str(records), str(configured(**fields, store=str(tmp_path / "third")))]) == 0
    assert capsys.readouterr().out == f"3 records of {records} are new to {tmp_path / 'third'}\n"
    assert main(["records", "import", str(records), str(tmp_path / "search.yaml")]) == 0
    assert capsys.readouterr().out.startswith("0 records of ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["records", "import", "gone.jsonl"], "gone.jsonl: cannot be read (No such file or directory); give a file that `kfnas records export` wrote"),
        (["records", "import", "search.yaml"], "latency records, line 1: no JSON"),
        (["records", "export", "out.jsonl"], "no latency records in file://"),
    ],
)
def test_records_that_are_not_there_are_one_line(arguments, words, configured, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, (line,) = refused(*arguments, configured())
    assert status != 0
    assert words in line
    assert not (tmp_path / "out.jsonl").exists()


# ---- a disk that is full


@dataclass(frozen=True)
class Disk:
    """A folder on a disk that can be filled."""

    folder: Path
    full: Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request, tmp_path) -> Iterator[Disk]:
    """A small file system of its own, where the system lets us mount one; otherwise, and for quotas, a limit on the size of every file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield Disk(folder, no_bytes)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    try:
        yield Disk(folder, functools.partial(filled, folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@contextlib.contextmanager
def no_bytes() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def undisturbed(write_config, tmp_path_factory) -> Outcome:
    """What the round of the tiny search comes to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sequence = StepSequence(load_run_config(write_config(folder)), folder / "artifacts")
    sequence.begin()
    for shard in sequence.open_round():
        sequence.train(shard)
    learn(sequence)
    return outcome_of(sequence.config)


def learn(sequence: StepSequence) -> None:
    update(sequence.text, sequence.state, sequence.plan, sequence.state)


def test_a_full_disk_stops_each_step_and_loses_nothing(disk, configured, undisturbed, tmp_path, capsys):
    config = load_run_config(configured(store=str(disk.folder / "store")))
    sequence = StepSequence(config, tmp_path / "artifacts")

    def met(step: Callable[[], Any]) -> Any:
        """What the step gives once there is room again; it was refused before, with a word on what to do."""
        with disk.full(), pytest.raises((StorageFull, OSError)), boundary("the-step"):
            step()
        (failure,) = failures_in(capsys.readouterr().err.splitlines())
        assert type(failure.as_error()) is StorageFull
        assert "free some" in failure.message
        return step()

    met(sequence.begin)
    (shard,) = met(sequence.open_round)
    met(lambda: sequence.train(shard))
    met(lambda: learn(sequence))
    assert outcome_of(config) == undisturbed


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_full_disk_is_one_line_though_the_log_is_on_it_too(kfnas, configured, disk):
    with disk.full():
        done = kfnas("run", configured(store=str(disk.folder / "store")))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("kfnas: error: ")]
    assert f"file://{disk.folder}/store: cannot write " in line
    assert "No space left on device; free some room there and resume" in line


# ---- servers that are away or broken


@dataclass(frozen=True)
class Endpoint:
    """An S3 store, and `at(address)`: the time during which the environment says that its server is elsewhere."""

    uri: str
    at: Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def s3(seaweedfs_server, s3_uri, monkeypatch) -> Endpoint:
    """A store on a real S3 server, whose address may be changed for another's."""
    return Endpoint(s3_uri, functools.partial(changed, monkeypatch, "AWS_ENDPOINT_URL", seaweedfs_server.endpoint))


@contextlib.contextmanager
def changed(monkeypatch: pytest.MonkeyPatch, variable: str, own: str, value: str) -> Iterator[None]:
    monkeypatch.setenv(variable, value)
    yield
    monkeypatch.setenv(variable, own)


@pytest.mark.server
def test_an_s3_address_that_nobody_answers_is_one_line(s3, configured, refused):
    nobody = f"http://127.0.0.1:{free_port()}"
    with s3.at(nobody):
        status, (line,) = refused("run", configured(store=s3.uri))
    assert status == 1
    assert s3.uri in line
    assert nobody in line
    assert "check" in line


@pytest.mark.server
def test_an_s3_server_that_breaks_stops_each_step_and_loses_nothing(s3, configured, refused, undisturbed, tmp_path):
    path = configured(store=s3.uri)
    config = load_run_config(path)
    sequence = StepSequence(config, tmp_path / "artifacts")
    with broken_server() as broken:
        with s3.at(broken):
            status, (line,) = refused("status", path)
        assert status == 1
        assert f"{s3.uri} at {broken} answers with an error" in line
        assert "HTTP 500" in line
        assert line.endswith("check that service, then try again")

        sequence.begin()
        with s3.at(broken), pytest.raises(StoreUnavailable, match="HTTP 500"):
            sequence.open_round()
        (shard,) = sequence.open_round()
        sequence.train(shard)
        with s3.at(broken), pytest.raises(StoreUnavailable, match="HTTP 500"):
            learn(sequence)
        learn(sequence)
    assert outcome_of(config) == undisturbed


@pytest.mark.server
@pytest.mark.slow
def test_a_search_goes_on_without_its_tracking_server_and_sync_writes_what_it_missed(configured, refused, tmp_path, monkeypatch, capsys):
    server = MLflowServer(tmp_path / "server")
    path = configured()
    config = load_run_config(path)
    sequence = StepSequence(config, tmp_path / "artifacts")
    with broken_server() as broken:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", broken)
        sequence.begin()
        (shard,) = sequence.open_round()
        sequence.train(shard)
        sequence.close_round()
        assert read_json(sequence.folder / "metrics")["tracked"] is False
        status, (line,) = refused("sync", path)
        assert status == 1
        assert f"tracking at {broken} does not work" in line
        assert "500" in line
        assert line.endswith("`kfnas sync` writes what is missing")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    sequence.finish()
    summary = read_json(sequence.folder / "summary")
    assert (summary["tracked"], summary["registered"]) == (False, False)
    assert main(["status", str(path)]) == 0
    assert "state      finished" in capsys.readouterr().out
    status, (line,) = refused("sync", path)
    assert status == 1
    assert f"tracking at {server.uri} does not work" in line

    server.start()
    try:
        assert main(["sync", str(path)]) == 0
        assert re.fullmatch(rf"{server.uri}: (\d+) rows and \d+ runs written, \1 rows in all; models registered\n", capsys.readouterr().out)
        client = mlflow.MlflowClient(server.uri, server.uri)
        (experiment,) = client.search_experiments(filter_string="name = 'kfnas'")
        runs = client.search_runs([experiment.experiment_id])
        kinds = sorted(run.data.tags["kfnas.kind"] for run in runs)
        num_children = len(list(open_run(config.text).searches.children()))
        assert kinds == sorted(["search", "final", *["child"] * num_children])
        assert {run.info.status for run in runs} == {"FINISHED"}
        candidate = client.get_model_version_by_alias("tiny", "candidate")
        assert candidate.tags["kfnas.final"] == "searched-1"

        assert main(["sync", str(path)]) == 0
        assert " 0 rows and 0 runs written" in capsys.readouterr().out
        assert len(client.search_model_versions("name = 'tiny'")) == 1
    finally:
        server.stop()
