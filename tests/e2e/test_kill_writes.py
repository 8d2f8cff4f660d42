"""A search killed at each write of its store, once at every one of them, ends as one that nobody disturbed.

Processes are forks of this one, which has the heavy imports behind it.
"""

import functools
import importlib
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kfnas.config import canonical_json
from kfnas.steps.config import RunConfig
from kfnas.steps.status import progress
from kfnas.storage import opening
from kfnas.testing import faults
from kfnas.testing.faults import FaultPlan, Kind, count_operations
from kfnas.testing.sequence import Outcome, StepSequence, outcome_of, small_search

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

    def run(self, name: str, plan: FaultPlan | None = None) -> int:
        """Exit status; negative: the signal that ended the process."""
        return in_another_process(lambda: self._work(name, plan), self.folder / "log")

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
        self.steps(StepSequence(self.config, self.folder / name, name))


def in_another_process(function: Callable[[], None], log: Path) -> int:
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
    "pool": {"name": "shared", "floor": 0.0},
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
