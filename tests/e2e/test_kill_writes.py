"""A search killed at each write of its store, once at every one of them, or at random instants, ends as one that nobody disturbed.

Processes are forks of this one, which has the heavy imports behind it.
"""

import functools
import importlib
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from kfnas.config import canonical_json
from kfnas.space import MixopSpace, load_space
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage
from kfnas.steps import context, costs, latency_table
from kfnas.steps.config import RunConfig
from kfnas.steps.status import progress
from kfnas.storage import opening
from kfnas.testing import faults
from kfnas.testing.faults import FaultPlan, Kind, count_operations
from kfnas.testing.sequence import Outcome, StepSequence, outcome_of, small_search
from kfnas.testing.supernet_sequence import SupernetSequence, small_supernet_search
from kfnas.testing.table_device import AdditiveDevice

NUM_CHUNKS = 8
IMPORTED_ONCE = (
    "torch._dynamo",
    "kfnas.controller.fnas",
    "kfnas.controller.ppo",
    "kfnas.train",
    "kfnas.measure",
    "onnxruntime",
    "sklearn.datasets",
    "matplotlib.figure",
    "boto3",
)


def one_round(sequence: StepSequence) -> None:
    sequence.begin()
    if sequence.pointer.round == 0:
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()


@dataclass(frozen=True)
class Searcher:
    """Takes a search, in a process of its own, as far as `steps` says."""

    config: RunConfig
    folder: Path
    steps: Callable[[StepSequence], None]
    sequence: type[StepSequence] = StepSequence

    def run(self, name: str, plan: FaultPlan | None = None, kill_after: float | None = None) -> int:
        """Exit status; negative: the signal that ended the process. It is killed after so many seconds, if it is given any."""
        return in_another_process(lambda: self._work(name, plan), self.folder / "log", kill_after)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def _work(self, name: str, plan: FaultPlan | None) -> None:
        import torch

        import kfnas.measure
        import kfnas.steps.register

        torch.set_num_threads(1)
        kfnas.measure.export_onnx = quick_export
        kfnas.steps.register.report_files = no_report
        opening.ADAPTERS["s3"] = functools.cache(opening.ADAPTERS["s3"])  # boto3 takes its time to make a client
        if plan is not None:
            os.environ[faults.VARIABLE] = canonical_json(plan)
            faults.arm_from_environment()
        self.steps(self.sequence(self.config, self.folder / name, name))


def in_another_process(function: Callable[[], None], log: Path, kill_after: float | None = None) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            function()
            status = 0
        except BaseException:  # noqa: BLE001  (nothing may reach the pytest that this process is a copy of)
            traceback.print_exc()
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def quick_export(network, spec, batch=None) -> bytes:
    """What torch's exporter does in seconds; neither writes to the store."""
    from kfnas.measure import build_onnx
    from kfnas.nn import weights_as_numpy

    return build_onnx(spec, weights_as_numpy(network)).SerializeToString()


def no_report(run, search) -> dict[str, bytes]:
    return {"report.html": b""}


@dataclass(frozen=True)
class Undisturbed:
    outcome: Outcome
    num_writes: int


def undisturbed(searcher: Searcher, kinds: tuple[Kind, ...]) -> Undisturbed:
    counter = searcher.folder / "writes"
    status = searcher.run("undisturbed", FaultPlan(kinds=kinds, counter=counter))
    assert status == 0, searcher.log
    return Undisturbed(outcome_of(searcher.config), count_operations(counter))


def assert_a_kill_loses_nothing(searcher: Searcher, plan: FaultPlan, expected: Outcome) -> None:
    searcher.folder.mkdir()
    plan = plan.model_copy(update={"counter": searcher.folder / "writes"})
    assert searcher.run("first", plan) == -signal.SIGKILL, f"{plan}: {searcher.log}"
    assert searcher.run("second") == 0, f"{plan}: {searcher.log}"
    assert outcome_of(searcher.config) == expected, plan


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    for name in IMPORTED_ONCE:
        importlib.import_module(name)


# Every rename and every removal in a local store


LOCAL_WRITES: tuple[Kind, ...] = ("rename", "delete")


@pytest.fixture(scope="module")
def local(imported: None, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    return undisturbed(Searcher(small_search(folder / "store"), folder, StepSequence.run), LOCAL_WRITES)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(NUM_CHUNKS))
def test_a_kill_at_any_rename_loses_nothing(local: Undisturbed, tmp_path: Path, chunk: int) -> None:
    assert len(local.outcome.children) == 4
    assert len(local.outcome.finalists) == 1
    for nth in range(1 + chunk, local.num_writes + 1, NUM_CHUNKS):
        folder = tmp_path / f"{nth}"
        searcher = Searcher(small_search(folder / "store"), folder, StepSequence.run)
        assert_a_kill_loses_nothing(searcher, FaultPlan(nth=nth, kinds=LOCAL_WRITES), local.outcome)


# The same with critic, buffer and pool


ALL_MODULES: dict[str, object] = {
    "rounds": 3,
    "search": {
        "agent": "fnas",
        "batch_size": 4,
        "critic": {"hidden_units": 8, "fit_steps": 2, "threshold_draws": 8, "min_samples": 4},
        "experience": {"size": 2},
    },
    "pool": {"name": "shared", "floor": 0.0, "min_match": 0.2},
}
MODULES_STRIDE = 6


