"""Compare searches on objectives with known answers, over many seeds, in parallel processes.

A run is one entrant on one seed: it searches on what the objective lets it observe, and is judged by the score of what looked best so far. A finished run
is a file, named by a digest of all that decides it, written at once or not at all; a comparison that is started again runs what is missing.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kfnas.config import digest_of
from kfnas.errors import AccessDenied, ConfigError, ConflictError, RetryableError, UserError
from kfnas.studies.bench_runs import Run, read_run, search_once, write_atomically, write_run
from kfnas.studies.bench_summary import Summary, as_csv, as_json, as_markdown
from kfnas.studies.entrants import Entrant
from kfnas.studies.objectives import Source
from kfnas.studies.peers import TPEConfig, TPEPeer

logger = logging.getLogger(__name__)

FORMAT = 1
RUNS = "runs"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Bench:
    """A comparison.

    Attributes:
        source: builds the objective; must be picklable, since worker processes build their own.
        entrants: who takes part.
        seeds: of searches and of what they observe; all entrants have the same ones.
        samples: activated samples of each search.
    """

    source: Source
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    samples: int


class Job(NamedTuple):
    """A run to make, where its file goes, and the code that it must be made with."""

    source: Source
    entrant: Entrant
    seed: int
    samples: int
    settings: dict[str, Any]
    code: str
    path: Path


OnProgress = Callable[[int, int], None]
"""Called with the runs that are done and those that there are, at the start and after each."""


def run(bench: Bench, output: Path, *, jobs: int = 1, trust_code: bool = False, on_progress: OnProgress | None = None) -> dict[str, list[Run]]:
    """Make every run that is missing in `output`, and return all, by label, in the order of the seeds.

    Args:
        bench: the comparison.
        output: folder; finished runs are in `runs/` in it.
        jobs: worker processes, each with one thread; 0 runs everything in this process.
        trust_code: whether to take finished runs that another version of the code made.
        on_progress: told how far it is.

    Raises:
        ConfigError: the comparison makes no sense, such as more samples than the space has architectures.
        RetryableError: a worker process died; finished runs are kept.
        ConflictError: the code changed between start and run.
        AccessDenied: the folder may not be written.
        StorageFull: there is no room.
    """
    _check(bench, jobs)
    _make(Path(output) / RUNS)
    todo = plan(bench, output)
    missing = [job for job in todo if _finished(job, trust_code=trust_code) is None]
    tell = on_progress or (lambda _done, _total: None)
    tell(len(todo) - len(missing), len(todo))
    for count, _ in enumerate(_work(missing, jobs), start=len(todo) - len(missing) + 1):
        tell(count, len(todo))
    runs: dict[str, list[Run]] = {entrant.label: [] for entrant in bench.entrants}
    for job in todo:
        runs[job.entrant.label].append(read_run(job.path))
    return runs


def plan(bench: Bench, output: Path) -> list[Job]:
    """All runs, seed by seed, so that what is done so far compares the same seeds."""
    objective = bench.source().fingerprint()
    described = {entrant.label: (entrant.annealed(bench.samples).settings(), entrant.code()) for entrant in bench.entrants}
    found = []
    for seed in bench.seeds:
        for entrant in bench.entrants:
            settings, code = described[entrant.label]
            decisive = {"format": FORMAT, "objective": objective, "samples": bench.samples, "seed": seed, **settings}
            path = Path(output) / RUNS / f"{entrant.agent}-{seed:04d}-{digest_of(decisive)[:16]}.json"
            found.append(Job(bench.source, entrant, seed, bench.samples, decisive, code, path))
    return found


def write_results(summary: Summary, output: Path) -> str:
    """Write table.md, curves.csv, results.json, figure.png and figure.svg; the table is returned too."""
    from kfnas.studies.bench_plots import figure

    table = as_markdown(summary)
    files = {
        "table.md": table.encode(),
        "curves.csv": as_csv(summary).encode(),
        "results.json": (json.dumps(as_json(summary), indent=1, allow_nan=False) + "\n").encode(),
        "figure.png": figure(summary, "png"),
        "figure.svg": figure(summary, "svg"),
    }
    for name, data in files.items():
        write_atomically(Path(output) / name, data)
    return table


def _check(bench: Bench, jobs: int) -> None:
    if jobs < 0:
        raise ConfigError(f"jobs is {jobs}; give the number of worker processes, or 0 to run everything in this one")
    if len(bench.seeds) < 2 or len(set(bench.seeds)) != len(bench.seeds) or min(bench.seeds) < 0:
        raise ConfigError(f"seeds are {list(bench.seeds)}; give at least 2 different ones of 0 or more: intervals are over seeds")
    objective = bench.source()
    if not 1 <= bench.samples <= objective.size:
        raise ConfigError(f"samples is {bench.samples}; objective {objective.name!r} has {objective.size} architectures: give 1 to {objective.size}")
    if any(entrant.agent == "tpe" for entrant in bench.entrants):
        TPEPeer(objective.space, TPEConfig(), 0)


def _work(jobs: Sequence[Job], num_workers: int) -> Iterator[Path]:
    if not jobs:
        return
    if num_workers == 0:
        for job in jobs:
            yield work(job)
        return
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(min(num_workers, len(jobs)), mp_context=context, initializer=_quiet_interrupts) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RetryableError("a worker process died (out of memory, or killed): run again, with fewer --jobs; finished runs are kept") from error
        except BaseException:
            # What waits is dropped and what runs is ended: a person who presses Ctrl-C does not wait for minutes.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError as error:
        raise AccessDenied(f"{folder}: may not be made ({error.strerror}); give a folder that may be written") from None
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder}: a file is in the way; give the path of a folder") from None


def work(job: Job) -> Path:
    """Make one run and write its file. Runs in a worker process."""
    if job.entrant.code() != job.code:
        raise ConflictError(f"the code of agent {job.entrant.agent} changed after the comparison was started: start it again; finished runs are kept")
    write_run(job.path, job.settings, search_once(job.source(), job.entrant, job.seed, job.samples))
    return job.path


def _finished(job: Job, *, trust_code: bool) -> Run | None:
    try:
        found = read_run(job.path)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is no finished run (%r): it is run again", job.path, error)
        return None
    return found if trust_code or found.code == job.code else None


def _quiet_interrupts() -> None:
    """A Ctrl-C reaches workers too: they end without a word, and the parent says what happened."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Environment in which processes that are started use one thread: set before they import numpy or torch, or it would be too late."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
