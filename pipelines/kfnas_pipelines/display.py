"""Progress on the terminal: a bar where stderr is one, plain lines where it is a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Protocol, Self

import click
from tqdm import tqdm

from kfnas.steps.status import Progress

QUIET_SECONDS = 60.0
BAR = "{desc} {bar} {percentage:3.0f}% [{elapsed}<{remaining}]{postfix}"


class Display(Protocol):
    """Shows how a search goes on. A context manager around the whole of it."""

    def update(self, progress: Progress) -> None:
        """Show where the search stands."""

    def note(self, text: str) -> None:
        """Show one line that stays."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def open_display(cost: str, stream: IO[str]) -> Display:
    """A bar on a terminal, lines elsewhere. `cost` is the name of the cost, such as latency_ms."""
    return BarDisplay(cost, stream) if stream.isatty() else LineDisplay(cost, stream)


class LineDisplay:
    """A line a round, and one a minute between; with the time left once a round has been timed."""

    def __init__(self, cost: str, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._cost, self._stream, self._clock = cost, stream, clock
        self._started = self._said = clock()
        self._first: Progress | None = None
        self._shown: tuple[int, int, bool] | None = None

    def update(self, progress: Progress) -> None:
        """Write a line where there is news, or none was written for a minute."""
        now = self._clock()
        self._first = self._first or progress
        state = (progress.rounds_done, progress.finalists_done, progress.searching_done)
        if state == self._shown and now - self._said < QUIET_SECONDS:
            return
        self._shown, self._said = state, now
        elapsed = now - self._started
        left = remaining_seconds(self._first, progress, elapsed)
        times = f"{duration(elapsed)} gone" + (f", about {duration(left)} left" if left is not None else "")
        self.note(", ".join([stage(progress), *details(progress, self._cost), times]))

    def note(self, text: str) -> None:
        """Write one line."""
        click.echo(f"kfnas: {text}", file=self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None


class BarDisplay:
    """One bar over the rounds, then one over the finalists."""

    def __init__(self, cost: str, stream: IO[str]) -> None:
        self._cost, self._stream = cost, stream
        self._bar: tqdm | None = None
        self._finishing = False

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        finishing = progress.searching_done
        done, total = (progress.finalists_done, progress.finalists_total or None) if finishing else (progress.rounds_done, progress.rounds_total)
        if self._bar is None or finishing != self._finishing:
            self._close()
            self._finishing = finishing
            self._bar = tqdm(total=total, initial=done, file=self._stream, bar_format=BAR, smoothing=0, dynamic_ncols=True)
        self._bar.total = total
        self._bar.n = done
        self._bar.set_description_str(stage(progress), refresh=False)
        self._bar.set_postfix_str(", ".join(details(progress, self._cost)), refresh=False)
        self._bar.refresh()

    def note(self, text: str) -> None:
        """Write one line above the bar."""
        tqdm.write(f"kfnas: {text}", file=self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def stage(progress: Progress) -> str:
    """What the search is at."""
    if progress.finished:
        return "finished"
    if progress.searching_done:
        return f"final training {progress.finalists_done}/{progress.finalists_total or '?'}"
    return f"round {progress.rounds_done}/{progress.rounds_total}"


def details(progress: Progress, cost: str) -> list[str]:
    """Children and the best of them; of a search on one supernet the best that it has read."""
    if progress.algorithm is not None:
        return [progress.algorithm] + ([] if progress.best_accuracy is None else [f"best {progress.best_accuracy:.4f} with shared weights"])
    failed = f" ({progress.children_failed} failed)" if progress.children_failed else ""
    shown = [f"{progress.children_done} children{failed}"]
    best = progress.best_accuracy if progress.best_metric is None else progress.best_metric
    if best is not None:
        at = f" at {cost} {progress.best_cost:.4g}" if progress.best_cost is not None else ""
        shown.append(f"best {best:.4f}{at}")
    return shown


def remaining_seconds(first: Progress, now: Progress, elapsed: float) -> float | None:
    """Seconds that the rounds still need at the pace since `first`; None before there is a pace, and after the last round."""
    if now.searching_done:
        return None
    rounds = now.rounds_done - first.rounds_done
    return elapsed / rounds * (now.rounds_total - now.rounds_done) if rounds > 0 else None


def duration(seconds: float) -> str:
    """A length of time to a person: 42s, 3m10s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
