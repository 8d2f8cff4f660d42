"""The driver against a stand-in for the search's store and for the pipeline runs: what it starts, when it stops, what it says."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kfnas.config import parse
from kfnas.errors import ConfigMismatch, KfnasError, RunInterrupted, SearchBusy, StaleFence, StepFailed, StoreUnavailable, UserError
from kfnas.steps.config import RunConfig
from kfnas.steps.status import Progress
from kfnas.storage import Owner, SearchStore, open_store
from kfnas_pipelines import driver
from kfnas_pipelines.driver import default_log_folder, drive
from kfnas_pipelines.held_search import Heartbeat, StoredSearch

NEW = Progress(
    exists=False,
    rounds_done=0,
    rounds_total=7,
    children_done=0,
    children_failed=0,
    finalists_done=0,
    finalists_total=0,
    best_accuracy=None,
    best_cost=None,
    exhausted=False,
    finished=False,
    held_by=None,
)
BEGUN = replace(NEW, exists=True, rounds_done=5)


class StandIn:
    """A search whose pipeline runs do in an instant what real ones do."""

    run_id = '{"run_id":"local-1"}'

    def __init__(self, progress: Progress = NEW) -> None:
        self.progress = progress
        self.started: list[str] = []
        self.arguments: list[Mapping[str, str]] = []
        self.renewals = self.releases = self.stops = 0
        self.renewal_error: KfnasError | None = None
        self.effect: Callable[[str, int], None] = self.do
        self.blocks: Callable[[], bool] = lambda: False
        self.error: KfnasError | None = None
        self.refusal: KfnasError | None = None

    def check(self, *, take_over: bool = False) -> None:
        if self.refusal is not None:
            raise self.refusal

    def poll(self) -> Progress:
        return self.progress

    def renew(self) -> None:
        self.renewals += 1
        if self.renewal_error is not None:
            raise self.renewal_error

    def release(self) -> None:
        self.releases += 1

    def do(self, name: str, num_rounds: int) -> None:
        if name == "kfnas-finish-search":
            self.progress = replace(self.progress, finished=True)
        else:
            self.progress = replace(self.progress, exists=True, rounds_done=self.progress.rounds_done + num_rounds)

    def launch(self, pipeline: Path, arguments: Mapping[str, str], log: Path) -> "StandInRun":
        spec = yaml.safe_load(pipeline.read_text())
        num_rounds = sum("-round" in name for name in spec["root"]["dag"]["tasks"])
        name = spec["pipelineInfo"]["name"]
        self.started.append(f"{name}:{num_rounds}" if num_rounds else name)
        self.arguments.append(arguments)
        return StandInRun(self, name, num_rounds, log)


class StandInRun:
    def __init__(self, search: StandIn, name: str, num_rounds: int, log: Path) -> None:
        self._search, self._name, self._num_rounds, self.log = search, name, num_rounds, log

    def wait(self, seconds: float) -> int | None:
        if self._search.blocks():
            time.sleep(min(seconds, 0.01))
            return None
        if self._search.error is not None:
            return 1
        self._search.effect(self._name, self._num_rounds)
        return 0

    def stop(self, grace_seconds: float = 5.0) -> None:
        self._search.stops += 1

    def kill(self) -> None:
        self._search.stops += 100

    def failure(self) -> KfnasError:
        assert self._search.error is not None
        return self._search.error

    def __enter__(self) -> "StandInRun":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Lines:
    """A display that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.seen: list[Progress] = []

    def update(self, progress: Progress) -> None:
        self.seen.append(progress)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return parse(
        RunConfig,
        {
            "name": "flowers",
            "rounds": 7,
            "store": str(tmp_path / "store"),
            "execution": {"rounds_per_run": 3, "lease_seconds": 5},
            "proxy": {"epochs": 1},
            "retrain": {"epochs": 1},
        },
    )


def run(config: RunConfig, search: StandIn, resume: bool | None = False, display: Lines | None = None) -> Progress:
    return drive(config, resume=resume, search=search, launch=search.launch, display=display or Lines())


