"""A search on one machine: pipeline runs one after another, each in a process of its own, until the search is finished.

What the driver knows is in the search's store: it reads how many rounds are closed, runs the next ones, and ends with `finish_search`. It can be killed at
any instant and `kfnas resume` goes on; whatever it leaves running is fenced off by the store. While it lives, its heartbeat keeps the search's lease.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from kfnas.errors import KfnasError, RetryableError, RunInterrupted, StepFailed, UserError
from kfnas.steps.config import RunConfig
from kfnas.steps.status import Progress
from kfnas_pipelines.compile import compile_finish_search, compile_search_rounds, compile_supernet_rounds
from kfnas_pipelines.display import Display, open_display
from kfnas_pipelines.held_search import Handle, Heartbeat, StoredSearch
from kfnas_pipelines.pipeline_process import PipelineProcess

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.2
POLL_SECONDS = 1.0
KFP_LOCAL_PARALLELISM = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


Launch = Callable[[Path, Mapping[str, str], Path], PipelineProcess]


def drive(
    config: RunConfig,
    *,
    resume: bool | None,
    take_over: bool = False,
    display: Display | None = None,
    log_folder: Path | None = None,
    search: Handle | None = None,
    launch: Launch = PipelineProcess,
) -> Progress:
    """Run a search to its end.

    Args:
        config: the run's configuration, completed.
        resume: False starts a search that must not exist yet, True goes on with one that must; None does either.
        take_over: go on even when another run holds the search; that run cannot commit any more.
        display: where progress is shown; stderr when not given.
        log_folder: one log a pipeline run is written here; see `default_log_folder`.
        search: the search in its store; a stand-in in tests.
        launch: starts a pipeline run from its file, arguments and log; a stand-in in tests.

    Raises:
        UserError: the search exists, or does not.
        ConfigMismatch: it was started with another configuration.
        SearchBusy: another live run holds it.
        RunInterrupted: SIGINT, SIGTERM or SIGHUP; the run was stopped and the search given up.
        KfnasError: what a step raised; StepFailed when it ended unforeseen.
    """
    search = search or StoredSearch(config)
    progress = search.poll()
    _check(config, progress, resume)
    search.check(take_over=take_over)
    display = display or open_display(config.cost, sys.stderr)
    if progress.finished:
        with display:
            display.note(f"search {config.name} is finished; `kfnas report` shows it")
        return progress
    with (
        StopRequest() as request,
        Heartbeat(search, config.execution.lease_seconds) as heartbeat,
        display,
        tempfile.TemporaryDirectory(prefix="kfnas-ir-") as folder,
    ):
        driver = _Driver(config, search, display, request, heartbeat, Path(folder), log_folder or default_log_folder(config), launch)
        try:
            return driver.to_the_end(progress)
        finally:
            heartbeat.stop()
            _release(search)


def default_log_folder(config: RunConfig) -> Path:
    """`logs/<name>` in a local store; in the working folder's `runs` when the store is elsewhere."""
    store = Path("runs") if "://" in config.store else Path(config.store)
    return (store / "logs" / config.name).resolve()


