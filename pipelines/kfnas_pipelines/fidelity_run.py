"""A fidelity study on one machine: its pipeline in a process of its own, to the end, from wherever it stands."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import click

from kfnas.errors import RetryableError, RunInterrupted
from kfnas.steps.fidelity_children import Study, open_study
from kfnas.steps.fidelity_compare import write_fidelity_report
from kfnas.steps.fidelity_config import FidelityConfig
from kfnas.steps.preflight import preflight
from kfnas.studies.fidelity import Fidelity
from kfnas_pipelines.driver import KFP_LOCAL_PARALLELISM, StopRequest
from kfnas_pipelines.fidelity import FIDELITY, compile_fidelity
from kfnas_pipelines.pipeline_process import PipelineProcess

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.2
SAY_SECONDS = 30.0

Launch = Callable[[Path, Mapping[str, str], Path], PipelineProcess]


def run_fidelity(study: FidelityConfig, page: Path, *, stream: IO[str] = sys.stderr, launch: Launch = PipelineProcess) -> Fidelity:
    """Run a study on this machine, or go on with it, and write its report to `page`; its figures.

    Args:
        study: completed (`load_fidelity_config`).
        page: the report, an HTML file; every training goes beside it as CSV.
        stream: where progress is told.
        launch: starts a pipeline run from its file, arguments and log; a stand-in in tests.

    Raises:
        UserError: what is known to fail (`kfnas.steps.preflight`); nothing was run.
        ConfigMismatch: the study was started with another configuration.
        RunInterrupted: SIGINT, SIGTERM or SIGHUP; the same command goes on.
        KfnasError: what a step raised.
    """
    opened = open_study(study.text)
    preflight(opened.any_run)
    opened.require_own()
    log = _log_folder(study) / f"{time.strftime('%Y%m%d-%H%M%S')}-fidelity.log"
    with StopRequest() as request, tempfile.TemporaryDirectory(prefix="kfnas-ir-") as folder:
        pipeline = compile_fidelity(Path(folder) / FIDELITY, KFP_LOCAL_PARALLELISM)
        with launch(pipeline, {"config": study.text}, log) as process:
            status = _watch(process, request, _Progress(opened, stream))
        if status != 0:
            click.echo(f"the log of the failed run is {log}", file=stream)
            raise process.failure()
    return write_fidelity_report(study.text, page)


def _log_folder(study: FidelityConfig) -> Path:
    """`logs/<name>` in a local store; in the working folder's `runs` when the store is elsewhere."""
    store = str(study.base["store"])
    return ((Path("runs") if "://" in store else Path(store)) / "logs" / study.name).resolve()


def _watch(process: PipelineProcess, request: StopRequest, progress: _Progress) -> int:
    while (status := process.wait(TICK_SECONDS)) is None:
        if request.count:
            process.stop()
            raise RunInterrupted(f"stopped by {request.name}; the same command goes on with the study where it stands")
        progress.tell()
    return status


class _Progress:
    """A line every half minute: how much is trained."""

    def __init__(self, study: Study, stream: IO[str]) -> None:
        config = study.config
        short = len(config.epochs) * config.architectures
        self._total = config.donors.architectures + config.truth.seeds * config.architectures + 2 * short
        self._study, self._stream = study, stream
        self._next = time.monotonic() + SAY_SECONDS

    def tell(self) -> None:
        """Say it, where it is time; a store that does not answer for a while is the steps' business."""
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + SAY_SECONDS
        try:
            done = sum(1 for _ in self._study.searches.children())
        except RetryableError as error:
            logger.debug("progress is not known: %s", error)
            return
        click.echo(f"{done} of {self._total} trainings", file=self._stream)
