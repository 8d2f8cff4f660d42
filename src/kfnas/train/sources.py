"""Where images come from: Fashion-MNIST, scikit-learn's digits, animal shapes, or a folder of folders of pictures.

Shapes: N images, C channels, R pixels a side.
"""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from kfnas.errors import DataError
from kfnas.train.data import stratified_split
from kfnas.train.files import ANIMAL_SHAPES_FILES, IDX_FILES, Pictures, idx_folder, no_animal_shapes, no_fashion_mnist, picture_folder

_log = logging.getLogger(__name__)

MIN_RESOLUTION = 8
FASHION_MNIST_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
ANIMAL_SHAPES_CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801
_PICTURE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Source:
    """A labelled data set: images uint8 [N, C, R, R], labels int64 [N], one name a class."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: Sequence[str]


def fashion_mnist(folders: Sequence[Path], *, download: Callable[[], Path] | None) -> Source:
    """Fashion-MNIST from the first of `folders` that holds its four IDX files, packed or not, else from where `download` puts them.

    Source: Xiao et al., arXiv 1708.07747.

    Raises:
        DataError: found nowhere and not to be downloaded, or a file is damaged.
    """
    folder = idx_folder(folders)
    if folder is None and download is not None:
        folder = download()
    if folder is None:
        raise no_fashion_mnist(folders)
    train_images, train_labels, test_images, test_labels = (_read_idx(folder, name) for name in IDX_FILES)
    return Source(train_images[:, None], train_labels.long(), test_images[:, None], test_labels.long(), FASHION_MNIST_CLASSES)


def torchvision_download(folder: Path) -> Path:
    """Download Fashion-MNIST with torchvision into `folder` and return where the IDX files are.

    Raises:
        DataError: the network or the disk does not allow it.
    """
    from torchvision.datasets import FashionMNIST

    _log.info("downloading Fashion-MNIST into %s", folder)
    try:
        FashionMNIST(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"Fashion-MNIST cannot be downloaded into {folder} ({error}); "
            "run scripts/fetch_fashion_mnist.sh, or set data_dir to a folder with its four .gz files"
        ) from None
    return folder / "FashionMNIST" / "raw"


def digits(*, seed: int, test_fraction: float) -> Source:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 pixels of 17 grey levels, with a seeded stratified test set."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy((bunch.images * (255 / 16)).round().astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    test, train = stratified_split(bunch.target, [round(len(labels) * test_fraction)], np.random.default_rng([seed, 1]))
    return Source(images[train], labels[train], images[test], labels[test], [str(name) for name in bunch.target_names])


def animal_shapes(folders: Sequence[Path], *, seed: int, test_fraction: float) -> Source:
    """Animal shapes (PyPI's animal-shape-mnist) from the first of `folders` that holds its two IDX files, with a seeded stratified test set.

    A picture that occurs twice is kept once, so that none of the test set is among those that are trained on: 9,716 of the 10,000 stay.

    Raises:
        DataError: found nowhere, or a file is damaged.
    """
    folder = idx_folder(folders, ANIMAL_SHAPES_FILES)
    if folder is None:
        raise no_animal_shapes(folders)
    images, labels = (_read_idx(folder, name) for name in ANIMAL_SHAPES_FILES)
    first = np.sort(np.unique(images.flatten(1).numpy(), axis=0, return_index=True)[1])
    images, labels = images[first][:, None], labels[first].long()
    test, train = stratified_split(labels.numpy(), [round(len(labels) * test_fraction)], np.random.default_rng([seed, 1]))
    return Source(images[train], labels[train], images[test], labels[test], ANIMAL_SHAPES_CLASSES)


def image_folder(folder: Path, *, resolution: int | None, channels: int, limit: int | None, memory_gib: float, seed: int, test_fraction: float) -> Source:
    """A folder with one subfolder of pictures a class, or with `train` and `test` (or `val`) folders of that kind.

    Args:
        folder: the folder.
        resolution: pixels a side: the shorter side is resized to it, the centre is cut out. None: the median of the shorter sides, at most 224.
        channels: 1 (grey) or 3 (red, green, blue).
        limit: training pictures that are read; None: all.
        memory_gib: memory that the images may take.
        seed: of the split, where there is no test folder.
        test_fraction: share that becomes the test set, where there is no test folder.

    Raises:
        DataError: no such folder, no picture, one class, a damaged picture, or too much for the memory.
    """
    train, test, classes = picture_folder(folder)
    if test is None:
        test, train = _divided(train, round(len(train.paths) * test_fraction), np.random.default_rng([seed, 1]))
    if limit is not None and limit < len(train.paths):
        train, _ = _divided(train, limit, np.random.default_rng([seed, 2]))
    resolution = _median_side(train.paths) if resolution is None else resolution
    if resolution < MIN_RESOLUTION:
        raise DataError(f"{folder}: pictures of {resolution} pixels are too small; set resolution to {MIN_RESOLUTION} or more")
    num_pictures = len(train.paths) + len(test.paths)
    needed_gib = num_pictures * channels * resolution**2 / 2**30
    if needed_gib > memory_gib:
        raise DataError(
            f"{folder}: {num_pictures} pictures of {resolution} pixels take {needed_gib:.3g} GiB, more than memory_gib={memory_gib}; "
            "lower resolution, set limit or raise memory_gib"
        )
    return Source(
        _decode(train.paths, resolution, channels),
        torch.tensor(train.labels),
        _decode(test.paths, resolution, channels),
        torch.tensor(test.labels),
        classes,
    )


def resized(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Uint8 images [N, C, R, R] at another resolution (bilinear, antialiased when smaller); itself where it fits."""
    if images.shape[-1] == resolution:
        return images
    parts = [
        F.interpolate(part.float(), size=(resolution, resolution), mode="bilinear", align_corners=False, antialias=True).round().clamp(0, 255).to(torch.uint8)
        for part in images.split(4096)
    ]
    return torch.cat(parts)


def _read_idx(folder: Path, name: str) -> torch.Tensor:
    """One IDX file: magic number, sizes (big-endian 32 bits), bytes. Images are [N, R, R], labels [N], both uint8."""
    path = folder / f"{name}.gz"
    try:
        data = gzip.decompress(path.read_bytes()) if path.is_file() else (folder / name).read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); delete the folder and fetch the data set again") from None
    magic = int.from_bytes(data[:4], "big")
    rank = magic & 0xFF
    sizes = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank if magic in (_IDX_IMAGES, _IDX_LABELS) else 0))
    start = 4 + 4 * rank
    if not sizes or len(data) - start != int(np.prod(sizes)):
        raise DataError(f"{path}: not an IDX file of images or labels ({len(data)} bytes, magic {magic:#x}); delete the folder and fetch the data set again")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(sizes).copy())