def all_rounds(sequence: StepSequence) -> None:
    sequence.begin()
    while not progress(sequence.text).searching_done:
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()


def with_all_modules(folder: Path) -> Searcher:
    return Searcher(small_search(folder / "store", **ALL_MODULES), folder, all_rounds)


@pytest.fixture(scope="module")
def modules(imported: None, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(with_all_modules(tmp_path_factory.mktemp("undisturbed")), LOCAL_WRITES)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 4])
def test_a_kill_with_all_modules_on_loses_nothing(modules: Undisturbed, tmp_path: Path, first: int) -> None:
    starts = [child.get("initialisation", "random").partition(":")[0] for child in modules.outcome.children.values()]
    assert set(starts) == {"random", "pool"}
    for nth in range(first, modules.num_writes + 1, MODULES_STRIDE):
        assert_a_kill_loses_nothing(with_all_modules(tmp_path / f"{nth}"), FaultPlan(nth=nth, kinds=LOCAL_WRITES), modules.outcome)


# Searches on one supernet, from the table of operators to the registered network, at instants that nothing in them is aware of


NUM_INSTANTS = 8
MIN_KILLS = 2
"""Fewer than are tried: a machine that has just grown faster ends a search before its kill."""
SUPERNETS = ("pcnas", "betanas", "oneshot")


@pytest.fixture
def tiny_supernets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space of four mixed operators, and a device that answers at once; processes that are forked from this one have them too."""
    operators = (Bottleneck("MBConv", 3, 3), Bottleneck("MBConv", 1, 5), Identity())
    skeleton = MixopSkeleton("tiny", 8, 8, (Stage(8, 2, 1), Stage(16, 2, 2)), 32, narrow_head=True)
    space = MixopSpace("tiny", skeleton, operators, reference="MBConv_3_3")
    monkeypatch.setattr(context, "load_space", lambda name: space if name == "tiny" else load_space(name))
    for module in (costs, latency_table):
        monkeypatch.setattr(module, "open_device", lambda _run: AdditiveDevice())


def on_supernet(algorithm: str, store: str | Path, folder: Path) -> Searcher:
    fields = {
        "space": {"name": "tiny", "width": 1.0},
        "cost": "latency_ms",
        "table": {"fit_networks": 5, "held_out": 19},
        "search": {"reward": {"target": 0.3}},
        "retrain": {"steps": 6, "batch_size": 16, "checkpoint_steps": 2},
    }
    folder.mkdir(exist_ok=True)
    return Searcher(small_supernet_search(store, algorithm, **fields), folder, SupernetSequence.run, SupernetSequence)


def killed_at_instants(searcher: Searcher, seconds: float, seed: int) -> int:
    """Run a search until it ends, killing it now and then; how often that came in time. `seconds` is what it takes undisturbed."""
    rng, kills = np.random.default_rng(seed), 0
    for attempt in range(NUM_INSTANTS):
        status = searcher.run(f"killed-{attempt}", kill_after=seconds * rng.uniform(0.02, 0.2))
        assert status in (0, -signal.SIGKILL), searcher.log
        kills += status != 0
    assert searcher.run("last") == 0, searcher.log
    return kills


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", SUPERNETS)
def test_a_search_on_one_supernet_that_is_killed_at_random_instants_loses_nothing(algorithm: str, tiny_supernets: None, tmp_path: Path) -> None:
    whole = on_supernet(algorithm, tmp_path / "whole", tmp_path / "1")
    begun = time.monotonic()
    assert whole.run("undisturbed") == 0, whole.log
    expected = outcome_of(whole.config)
    assert expected.finalists["searched-1"]["status"] == "ok"
    killed = on_supernet(algorithm, tmp_path / "killed", tmp_path / "2")
    assert killed_at_instants(killed, time.monotonic() - begun, seed=7) >= MIN_KILLS
    assert outcome_of(killed.config) == expected


@pytest.mark.slow
@pytest.mark.server
def test_a_search_on_one_supernet_in_an_s3_store_comes_to_the_same_kills_and_all(s3_uri: str, tiny_supernets: None, tmp_path: Path) -> None:
    whole = on_supernet("pcnas", tmp_path / "whole", tmp_path / "1")
    begun = time.monotonic()
    assert whole.run("undisturbed") == 0, whole.log
    killed = on_supernet("pcnas", f"{s3_uri}/supernet", tmp_path / "2")
    assert killed_at_instants(killed, time.monotonic() - begun, seed=8) >= MIN_KILLS
    assert outcome_of(killed.config) == outcome_of(whole.config)


# Puts and swaps in an S3 store; the store is after one as it is before the next


S3_WRITES: tuple[Kind, ...] = ("put", "put_if_absent", "swap")


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_a_put_or_swap_on_s3_loses_nothing(s3_uri: str, tmp_path: Path, when: str) -> None:
    expected = undisturbed(Searcher(small_search(f"{s3_uri}/undisturbed"), tmp_path, one_round), S3_WRITES)
    for nth in range(1, expected.num_writes + 1, 2):
        searcher = Searcher(small_search(f"{s3_uri}/{nth}"), tmp_path / f"{nth}", one_round)
        assert_a_kill_loses_nothing(searcher, FaultPlan(nth=nth, kinds=S3_WRITES, when=when), expected.outcome)
