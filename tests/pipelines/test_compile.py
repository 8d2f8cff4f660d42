"""Compiled pipelines: the golden files (rewritten with UPDATE_GOLDEN=1) and what holds for each of them."""

import functools
import os
import re
from pathlib import Path

import pytest
import yaml

from kfnas.errors import ConfigError
from kfnas_pipelines.compile import (
    FINISH_SEARCH,
    OPERATOR_TABLE,
    POOLED_ROUNDS,
    SEARCH_ROUNDS,
    SUPERNET_SEARCHES,
    SYNC_POOL,
    compile_all,
    compile_search_rounds,
    compile_supernet_rounds,
)
from kfnas_pipelines.environment import LOCAL, Environment, Resources, Secret

GOLDEN = Path(__file__).parent / "golden"
CLUSTER = Environment(
    image="registry.example/kfnas/steps-python:golden",
    train=Resources(cpu=4, memory="16Gi", accelerator="nvidia.com/gpu"),
    variables={"AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:8333"},
    secrets=(Secret(name="kfnas-s3"),),
)
ROUNDS = (SEARCH_ROUNDS, POOLED_ROUNDS)
PIPELINES = (*ROUNDS, FINISH_SEARCH, SYNC_POOL, OPERATOR_TABLE, *SUPERNET_SEARCHES.values())
MEBIBYTE = 2**20


@pytest.fixture(scope="module", params=[CLUSTER, LOCAL], ids=["cluster", "local"])
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ir")
    compile_all(folder, request.param, num_rounds=2)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    compile_all(folder, CLUSTER, num_rounds=2)
    return folder


@functools.cache
def _parsed(text: str) -> list[dict]:
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def documents(path: Path) -> list[dict]:
    return _parsed(path.read_text())


def executors(path: Path) -> dict[str, dict]:
    return {name: executor["container"] for name, executor in documents(path)[0]["deploymentSpec"]["executors"].items()}


def tasks(path: Path) -> list[tuple[str, dict]]:
    spec = documents(path)[0]
    dags = [spec["root"]["dag"], *(component["dag"] for component in spec["components"].values() if "dag" in component)]
    return [(name, task) for dag in dags for name, task in dag["tasks"].items()]


def is_executed(path: Path, task: dict) -> bool:
    return "executorLabel" in documents(path)[0]["components"][task["componentRef"]["name"]]


@pytest.mark.parametrize("name", PIPELINES)
def test_compiled_pipelines_are_the_golden_ones(name, cluster):
    text = (cluster / name).read_text()
    golden = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.exists(), "no golden file yet; write it with UPDATE_GOLDEN=1"
    assert text == golden.read_text(), "the compiled pipeline changed; if that is meant, write it anew with UPDATE_GOLDEN=1"


@pytest.mark.parametrize("name", PIPELINES)
def test_no_credential_host_path_or_installation_is_in_a_pipeline(name, folder):
    text = (folder / name).read_text()
    assert not re.search(r"pip3? install|packages_to_install|ensurepip", text)
    assert not re.search(r"(?:^|[\s'\"=:])(?:/home/|/root/|/tmp/|/Users/|file://)", text)
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert not re.search(r"AKIA[0-9A-Z]{16}|://[^/\s:@]+:[^/\s@]+@", text)
    for variable in (entry for container in executors(folder / name).values() for entry in container.get("env", [])):
        assert not re.search("SECRET|PASSWORD|TOKEN|ACCESS_KEY", variable["name"])


@pytest.mark.parametrize("name", PIPELINES)
def test_the_given_image_is_on_every_executor(name, cluster):
    assert {container["image"] for container in executors(cluster / name).values()} == {CLUSTER.image}


@pytest.mark.parametrize("name", PIPELINES)
def test_no_task_is_cached_and_none_relies_on_kfp_retries(name, folder):
    for task_name, task in tasks(folder / name):
        assert "retryPolicy" not in task, task_name
        if is_executed(folder / name, task):
            assert not task.get("cachingOptions", {}).get("enableCache", False), task_name


def test_a_pooled_round_has_two_tasks_more(tmp_path):
    plain, pooled = (set(executors(compile_search_rounds(tmp_path / "one.yaml", 1, pooled=pooled))) for pooled in (False, True))
    assert pooled - plain == {"exec-pull-pool", "exec-push-pool"}


def test_a_round_is_at_least_six_tasks_of_their_own(tmp_path):
    labels = set(executors(compile_search_rounds(tmp_path / "one.yaml", 1)))
    expected = {"prepare-data", "init-search", "sample", "measure-latency", "train-children", "update", "finish-round", "release-search"}
    assert labels == {f"exec-{name}" for name in expected}


