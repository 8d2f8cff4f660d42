"""A search through kfp.local, killed at twenty random instants in a row, ends as one that nobody disturbed."""

import datetime
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from kfnas.config import parse
from kfnas.steps.config import RunConfig, complete
from kfnas.steps.context import open_run
from kfnas.testing.sequence import StepSequence, outcome_of

NUM_KILLS = 20
SEED = 62
MOST_TASKS = 9
"""Tasks that a driver may start before the kill: too few to end the search before the last kill, since the final training alone takes thirteen."""
AFTER_CLAIM = 4
"""Least such tasks where there is no search yet, or an orphan that must be fenced off before it ends the search: data, claim, and what needs it."""
TARGETS = ("driver", "step", "group")
PATIENCE_SECONDS = 120.0
SEARCH = {
    "name": "killed",
    "task": {"name": "classification", "source": "digits", "resolution": 12, "limit": 400, "num_train": 256, "num_val": 100},
    "search": {"batch_size": 4},
    "rounds": 4,
    "cost": "mult_adds",
    "proxy": {"steps": 8, "batch_size": 32},
    "retrain": {"steps": 24, "batch_size": 32, "checkpoint_steps": 4},
    "top_k": 3,
    "comparisons": False,
    "latency": {"warmup": 0, "min_runs": 5, "max_runs": 5, "min_seconds": 0, "max_spread": 10, "cpu_ratio_floor": 0, "retries": 0},
    "tracking": {"enabled": False},
    "execution": {"shards": 2, "rounds_per_run": 2},
}
NUM_KILLS_WITH_MODULES = 3
WITH_MODULES = {
    **SEARCH,
    "search": {
        "agent": "fnas",
        "batch_size": 4,
        "critic": {"hidden_units": 8, "fit_steps": 2, "threshold_draws": 8, "min_samples": 4},
        "experience": {"size": 2},
    },
    "rounds": 2,
    "pool": {"name": "shared", "floor": 0.0, "min_match": 0.2},
    "retrain": {"steps": 4, "batch_size": 32, "checkpoint_steps": 4},
    "top_k": 1,
}
TASK_STARTS = "- Executing task "
FUNCTION = re.compile(r"--function_to_execute (\w+)")
CHILD = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) INFO\]: child (\S+) (?:starts: (\w{64})|finished)")


@dataclass(frozen=True)
class Process:
    """A process by id and start time, so that a later one of the same id is not taken for it."""

    pid: int
    start: str
    parent: int = field(compare=False)
    command: str = field(compare=False)

    @property
    def is_running(self) -> bool:
        return process_of(self.pid) == self

    @property
    def task(self) -> str:
        """The component that a step's process runs."""
        return found[1] if (found := FUNCTION.search(self.command)) else "?"


def process_of(pid: int) -> Process | None:
    """None for one that ended, zombies included."""
    try:
        state, parent, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else Process(pid, rest[17], int(parent), command)