def test_a_search_is_runs_of_some_rounds_and_then_the_finish(config):
    search = StandIn()
    assert run(config, search).finished
    assert search.started == ["kfnas-search-rounds:3", "kfnas-search-rounds:3", "kfnas-search-rounds:1", "kfnas-finish-search"]
    assert all(arguments == {"config": config.text, "run_id": search.run_id} for arguments in search.arguments)
    assert search.releases == 1


def test_a_search_with_a_pool_is_runs_of_the_pooled_rounds(config):
    search = StandIn(replace(BEGUN, rounds_done=4))
    run(parse(RunConfig, {**config.model_dump(), "pool": {"name": "shared"}}), search, resume=True)
    assert search.started == ["kfnas-search-rounds-pooled:3", "kfnas-finish-search"]


@pytest.mark.parametrize("algorithm", ["pcnas", "betanas", "oneshot"])
def test_a_search_on_one_supernet_is_runs_of_its_own_pipeline(config, algorithm):
    search = StandIn(replace(BEGUN, rounds_done=5))
    run(parse(RunConfig, {**config.model_dump(), "algorithm": algorithm, "space": {"name": "pcnas_s_28"}}), search, resume=True)
    assert search.started == [f"kfnas-{algorithm}-search:2", "kfnas-finish-search"]


def test_a_search_goes_on_with_the_rounds_that_are_left(config):
    search = StandIn(BEGUN)
    run(config, search, resume=True)
    assert search.started == ["kfnas-search-rounds:2", "kfnas-finish-search"]


def test_a_search_whose_rounds_are_done_is_finished_only(config):
    search = StandIn(replace(BEGUN, rounds_done=7))
    run(config, search, resume=True)
    assert search.started == ["kfnas-finish-search"]


def test_an_exhausted_space_ends_the_rounds(config):
    search = StandIn(BEGUN)

    def exhaust(name: str, num_rounds: int) -> None:
        search.progress = replace(search.progress, exhausted=True, finished=name == "kfnas-finish-search")

    search.effect = exhaust
    run(config, search, resume=True)
    assert search.started == ["kfnas-search-rounds:2", "kfnas-finish-search"]


@pytest.mark.parametrize("resume", [True, None])
def test_a_finished_search_is_left_alone(config, resume):
    search, display = StandIn(replace(BEGUN, rounds_done=7, finished=True)), Lines()
    assert run(config, search, resume=resume, display=display).finished
    assert search.started == []
    assert display.notes == ["search flowers is finished; `kfnas report` shows it"]


@pytest.mark.parametrize("progress", [BEGUN, replace(BEGUN, rounds_done=7, finished=True)])
def test_run_refuses_a_search_that_exists(config, progress):
    with pytest.raises(UserError, match=r"search 'flowers' exists in .* `kfnas resume`"):
        run(config, StandIn(progress))


def test_resume_refuses_a_search_that_does_not_exist(config):
    with pytest.raises(UserError, match=r"no search 'flowers' in .*; start it with `kfnas run`"):
        run(config, StandIn(), resume=True)


@pytest.mark.parametrize("progress", [BEGUN, replace(BEGUN, rounds_done=7, finished=True)])
def test_another_configuration_is_refused_before_anything_runs(config, progress):
    search = StandIn(progress)
    search.refusal = ConfigMismatch("started with configuration a, and this one is b")
    with pytest.raises(ConfigMismatch):
        run(config, search, resume=True)
    assert (search.started, search.releases) == ([], 0)


def test_try_takes_whatever_there_is(config):
    search = StandIn()
    assert run(config, search, resume=None).finished


def test_what_a_step_raised_is_raised_and_the_log_named(config):
    search, display = StandIn(), Lines()
    search.error = SearchBusy("search 'flowers' is held by another run")
    with pytest.raises(SearchBusy, match="held by another run"):
        run(config, search, display=display)
    (note,) = display.notes
    assert note.startswith(f"the log of the failed run is {default_log_folder(config)}")
    assert note.endswith("-001-search_rounds.log")
    assert search.releases == 1


def test_a_run_that_closes_no_round_is_not_repeated_for_ever(config):
    search = StandIn(BEGUN)
    search.effect = lambda name, num_rounds: None
    with pytest.raises(StepFailed, match="closed no round"):
        run(config, search, resume=True)
    assert len(search.started) == 1


