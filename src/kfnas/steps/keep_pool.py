"""Looking after a pool by its address: what the `kfnas pool` commands do, each as text to print."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from kfnas.errors import NotFound, UserError
from kfnas.pool import EMPTY, MirrorReport, Pin, Pool, mirror
from kfnas.storage import open_store


class Verified(NamedTuple):
    """What a check found, in words, and whether all was whole."""

    text: str
    whole: bool


def inspect(store: str, name: str) -> str:
    """What the pool holds.

    Raises:
        NotFound: there is no such pool.
    """
    info = _existing(store, name).info()
    lines = [
        f"pool        {name} in {store}",
        f"version     {info.version.number} ({info.version.digest[:12]}); kept: {_numbers(info.versions)}",
        f"space       {info.space[:12]}",
        f"iterations  {info.iterations}",
        f"entries     {info.num_entries}, {_size(info.size_bytes)}, in {info.num_packs} packs and {info.num_segments} segments",
        f"blocks      {_counted({'outside of blocks' if block < 0 else str(block): count for block, count in info.blocks.items()})}",
        f"tasks       {_counted({task or '(none)': count for task, count in info.tasks.items()})}",
        f"generations {_counted(info.generations)}",
        *(f"pinned      version {pin.number} by {holder} until {_date(pin)}" for holder, pin in sorted(info.pins.items())),
        *(f"problem     {problem}" for problem in info.problems),
    ]
    return "\n".join(lines)


def verify(store: str, name: str, *, deep: bool = True) -> Verified:
    """Check every kept version.

    Raises:
        NotFound: there is no such pool.
    """
    report = _existing(store, name).verify(deep=deep)
    read = f"{_size(report.read_bytes)} read" if deep else "nothing read"
    lines = [
        f"{report.num_entries} entries in {report.num_packs} packs and {report.num_segments} segments of {report.num_versions} versions; {read}",
        f"{report.num_unneeded} blobs that no kept version needs",
        *(f"problem: {problem}" for problem in report.problems),
        f"{len(report.problems)} problems; `kfnas pool compact` drops what is damaged" if report.problems else "no problems",
    ]
    return Verified("\n".join(lines), whole=not report.problems)


def compact(store: str, name: str) -> str:
    """Gather what small pushes scattered.

    Raises:
        NotFound: there is no such pool.
    """
    report = _existing(store, name).compact(now=time.time())
    if not report.changed:
        return f"version {report.version.number} is compact already: {report.num_entries} entries"
    done = f"version {report.version.number}: {report.num_entries} entries, {report.num_rewritten} written anew; `kfnas pool prune` frees the old packs"
    return "\n".join([done, *(f"dropped: {reason}" for reason in report.dropped)])


def prune(store: str, name: str, *, grace_seconds: float) -> str:
    """Delete what no kept version needs.

    Raises:
        NotFound: there is no such pool.
    """
    if not grace_seconds >= 0:
        raise UserError(f"a grace of {grace_seconds} seconds; give 0 or more")
    report = _existing(store, name).prune(now=time.time(), grace_seconds=grace_seconds)
    lines = [
        f"kept versions: {_numbers(report.kept_versions)}; {report.num_versions} forgotten",
        f"{report.num_deleted} blobs deleted, {report.num_waiting} wait for their grace to end",
        *(f"expired pin: {holder}" for holder in report.expired_pins),
    ]
    return "\n".join(lines)


def sync(store: str, name: str, other: str, *, direction: str) -> str:
    """Bring the pools of one name in two stores together.

    Args:
        direction: `to` the other store, `from` it, or `both`.

    Raises:
        NotFound: there is no such pool to read from.
        PoolMismatch: they are of different spaces or numbers of iterations.
    """
    own, theirs = Pool(open_store(store), name), Pool(open_store(other), name)
    ways = {"to": [(own, theirs, other)], "from": [(theirs, own, store)], "both": [(own, theirs, other), (theirs, own, store)]}[direction]
    if all(source.head() == EMPTY for source, _, _ in ways):
        raise NotFound(f"pool {name!r} holds nothing to copy; mend its name or the store's address")
    return "\n".join(_told(mirror(source, target), place) for source, target, place in ways)


def _told(report: MirrorReport, place: str) -> str:
    new = f"{report.added} entries added, {report.replaced} replaced, {report.known} known"
    lines = [f"{place}: {new}; {_size(report.sent_bytes)} sent; version {report.target.number} ({report.target.digest[:12]})"]
    return "\n".join([*lines, *(f"not copied: {problem}" for problem in report.problems)])


def _existing(store: str, name: str) -> Pool:
    pool = Pool(open_store(store), name)
    pool.access.existing()
    return pool


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) if len(numbers) <= 8 else f"{len(numbers)} versions, {numbers[0]} to {numbers[-1]}"


def _counted(counts: Mapping[int, int] | Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


def _date(pin: Pin) -> str:
    try:
        return datetime.fromtimestamp(pin.expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # a pin may be longer than the calendar
        return f"{pin.expires:.3g} seconds after 1970"
