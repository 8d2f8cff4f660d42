"""Animal shapes out of the wheel of `animal-shape-mnist` into IDX files, the plain format that Fashion-MNIST comes in:

    python scripts/convert_animal_shapes.py WHEEL FOLDER

The wheel holds two gzipped pickles of one numpy array each, and a pickle may run whatever it names. So this reader runs nothing of theirs: the three names
by which numpy pickles an array stand for three small classes below, any other name is refused, and the array's bytes are taken as they are. It needs
Python's own library alone.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import sys
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

IMAGES, LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"
NUM_CLASSES = 10
_PICKLES = {IMAGES: "animal_data_version_3.gz", LABELS: "animal_label_version_3.gz"}
_ITEM_BYTES = {"u1": 1, "i8": 8}


class RefusedError(Exception):
    """The file is not what it should be, or would do more than hold an array."""


class Plain(NamedTuple):
    """An array in C order: its element type (`u1`, or `i8`, little-endian), its shape and its bytes."""

    type: str
    shape: tuple[int, ...]
    data: bytes


class _Type:
    """Stands for numpy.dtype."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands for numpy.ndarray."""

    state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _reconstruct(*_: Any) -> _Array:
    """Stands for numpy's own: an empty array, which the pickle then fills."""
    return _Array()


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise RefusedError(f"the pickle names {module}.{name}, which no plain array needs; nothing of it was run") from None


def read_array(data: bytes) -> Plain:
    """The plain array that a pickle holds.

    Raises:
        RefusedError: it holds anything else, or names anything but numpy's arrays.
    """
    try:
        found = _ArraysOnly(io.BytesIO(data)).load()
    except RefusedError:
        raise
    except Exception as error:  # noqa: BLE001  (pickle promises no particular exception for damaged bytes)
        raise RefusedError(f"not a pickled array: {error}") from None
    try:
        _, shape, kind, is_fortran, content = found.state
        size = _ITEM_BYTES[kind.name] * prod(max(0, side) for side in shape)
        if kind.order not in "|<" or is_fortran or not isinstance(content, bytes) or len(content) != size:
            raise ValueError("its order or size is another")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"not a plain array of bytes or of 64-bit numbers: {error}") from None
    return Plain(kind.name, tuple(shape), content)


def idx(images: Plain, labels: Plain) -> dict[str, bytes]:
    """Both arrays as IDX, by file name: magic number, sizes (big-endian 32 bits), one byte an element.

    Raises:
        RefusedError: they are not square images of one byte a pixel with one label of ten classes each.
    """
    if images.type != "u1" or len(images.shape) != 3 or images.shape[1] != images.shape[2]:
        raise RefusedError(f"images are {images.type} {images.shape}, not square pictures of one byte a pixel")
    if labels.type != "i8" or labels.shape != images.shape[:1]:
        raise RefusedError(f"labels are {labels.type} {labels.shape} for {images.shape[0]} images, not one number each")
    numbers = [number for (number,) in struct.iter_unpack("<q", labels.data)]
    if not all(0 <= number < NUM_CLASSES for number in numbers):
        raise RefusedError(f"labels are not all 0 to {NUM_CLASSES - 1}")
    return {IMAGES: _header(0x803, images.shape) + images.data, LABELS: _header(0x801, labels.shape) + bytes(numbers)}


def convert(wheel: Path, folder: Path) -> None:
    """Write both IDX files, packed, into `folder`.

    Raises:
        RefusedError: the wheel lacks an array or holds another.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = {Path(name).name: name for name in archive.namelist()}
            images, labels = (read_array(gzip.decompress(archive.read(inside[_PICKLES[name]]))) for name in (IMAGES, LABELS))
    except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise RefusedError(f"{wheel}: cannot be unpacked ({error})") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in idx(images, labels).items():
        (folder / name).write_bytes(gzip.compress(content, mtime=0))


def _header(magic: int, shape: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in (magic, *shape))


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    if len(arguments) != 2:
        sys.stderr.write("usage: convert_animal_shapes.py WHEEL FOLDER\n")
        return 2
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except RefusedError as error:
        sys.stderr.write(f"animal-shapes: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