def test_a_finish_that_finishes_nothing_is_an_error(config):
    search = StandIn(replace(BEGUN, rounds_done=7))
    search.effect = lambda name, num_rounds: None
    with pytest.raises(StepFailed, match="unfinished"):
        run(config, search, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run_and_gives_the_search_up(config, number):
    search, display = StandIn(), Lines()
    before = signal.getsignal(number)
    signalled: list[bool] = []

    def block() -> bool:
        if not signalled:
            signalled.append(True)
            os.kill(os.getpid(), number)
        return True

    search.blocks = block
    with pytest.raises(RunInterrupted, match=rf"stopped by {number.name}; `kfnas resume` goes on with search flowers"):
        run(config, search, display=display)
    assert (search.stops, search.releases) == (1, 1)
    assert signal.getsignal(number) == before


def test_a_search_that_another_run_took_over_is_stopped(config, monkeypatch):
    search = StandIn()
    search.blocks = lambda: True
    monkeypatch.setattr(driver.Heartbeat, "__init__", _quick(driver.Heartbeat.__init__))
    timer = threading.Timer(0.1, lambda: setattr(search, "renewal_error", StaleFence("taken over by a later run")))
    timer.start()
    with pytest.raises(StaleFence, match="taken over"):
        run(config, search)
    assert (search.stops, search.releases) == (1, 1)


def _quick(original: Callable[..., None]) -> Callable[..., None]:
    return lambda self, search, lease_seconds: original(self, search, 0.04)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_heartbeat_renews_and_outlives_a_store_that_is_away_for_a_while():
    search = StandIn()
    with Heartbeat(search, lease_seconds=0.02) as heartbeat:
        wait_for(lambda: search.renewals >= 2)
        search.renewal_error = StoreUnavailable("no answer")
        wait_for(lambda: search.renewals >= 5)
        assert heartbeat.lost is None
    renewals = search.renewals
    time.sleep(0.05)
    assert search.renewals == renewals


def test_the_last_owner_s_lease_is_no_loss_before_the_search_is_claimed():
    search = StandIn()
    search.renewal_error = StaleFence("held by the last run")
    with Heartbeat(search, lease_seconds=0.02) as heartbeat:
        wait_for(lambda: search.renewals >= 3)
        assert heartbeat.lost is None
        search.renewal_error = None
        renewals = search.renewals
        wait_for(lambda: search.renewals >= renewals + 2)
        search.renewal_error = StaleFence("taken over")
        wait_for(lambda: heartbeat.lost is not None)


def test_a_store_that_does_not_answer_costs_only_the_progress(config, monkeypatch):
    monkeypatch.setattr(driver, "POLL_SECONDS", 0.0)
    search = StandIn()
    left = [3]

    def block() -> bool:
        left[0] -= 1
        return left[0] > 0

    def poll() -> Progress:
        if left[0] in (1, 2):
            raise StoreUnavailable("no answer")
        return search.progress

    search.blocks, search.poll = block, poll  # type: ignore[method-assign]
    assert run(config, search).finished


def test_logs_are_beside_a_local_store_and_never_in_a_remote_one(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_log_folder(config) == tmp_path / "store" / "logs" / "flowers"
    remote = config.model_copy(update={"store": "s3://bucket/prefix"})
    assert default_log_folder(remote) == tmp_path / "runs" / "logs" / "flowers"


def test_the_run_id_is_an_owner_that_steps_can_read(config):
    owner = json.loads(StoredSearch(config).run_id)
    assert owner["pid"] == os.getpid()


def test_a_search_in_its_store_is_checked_and_given_up(config):
    store = SearchStore(open_store(config.store), config.name)
    search, other = StoredSearch(config), StoredSearch(config)
    search.check()
    store.claim(parse(Owner, json.loads(search.run_id)), config.digest, lambda folder: (folder / "state").write_text("{}"), now=time.time(), config=config.text)
    with pytest.raises(SearchBusy):
        other.check()
    search.renew()
    other.check(take_over=True)
    other.check()
    search.release()
    with pytest.raises(ConfigMismatch, match="seed"):
        StoredSearch(config.model_copy(update={"seed": 3})).check()