class _Driver:
    def __init__(
        self,
        config: RunConfig,
        search: Handle,
        display: Display,
        request: StopRequest,
        heartbeat: Heartbeat,
        folder: Path,
        log_folder: Path,
        launch: Launch,
    ) -> None:
        self._config, self._search, self._display, self._request, self._heartbeat = config, search, display, request, heartbeat
        self._folder, self._log_folder, self._launch = folder, log_folder, launch
        self._started = time.strftime("%Y%m%d-%H%M%S")
        self._num_runs = 0

    def to_the_end(self, progress: Progress) -> Progress:
        """Rounds until none is left, then the finish."""
        self._display.update(progress)
        while not progress.searching_done:
            before = progress
            num_rounds = min(self._config.execution.rounds_per_run, before.rounds_total - before.rounds_done)
            log = self._run(self._rounds(num_rounds), "search_rounds" if self._config.algorithm is None else f"{self._config.algorithm}_search")
            progress = self._search.poll()
            self._display.update(progress)
            if progress.rounds_done <= before.rounds_done and not progress.exhausted:
                raise StepFailed(f"a pipeline run ended well and closed no round (still {progress.rounds_done} of {progress.rounds_total}); read {log}")
        log = self._run(compile_finish_search(self._folder / "finish-search.yaml", KFP_LOCAL_PARALLELISM), "finish_search")
        progress = self._search.poll()
        self._display.update(progress)
        if not progress.finished:
            raise StepFailed(f"finish_search ended well and left the search {self._config.name} unfinished; read {log}")
        return progress

    def _rounds(self, num_rounds: int) -> Path:
        """The pipeline of so many rounds, compiled when first asked for."""
        pipeline = self._folder / f"search-rounds-{num_rounds}.yaml"
        if pipeline.exists():
            return pipeline
        if self._config.algorithm is not None:
            return compile_supernet_rounds(pipeline, self._config.algorithm, num_rounds, KFP_LOCAL_PARALLELISM)
        return compile_search_rounds(pipeline, num_rounds, KFP_LOCAL_PARALLELISM, pooled=self._config.pool is not None)

    def _run(self, pipeline: Path, name: str) -> Path:
        """One pipeline run, watched; returns its log."""
        self._num_runs += 1
        log = self._log_folder / f"{self._started}-{self._num_runs:03d}-{name}.log"
        with self._launch(pipeline, {"config": self._config.text, "run_id": self._search.run_id}, log) as process:
            status = self._watch(process)
        if status != 0:
            self._display.note(f"the log of the failed run is {log}")
            raise process.failure()
        return log

    def _watch(self, process: PipelineProcess) -> int:
        """Exit status of a run, showing progress meanwhile; stops it when asked to or when the search is lost."""
        next_poll, interval = time.monotonic() + POLL_SECONDS, POLL_SECONDS
        while (status := process.wait(TICK_SECONDS)) is None:
            if self._request.count:
                self._display.note("stopping; once more to stop at once")
                self._stop(process)
                raise RunInterrupted(f"stopped by {self._request.name}; `kfnas resume` goes on with search {self._config.name} where it stands")
            if self._heartbeat.lost is not None:
                self._stop(process)
                raise self._heartbeat.lost
            if (now := time.monotonic()) >= next_poll:
                self._show()
                interval = max(POLL_SECONDS, 10 * (time.monotonic() - now))
                next_poll = time.monotonic() + interval
        return status

    def _stop(self, process: PipelineProcess) -> None:
        seen = self._request.count
        stopper = threading.Thread(target=process.stop, daemon=True)
        stopper.start()
        while stopper.is_alive():
            stopper.join(TICK_SECONDS)
            if self._request.count > max(seen, 1):
                process.kill()

    def _show(self) -> None:
        """Progress is a courtesy: a store that does not answer for a while is the steps' business."""
        try:
            self._display.update(self._search.poll())
        except RetryableError as error:
            logger.debug("progress is not known: %s", error)


class StopRequest:
    """Counts requests to stop, from the keyboard or the system, so that the driver can stop in order. Outside the main thread it hears none."""

    def __init__(self) -> None:
        self.count = 0
        self.name = ""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.name = self.name or signal.Signals(number).name


def _check(config: RunConfig, progress: Progress, resume: bool | None) -> None:
    if resume is False and progress.exists:
        state = "is finished" if progress.finished else f"has {progress.rounds_done} of {progress.rounds_total} rounds"
        raise UserError(f"search {config.name!r} exists in {config.store} and {state}; go on with `kfnas resume`, or start another under a new `name`")
    if resume is True and not progress.exists:
        raise UserError(f"no search {config.name!r} in {config.store}; start it with `kfnas run`, or check `name` and `store`")


def _release(search: Handle) -> None:
    try:
        search.release()
    except KfnasError as error:
        logger.warning("the search's lease was not released, and runs out by itself: %s", error)
