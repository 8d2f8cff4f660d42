"""A search's state on disk: one folder, the same bytes for the same state.

    state.json              everything but the following, canonical JSON, with the digests of the other files
    weights.safetensors     the agent's arrays: weights, moments, generator
    history-00000.jsonl     closed rows, 1,000 a file, so that a full file never changes again and a content-addressed store keeps it once
    prior.json              the knowledge that the search started from, where it started from any; it never changes either

Nothing in it names code: a space comes back as its decisions, or is given by the caller.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from kfnas.config import canonical_json
from kfnas.errors import AccessDenied, CorruptError, KfnasError, NotFound, StateVersionError, StorageFull

FORMAT = 1
CHUNK_ROWS = 1000
STATE, WEIGHTS, PRIOR = "state.json", "weights.safetensors", "prior.json"


@dataclass(frozen=True)
class SavedState:
    """What is saved: a JSON value, named arrays, the history's lines of JSON, and the prior as JSON text (None: there is none)."""

    values: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    lines: Sequence[str]
    prior: str | None = None


def write_state(directory: Path, state: SavedState) -> None:
    """Write `state` into `directory`, which is made where it is missing; an earlier state there is replaced once the whole new one is on
    disk.

    Raises:
        StorageFull: there is no room; the earlier state is untouched.
        AccessDenied: the folder may not be written.
    """
    files = {name: text.encode() for name, text in _chunks(state.lines)}
    if state.prior is not None:
        files[PRIOR] = state.prior.encode()
    files[WEIGHTS] = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in state.arrays.items()})
    values = {**state.values, "format": FORMAT, "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}}
    files[STATE] = canonical_json(values).encode() + b"\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace_files(directory, files)
    except OSError as error:
        raise _mapped(error, directory) from error


def read_state(directory: Path) -> SavedState:
    """Read what `write_state` wrote.

    Raises:
        NotFound: there is no state in `directory`.
        StateVersionError: a newer kfnas wrote it.
        CorruptError: a file is missing, or is not what was written.
    """
    try:
        values = json.loads((directory / STATE).read_bytes())
        version = values["format"]
    except FileNotFoundError:
        raise NotFound(f"{directory}: holds no {STATE}; give a folder that Search.save wrote") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptError(f"{directory / STATE}: not a search's state ({error}); take an intact copy of the folder") from None
    if not isinstance(version, int) or version > FORMAT:
        raise StateVersionError(f"{directory}: state format {version}, this kfnas reads up to {FORMAT}; install a newer kfnas")
    files = {name: _verified(directory, name, digest) for name, digest in values["files"].items()}
    try:
        arrays = safetensors.numpy.load(files[WEIGHTS])
    except (KeyError, SafetensorError) as error:
        raise CorruptError(f"{directory / WEIGHTS}: not safetensors ({error}); take an intact copy of the folder") from None
    lines = [line for name in sorted(files) if name.startswith("history-") for line in files[name].decode().splitlines()]
    return SavedState(values=values, arrays=arrays, lines=lines, prior=files[PRIOR].decode() if PRIOR in files else None)


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Sha256 over names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _chunks(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(lines), CHUNK_ROWS):
        yield f"history-{start // CHUNK_ROWS:05d}.jsonl", "".join(f"{line}\n" for line in lines[start : start + CHUNK_ROWS])


def _replace_files(directory: Path, files: Mapping[str, bytes]) -> None:
    written: list[Path] = []
    try:
        for name, data in files.items():
            path = directory / f".{name}.new"
            written.append(path)
            path.write_bytes(data)
    except OSError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    for name in files:
        (directory / f".{name}.new").replace(directory / name)
    for path in (*directory.glob("history-*.jsonl"), *directory.glob(PRIOR)):
        if path.name not in files:
            path.unlink()


def _verified(directory: Path, name: str, digest: str) -> bytes:
    if Path(name).name != name:
        raise CorruptError(f"{directory / STATE}: names a file {name!r} outside the folder; take an intact copy of it")
    try:
        data = (directory / name).read_bytes()
    except FileNotFoundError:
        raise CorruptError(f"{directory / name}: missing, though {STATE} names it; take an intact copy of the folder") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise CorruptError(f"{directory / name}: sha256 is {found[:12]}, {STATE} says {digest[:12]}; take an intact copy of the folder")
    return data


def _mapped(error: OSError, directory: Path) -> KfnasError | OSError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"{directory}: no room left for the search's state ({error}); free some and save again: what was there before is untouched")
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
        return AccessDenied(f"{directory}: the search's state cannot be written there ({error}); give a folder that can be made or written")
    return error