@pytest.mark.parametrize("name", ROUNDS)
def test_rounds_are_chained_by_the_state(name, folder):
    first, second = (dict(documents(folder / name)[0]["root"]["dag"]["tasks"])[task] for task in ("search-round", "search-round-2"))
    assert first["inputs"]["artifacts"]["state"]["taskOutputArtifact"]["producerTask"] == "init-search"
    assert second["inputs"]["artifacts"]["state"]["taskOutputArtifact"]["producerTask"] == "search-round"


@pytest.mark.parametrize("algorithm", ["pcnas", "betanas"])
def test_rounds_on_a_supernet_are_chained_by_the_state(algorithm, folder):
    root = documents(folder / SUPERNET_SEARCHES[algorithm])[0]["root"]["dag"]["tasks"]
    first, second = (root[f"{algorithm}-round{suffix}"]["inputs"]["artifacts"]["state"]["taskOutputArtifact"]["producerTask"] for suffix in ("", "-2"))
    assert (first, second) == ("init-search", f"{algorithm}-round")


def test_twenty_rounds_on_a_supernet_are_well_below_a_workflow_s_limit(tmp_path):
    assert compile_supernet_rounds(tmp_path / "most.yaml", "pcnas", 20, environment=CLUSTER).stat().st_size < MEBIBYTE / 1.5


@pytest.mark.parametrize(("algorithm", "num_rounds", "parallelism"), [("mnas", 1, 2), ("pcnas", 0, 2), ("betanas", 21, 2), ("pcnas", 1, -1)])
def test_a_supernet_pipeline_that_cannot_be_is_refused(algorithm, num_rounds, parallelism, tmp_path):
    with pytest.raises(ConfigError):
        compile_supernet_rounds(tmp_path / "x.yaml", algorithm, num_rounds, parallelism)


@pytest.mark.parametrize(("name", "waiting"), [(SEARCH_ROUNDS, "update"), (POOLED_ROUNDS, "push-pool"), (SUPERNET_SEARCHES["pcnas"], "decide-mixop")])
def test_what_reads_the_children_waits_for_every_shard(name, waiting, folder):
    (waiter,) = [task for task_name, task in tasks(folder / name) if task_name == waiting][:1]
    assert "for-loop-1" in waiter["dependentTasks"]


def test_a_round_is_closed_after_the_pool_has_its_children(folder):
    (update,) = [task for name, task in tasks(folder / POOLED_ROUNDS) if name == "update"][:1]
    assert "push-pool" in update["dependentTasks"]


@pytest.mark.parametrize("name", (*ROUNDS, FINISH_SEARCH, SUPERNET_SEARCHES["pcnas"]))
def test_a_loop_body_takes_parameters_from_the_pipeline_and_the_item_alone(name, folder):
    """kfp.local hands a loop body the item in place of any other task's output parameter."""
    spec = documents(folder / name)[0]
    loops = [component for label, component in spec["components"].items() if label.startswith("comp-for-loop")]
    assert loops
    for loop in loops:
        for task in loop["dag"]["tasks"].values():
            sources = [source["componentInputParameter"] for source in task["inputs"]["parameters"].values()]
            assert all(source == "pipelinechannel--config" or source.endswith("-loop-item") for source in sources)


def test_a_pod_that_measures_is_of_the_guaranteed_class(tmp_path):
    compile_all(tmp_path, Environment(), num_rounds=1)
    resources = executors(tmp_path / SEARCH_ROUNDS)["exec-measure-latency"]["resources"]
    assert resources["resourceCpuRequest"] == resources["resourceCpuLimit"] == "2"
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"] == "2Gi"


@pytest.mark.parametrize("name", PIPELINES)
def test_secrets_reach_every_executor_by_name_only(name, cluster):
    spec, platform = documents(cluster / name)
    configured = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(configured) == set(spec["deploymentSpec"]["executors"])
    for executor in configured.values():
        (secret,) = executor["secretAsEnv"]
        assert secret["secretName"] == "kfnas-s3"
        assert {entry["envVar"] for entry in secret["keyToEnv"]} == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize("pooled", [False, True])
def test_the_largest_run_is_well_below_a_workflow_s_limit(pooled, tmp_path):
    assert compile_search_rounds(tmp_path / "most.yaml", 20, environment=CLUSTER, pooled=pooled).stat().st_size < MEBIBYTE / 1.5


@pytest.mark.parametrize(("num_rounds", "parallelism"), [(0, 2), (21, 2), (3, -1)])
def test_numbers_out_of_range_are_refused(num_rounds, parallelism, tmp_path):
    with pytest.raises(ConfigError):
        compile_search_rounds(tmp_path / "x.yaml", num_rounds, parallelism)
