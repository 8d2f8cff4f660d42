"""Where a step meets the machinery that runs it.

A pipeline task that fails is reported by its runner without its cause. So each component calls its step inside `boundary`, which writes the cause as one
line of JSON to stderr; whoever has the task's log (the local driver, or `kubectl logs` and a person) finds it there.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kfnas import errors
from kfnas.errors import KfnasError, StepFailed

MARKER = "kfnas-failure: "
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class Failure:
    """Why a step failed.

    `error` is the exception's class name; `expected` says that it is one of kfnas.errors, so that its message is written for the user.
    """

    step: str
    error: str
    message: str
    expected: bool

    def line(self) -> str:
        """The failure as it stands in a log."""
        return MARKER + json.dumps(asdict(self), sort_keys=True)

    def as_error(self, log: Path | None = None) -> KfnasError:
        """The failure as the exception that the step raised; an unforeseen one as StepFailed, which names the log."""
        kind = getattr(errors, self.error, None)
        if self.expected and isinstance(kind, type) and issubclass(kind, KfnasError):
            return kind(self.message)
        where = f"; its traceback is in {log}" if log is not None else ""
        return StepFailed(f"step {self.step} failed unexpectedly: {self.error}: {self.message}{where}")


@contextmanager
def boundary(step: str) -> Iterator[None]:
    """Run a step as a pipeline task: its log goes to stderr, and so does the cause of its failure, as one line that `failures_in` finds."""
    logging.basicConfig(format=LOG_FORMAT, stream=sys.stderr)
    with _levels({"": logging.WARNING, "kfnas": logging.INFO}), _reported(step):
        yield


@contextmanager
def _levels(wanted: Mapping[str, int]) -> Iterator[None]:
    """What is heard of each logger for the length of the block: other libraries tell of their inner life at INFO."""
    before = {name: logging.getLogger(name).level for name in wanted}
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _reported(step: str) -> Iterator[None]:
    try:
        yield
    except KfnasError as error:
        expected = getattr(errors, type(error).__name__, None) is type(error)
        _report(Failure(step, type(error).__name__, str(error), expected))
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            where = error.filename or tempfile.gettempdir()
            _report(Failure(step, "StorageFull", f"step {step}: {where}: {error.strerror}; free some room there and resume", expected=True))
        else:
            _report(Failure(step, type(error).__name__, str(error), expected=False))
        raise
    except Exception as error:
        _report(Failure(step, type(error).__name__, str(error) or "(no message)", expected=False))
        raise


def failures_in(lines: Iterable[str]) -> list[Failure]:
    """Failures that a log tells of, in order, each once. Lines may be indented; what is cut short is skipped."""
    found: dict[Failure, None] = {}
    for line in lines:
        _, marker, text = line.partition(MARKER)
        if not marker:
            continue
        try:
            found[Failure(**json.loads(text))] = None
        except (ValueError, TypeError):
            continue
    return list(found)


def numbers_of(path: Path) -> dict[str, float]:
    """Finite numbers of a JSON artifact, at its top level and under its key `metrics`: what a pipeline's dashboard shows beside a task."""
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    flat = {**value, **value.get("metrics", {})}
    return {name: float(number) for name, number in flat.items() if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)}


def _report(failure: Failure) -> None:
    sys.stderr.write(f"\n{failure.line()}\n")
    sys.stderr.flush()
