"""What can be known of a data set from the names of its files: no image is read, and torch is not imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kfnas.errors import DataError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
ANIMAL_SHAPES_FILES = ("images-idx3-ubyte", "labels-idx1-ubyte")
_PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("test", "val", "valid", "validation")


class Pictures(NamedTuple):
    """Paths of pictures and the index of each one's class."""

    paths: list[Path]
    labels: list[int]


def idx_folder(folders: Sequence[Path], names: Sequence[str] = IDX_FILES) -> Path | None:
    """The first of `folders` that holds the named IDX files, packed or not: Fashion-MNIST's four, unless told otherwise."""
    return next((folder for folder in folders if _has_idx(folder, names)), None)


def no_fashion_mnist(folders: Sequence[Path]) -> DataError:
    """What to say where none of `folders` holds it."""
    looked = ", ".join(str(folder) for folder in folders)
    return DataError(f"Fashion-MNIST is not in {looked}; run scripts/fetch_fashion_mnist.sh, or set data_dir to a folder with its four .gz files")


def no_animal_shapes(folders: Sequence[Path]) -> DataError:
    """What to say where none of `folders` holds the two files of animal shapes."""
    looked = ", ".join(str(folder) for folder in folders)
    return DataError(f"animal shapes are not in {looked}; run scripts/fetch_animal_shapes.sh, or set data_dir to a folder with its two .gz files")


def picture_folder(folder: Path) -> tuple[Pictures, Pictures | None, list[str]]:
    """Training pictures, test pictures (None where the folder has no part for them) and class names, all in sorted order.

    A class is a subfolder, with whatever pictures are at any depth below it; links are followed.

    Raises:
        DataError: no such folder, no picture, one class, or a class that only the test part has.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one with a subfolder of pictures for each class, or the name fashion-mnist, digits or animal-shapes")
    train_folder, test_folder = _train_and_test(folder)
    train, classes = _list_pictures(train_folder)
    return train, None if test_folder is None else _list_pictures(test_folder, classes)[0], classes


def _has_idx(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / f"{name}.gz").is_file() or (folder / name).is_file() for name in names)


def _train_and_test(folder: Path) -> tuple[Path, Path | None]:
    """Folders of the training and of the test set; the latter None where the folder itself holds the classes."""
    if not (folder / "train").is_dir():
        return folder, None
    test = next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)
    return folder / "train", test


def _list_pictures(folder: Path, classes: list[str] | None = None) -> tuple[Pictures, list[str]]:
    """Pictures and class names; `classes` are those that the training folder has."""
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not found:
        raise DataError(f"{folder}: has no subfolder; put the pictures of each class into a subfolder of its own")
    pictures = [(name, path) for name in found for path in _pictures_below(folder / name)]
    if not pictures:
        raise DataError(f"{folder}: its subfolders hold no pictures (.jpg, .png, .bmp, .ppm, .tif, .webp); add some")
    if classes is None and len(found) < 2:
        raise DataError(f"{folder}: holds one class ({found[0]}); classification needs two subfolders of pictures or more")
    known = found if classes is None else classes
    if unknown := sorted(set(found) - set(known)):
        raise DataError(f"{folder}: holds class {unknown[0]}, which the training folder lacks (it has {', '.join(known)}); rename or remove it")
    return Pictures([path for _, path in pictures], [known.index(name) for name, _ in pictures]), list(known)


def _pictures_below(folder: Path) -> list[Path]:
    walked = sorted(os.walk(folder, followlinks=True))
    return [Path(parent, name) for parent, _, names in walked for name in sorted(names) if name.lower().endswith(_PICTURES)]