def _divided(pictures: Pictures, size: int, rng: np.random.Generator) -> tuple[Pictures, Pictures]:
    """A stratified part of `size` pictures (one at least), and the others."""
    parts = stratified_split(np.array(pictures.labels), [max(1, size)], rng)
    first, second = (Pictures([pictures.paths[i] for i in part], [pictures.labels[i] for i in part]) for part in parts)
    return first, second


def _median_side(paths: Sequence[Path]) -> int:
    """Median of the shorter sides of (at most 1,000) pictures, at most 224."""
    some = paths[:: max(1, len(paths) // 1000)]
    return min(224, int(np.median([min(_open(path).size) for path in some])))


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except _PICTURE_ERRORS as error:
        raise _damaged(path, error) from None


def _decode(paths: Sequence[Path], resolution: int, channels: int) -> torch.Tensor:
    images = np.empty((len(paths), resolution, resolution, channels), np.uint8)
    for image, path in zip(images, paths, strict=True):
        try:
            with _open(path) as picture:
                image[:] = np.asarray(_centre(picture, resolution, "L" if channels == 1 else "RGB")).reshape(resolution, resolution, channels)
        except _PICTURE_ERRORS as error:
            raise _damaged(path, error) from None
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _centre(picture: Image.Image, resolution: int, mode: str) -> Image.Image:
    """The central square, `resolution` pixels a side after the shorter side is resized to that."""
    picture.draft(mode, (resolution, resolution))
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return picture.convert(mode).resize((resolution, resolution), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as a picture ({error}); replace or remove the file")
