"""A whole search by `kfnas run` with its store on a real S3 server and its tracking on a real MLflow server."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3
import mlflow
import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from kfnas.nn import build_network
from kfnas.steps.config import load_run_config
from kfnas.steps.context import DataPointer, Run, open_run
from kfnas.steps.view import finalists
from kfnas.testing.mlflow_server import MLflowServer, mlflow_server
from kfnas.testing.seaweedfs import SECRET_KEY

TRACKING_PASSWORD = "a-tracking-password"
SECRETS = (SECRET_KEY.encode(), TRACKING_PASSWORD.encode())

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def tracking(tmp_path_factory) -> Iterator[MLflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def holding_secrets(folder: Path) -> list[Path]:
    """Files below a folder in which a credential stands. What is removed meanwhile is passed over."""
    found = []
    # os.walk passes over folders that are removed under it, which a run does at its end.
    for path in (Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except OSError:
            continue
        found += [path] if any(secret in data for secret in SECRETS) else []
    return found


@contextmanager
def watched(folder: Path) -> Iterator[set[Path]]:
    """Files with credentials that appear in a folder while the block runs: what steps pass to each other is removed at the end of a run."""
    found: set[Path] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            found.update(holding_secrets(folder))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def objects(uri: str, environment: Mapping[str, str]) -> dict[str, bytes]:
    """Every object of an S3 store."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name=environment["AWS_DEFAULT_REGION"])
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    names = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}


def outputs_by_torch(run: Run, final: dict, images: np.ndarray) -> np.ndarray:
    data = DataPointer(**run.searches.record("data", "pointer"))
    network = build_network(run.network(final["tokens"], data, width=final["width"]))
    network.load_state_dict(safetensors.torch.load(run.searches.blob(final["weights"])))
    with torch.no_grad():
        return network.eval()(torch.from_numpy(images)).numpy()


def test_a_search_on_s3_and_mlflow_servers_runs_to_a_registered_model(kfnas, configured, seaweedfs_server, s3_uri, tracking, tmp_path, monkeypatch):
    path = configured(store=s3_uri, execution={"shards": 2})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    secret_uri = tracking.uri.replace("http://", f"http://somebody:{TRACKING_PASSWORD}@")
    with watched(scratch) as leaked:
        done = kfnas("run", path, environment={"MLFLOW_TRACKING_URI": secret_uri, "TMPDIR": str(scratch)})
    assert done.returncode == 0, done.stderr
    assert f"in {s3_uri}" in done.stdout
    assert "state      finished" in done.stdout
    run = open_run(load_run_config(path).text)
    (final,) = finalists(run)

    client = mlflow.MlflowClient(tracking.uri, tracking.uri)
    (experiment,) = client.search_experiments(filter_string="name = 'kfnas'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [each for each in runs if each.data.tags["kfnas.kind"] == "search"]
    nested = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs) == 1 + len(nested)
    assert sum(each.data.tags["kfnas.kind"] == "child" for each in nested) == len(list(run.searches.children()))
    assert [each.data.tags["kfnas.final"] for each in nested if each.data.tags["kfnas.kind"] == "final"] == ["searched-1"]
    assert {each.info.status for each in runs} == {"FINISHED"}
    assert parent.data.params["store"] == s3_uri
    assert "report.html" in {item.path for item in client.list_artifacts(parent.info.run_id)}

    version = client.get_model_version_by_alias("tiny", "candidate")
    assert version.tags["kfnas.final"] == "searched-1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    model = mlflow.onnx.load_model("models:/tiny@candidate")
    images = np.random.default_rng(0).normal(size=(4, 1, 16, 16)).astype(np.float32)
    (loaded,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})
    (stored,) = onnxruntime.InferenceSession(run.searches.blob(final["onnx"])).run(None, {"images": images})
    assert np.array_equal(loaded, stored)
    assert np.abs(loaded - outputs_by_torch(run, final, images)).max() < 1e-4

    compiled = kfnas("compile", "--output", "ir", environment={"MLFLOW_TRACKING_URI": secret_uri})
    assert compiled.returncode == 0, compiled.stderr
    assert leaked == set()
    assert holding_secrets(tmp_path) == []
    assert holding_secrets(tracking.folder) == []
    assert not [name for name, data in objects(s3_uri, seaweedfs_server.environment).items() if any(secret in data for secret in SECRETS)]
    assert not re.search("|".join(secret.decode() for secret in SECRETS), done.stdout + done.stderr)