def children_of(pid: int) -> list[Process]:
    found = (process_of(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [process for process in found if process is not None and process.parent == pid]


class Log:
    """What the pipeline runs of one driver have logged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._older = set(folder.glob("*.log"))

    @property
    def paths(self) -> list[Path]:
        """One log a pipeline run, in order."""
        return sorted(set(self._folder.glob("*.log")) - self._older)

    def num_started(self) -> int:
        """Tasks that have started."""
        return sum(path.read_text(errors="replace").count(TASK_STARTS) for path in self.paths)


@dataclass
class Driver:
    """One `kfnas run` or `kfnas resume`, in a session of its own."""

    config: Path
    command: str
    log: Log
    output: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "kfnas_pipelines.cli", self.command, str(self.config)]
        with self.output.open("ab") as stream:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True)

    @property
    def runner(self) -> Process | None:
        return next((child for child in children_of(self.process.pid) if "kfnas_pipelines.local_runner" in child.command), None)

    def wait_for_task(self, number: int) -> None:
        """Until the `number`-th task of this driver's runs starts; 0: do not wait."""
        while self.log.num_started() < number:
            self.assert_lives()
            time.sleep(0.02)

    @property
    def steps(self) -> list[Process]:
        """The running steps: each a shell's child, and the shell the runner's."""
        runner = self.runner
        shells = children_of(runner.pid) if runner is not None else []
        return [step for shell in shells for step in children_of(shell.pid) if FUNCTION.search(step.command)]

    def wait_for_steps(self) -> list[Process]:
        while not (steps := self.steps):
            self.assert_lives()
            time.sleep(0.02)
        return steps

    def assert_lives(self) -> None:
        assert self.process.poll() is None, f"the driver ended by itself: {self.output.read_text()}"


@dataclass(frozen=True)
class Kill:
    """What was killed, and which tasks were running then."""

    target: str
    tasks: tuple[str, ...]
    orphan: Process | None
    logs: list[Path]


class Disturbance:
    """Starts drivers and kills them, or what they started."""

    def __init__(self, config: Path, folder: Path, logs: Path, random_numbers: random.Random) -> None:
        self._config, self._folder, self._logs, self._random = config, folder, logs, random_numbers
        self._start_seconds = 2.0
        self._drivers: list[Driver] = []
        self.kills: list[Kill] = []

    def run_and_kill(self) -> None:
        """One driver, until its random instant: so many tasks have started, and then a part of the time that a driver takes to start its first one."""
        target = self._random.choice(TARGETS)
        first = 0 if self.kills and self.kills[-1].orphan is None else AFTER_CLAIM
        number, share = self._random.randint(first, MOST_TASKS), self._random.random()
        begun, driver = time.monotonic(), self.start("resume" if self.kills else "run")
        if number:
            driver.wait_for_task(1)
            self._start_seconds = time.monotonic() - begun
        driver.wait_for_task(number)
        time.sleep(share * self._start_seconds)
        driver.assert_lives()
        self.kills.append(self._kill(driver, target))

    def start(self, command: str) -> Driver:
        self._drivers.append(Driver(self._config, command, Log(self._logs), self._folder / "output"))
        return self._drivers[-1]

    def end(self) -> None:
        """Kill whatever a failed test has left."""
        runners = [driver.runner for driver in self._drivers if driver.process.poll() is None] + [kill.orphan for kill in self.kills]
        for driver in self._drivers:
            driver.process.kill()
            driver.process.wait()
        for runner in runners:
            if runner is not None and runner.is_running:
                os.killpg(runner.pid, signal.SIGKILL)

    def _kill(self, driver: Driver, target: str) -> Kill:
        steps = driver.wait_for_steps() if target == "step" else driver.steps
        runner, tasks = driver.runner, tuple(step.task for step in steps)
        if target == "step":
            os.kill(steps[0].pid, signal.SIGKILL)
            assert driver.process.wait(PATIENCE_SECONDS) == 1
            return Kill(target, tasks, None, driver.log.paths)
        driver.process.kill()
        driver.process.wait()
        if runner is not None and target == "group":
            os.killpg(runner.pid, signal.SIGKILL)
        return Kill(target, tasks, runner if target == "driver" else None, driver.log.paths)


def settings(store: Path, search: Mapping[str, object] = SEARCH) -> RunConfig:
    return complete(parse(RunConfig, {**search, "store": str(store)}))


@pytest.fixture
def disturbance(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disturbance]:
    """Of the search `SEARCH`, or of the one that the test gives."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path / "store", getattr(request, "param", SEARCH)).model_dump(mode="json")))
    disturbance = Disturbance(config, tmp_path, tmp_path / "store" / "logs" / "killed", random.Random(SEED))
    yield disturbance
    disturbance.end()


@pytest.mark.slow
def test_twenty_kills_lose_nothing(disturbance: Disturbance, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    for _ in range(NUM_KILLS):
        disturbance.run_and_kill()
    last = disturbance.start("resume")
    assert last.process.wait(PATIENCE_SECONDS * 2) == 0, last.output.read_text()

    reference = settings(tmp_path / "undisturbed")
    StepSequence(reference, tmp_path / "artifacts").run()
    assert outcome_of(settings(tmp_path / "store")) == outcome_of(reference)

    assert_no_child_was_trained_again(tmp_path)
    assert_orphans_were_fenced_off(disturbance.kills, record_property)
    assert_instants_were_spread(disturbance.kills, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("disturbance", [WITH_MODULES], indirect=True)
def test_kills_with_all_modules_on_lose_nothing(disturbance: Disturbance, tmp_path: Path) -> None:
    for _ in range(NUM_KILLS_WITH_MODULES):
        disturbance.run_and_kill()
    last = disturbance.start("resume")
    assert last.process.wait(PATIENCE_SECONDS * 4) == 0, last.output.read_text()
    reference = settings(tmp_path / "undisturbed", WITH_MODULES)
    StepSequence(reference, tmp_path / "artifacts").run()
    outcome = outcome_of(settings(tmp_path / "store", WITH_MODULES))
    assert outcome == outcome_of(reference)
    assert {child.get("initialisation", "random").partition(":")[0] for child in outcome.children.values()} == {"random", "pool"}


def assert_no_child_was_trained_again(folder: Path) -> None:
    """No training of a child starts once its record is there, and none is finished twice."""
    searches = open_run(settings(folder / "store").text).searches
    recorded = {key: searches.child(key)["finished_at"] for key in searches.children()}
    started, finished = set(), Counter()
    for log in (folder / "store" / "logs" / "killed").glob("*.log"):
        for moment, child, key in CHILD.findall(log.read_text(errors="replace")):
            if key:
                started.add(key)
                seconds = datetime.datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").timestamp()
                assert seconds <= recorded[key], f"child {child} was trained again: {log}"
            else:
                finished[child] += 1
    assert len(recorded) == 16
    assert started == set(recorded)
    assert max(finished.values()) == 1


def assert_orphans_were_fenced_off(kills: list[Kill], record_property: Callable[[str, object], None]) -> None:
    """Runs that outlived their driver end by themselves, and those that had more to write could not."""
    orphans = [kill for kill in kills if kill.orphan is not None]
    end = time.monotonic() + PATIENCE_SECONDS
    while any(kill.orphan.is_running for kill in orphans):
        assert time.monotonic() < end, "an orphaned run goes on for ever"
        time.sleep(0.1)
    fenced_off = [kill for kill in orphans if kill.logs and '"error": "StaleFence"' in kill.logs[-1].read_text(errors="replace")]
    record_property("orphans", len(orphans))
    record_property("orphans_fenced_off", len(fenced_off))
    assert len(fenced_off) >= 2


def assert_instants_were_spread(kills: list[Kill], record_property: Callable[[str, object], None]) -> None:
    stages = Counter(task for kill in kills for task in kill.tasks)
    targets = Counter(kill.target for kill in kills)
    record_property("kills_by_running_task", dict(stages))
    record_property("kills_by_target", dict(targets))
    assert len(stages) >= 6
    assert stages["train_children"] >= 2
    assert stages["retrain"] + stages["evaluate"] + stages["export"] >= 1
    assert all(targets[target] >= 4 for target in TARGETS)
