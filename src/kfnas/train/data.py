"""Prepared data: uint8 images in memory, split, with what a task must know of them.

Splits: `mini_train` trains children and `mini_val` scores them; `rest` is what the proxy's limits leave of the training set, and joins both in
retraining; `test` is a file of its own, which only the final evaluation reads.

Shapes: N images, C channels, R pixels a side.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from kfnas.config import canonical_json, digest_of
from kfnas.errors import CorruptError, DataError, StateVersionError, StorageFull

TRAINING_SPLITS = ("mini_train", "mini_val", "rest")
_FORMAT = 1
_META = "meta.json"


@dataclass(frozen=True)
class Split:
    """Images, uint8 [N, C, R, R], and their targets, [N, ...]: int64 class indices for classification, whatever the task's loss takes otherwise."""

    images: torch.Tensor
    targets: torch.Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[2] != self.images.shape[3]:
            raise DataError(
                f"images are {self.images.dtype} of shape {tuple(self.images.shape)}; a split holds uint8 of shape [images, channels, pixels, pixels]"
            )
        if len(self.images) != len(self.targets):
            raise DataError(f"{len(self.images)} images have {len(self.targets)} targets; give one target an image")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """Sha256 (hex) of type, shape and content of both tensors."""
        sha = hashlib.sha256()
        for tensor in (self.images, self.targets):
            sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            sha.update(tensor.contiguous().numpy().data)
        return sha.hexdigest()


@dataclass(frozen=True)
class PreparedData:
    """Splits by name and `meta`, a JSON mapping: class names, channels, resolution, normalisation, augmentation, whatever the task's methods need."""

    splits: Mapping[str, Split]
    meta: Mapping[str, Any]

    def training_set(self) -> Split:
        """Every training image, whatever the proxy's limits: mini-train, mini-val and the rest. Never the test set.

        Raises:
            DataError: the rest was not loaded.
        """
        if missing := [name for name in self.meta["sizes"] if name in TRAINING_SPLITS and name not in self.splits]:
            raise DataError(f"split {missing[0]!r} is not loaded; load all of {', '.join(TRAINING_SPLITS)} to retrain")
        parts = [self.splits[name] for name in TRAINING_SPLITS if name in self.splits]
        return Split(torch.cat([part.images for part in parts]), torch.cat([part.targets for part in parts]))

    def split(self, name: str) -> Split:
        """One split.

        Raises:
            DataError: it does not exist or was not loaded.
        """
        if name not in self.splits:
            raise DataError(f"split {name!r} is not among those loaded ({', '.join(sorted(self.splits))}); load it, or prepare the data again")
        return self.splits[name]

    def to_files(self, folder: Path) -> str:
        """Write one safetensors file a split and `meta.json` with their digests; equal data give equal bytes.

        Returns:
            The digest of all of it, hex: the data's identity in a child's key.

        Raises:
            StorageFull: no room left in the folder.
        """
        folder = Path(folder)
        digests = {name: split.digest for name, split in sorted(self.splits.items())}
        digest = digest_of({"meta": self.meta, "splits": digests})
        index = {"format": _FORMAT, "meta": self.meta, "splits": digests, "digest": digest}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, split in self.splits.items():
                safetensors.torch.save_file({"images": split.images.contiguous(), "targets": split.targets.contiguous()}, folder / f"{name}.safetensors")
            (folder / _META).write_text(canonical_json(index) + "\n", encoding="utf-8")
        except (OSError, SafetensorError) as error:
            if not any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)):
                raise
            num_bytes = sum(split.images.nbytes for split in self.splits.values())
            raise StorageFull(f"{folder}: no room for {num_bytes / 2**20:.0f} MiB of prepared data; free some and run the step again") from None
        return digest

    @classmethod
    def from_files(cls, folder: Path, only: Collection[str]) -> PreparedData:
        """Read some splits, each checked against its digest. A split of `only` that the data lack (`rest`, most often) is left out.

        Raises:
            DataError: the folder holds no prepared data.
            CorruptError: a file differs from its digest.
            StateVersionError: a newer kfnas wrote it.
        """
        folder = Path(folder)
        index = read_index(folder)
        splits = {name: _read_split(folder / f"{name}.safetensors", digest) for name, digest in sorted(index["splits"].items()) if name in only}
        return cls(splits, index["meta"])


def read_index(folder: Path) -> dict[str, Any]:
    """What `to_files` wrote beside the splits: `meta`, `splits` (name to digest) and `digest`, without reading an image.

    Raises:
        DataError: the folder holds no prepared data.
        CorruptError: the index is not as written.
        StateVersionError: a newer kfnas wrote it.
    """
    path = Path(folder) / _META
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run the step that prepares the data first") from None
    except ValueError:
        raise CorruptError(f"{path}: not JSON; prepare the data again") from None
    if index.get("format", 0) > _FORMAT:
        raise StateVersionError(f"{path}: format {index['format']} is newer than {_FORMAT}, the newest known here; upgrade kfnas")
    if digest_of({"meta": index["meta"], "splits": index["splits"]}) != index["digest"]:
        raise CorruptError(f"{path}: differs from its digest {index['digest'][:12]}; prepare the data again")
    return index


def image_data(
    train_images: torch.Tensor,
    train_targets: torch.Tensor,
    test_images: torch.Tensor,
    test_targets: torch.Tensor,
    *,
    seed: int,
    meta: Mapping[str, Any],
    num_train: int | None = None,
    num_val: int | None = None,
    strata: torch.Tensor | None = None,
) -> PreparedData:
    """Split a training set into mini-train, mini-val and the rest, and add size, channels and normalisation to `meta`.

    Args:
        train_images: uint8 [N, C, R, R].
        train_targets: [N, ...].
        test_images: uint8 [M, C, R, R].
        test_targets: [M, ...].
        seed: of the split.
        meta: the task's own keys. `augmentation` defaults to none, where `ImageTask.make_batch` is used.
        num_train: images of mini-train; None: all that mini-val leaves.
        num_val: images of mini-val; None: a tenth of the training set.
        strata: int64 [N], classes that each part shall hold in equal shares; None: none.

    Raises:
        DataError: fewer images than asked for.
    """
    total = len(train_images)
    num_val = max(1, total // 10) if num_val is None else num_val
    num_train = total - num_val if num_train is None else num_train
    if num_train < 2 or num_train + num_val > total:
        raise DataError(f"the training set has {total} images, too few for {num_train} of mini-train and {num_val} of mini-val; lower num_train or num_val")
    labels = np.zeros(total, np.int64) if strata is None else strata.numpy()
    parts = stratified_split(labels, [num_train, num_val], np.random.default_rng(seed))
    train = Split(train_images, train_targets)
    splits = {name: Split(train.images[part], train.targets[part]) for name, part in zip(TRAINING_SPLITS, parts, strict=True) if len(part)}
    splits["test"] = Split(test_images, test_targets)
    mean, std = channel_statistics(train_images)
    own = {
        "augmentation": {"crop_padding": 0, "flip": False},
        **meta,
        "in_channels": int(train_images.shape[1]),
        "resolution": int(train_images.shape[2]),
        "mean": mean,
        "std": std,
        "sizes": {name: len(split) for name, split in splits.items()},
    }
    return PreparedData(splits, own)


def stratified_split(labels: np.ndarray, sizes: Sequence[int], rng: np.random.Generator) -> list[torch.Tensor]:
    """Disjoint parts of the given sizes, then what is left, each with the classes in about the shares that they have in all.

    Every class is shuffled and its members are spread evenly over one line; the line is then cut. So a part's share of a class is off by at most one
    or two members.

    Args:
        labels: int64 [N], classes.
        sizes: of the parts, at most N together.
        rng: of the shuffle.

    Returns:
        len(sizes) + 1 int64 tensors of indices, each in a random order.
    """
    shuffled = rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    line = shuffled[np.argsort(position[shuffled], kind="stable")]
    return [torch.from_numpy(rng.permutation(part)) for part in np.split(line, np.cumsum(sizes))]


def channel_statistics(images: torch.Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images [N, C, R, R], on the scale 0 to 1; a constant channel has deviation 1."""
    counts = [torch.bincount(images[:, channel].reshape(-1), minlength=256).double() for channel in range(images.shape[1])]
    values = torch.arange(256, dtype=torch.float64) / 255
    means = [float((count * values).sum() / count.sum()) for count in counts]
    variances = [float((count * (values - mean) ** 2).sum() / count.sum()) for count, mean in zip(counts, means, strict=True)]
    return [round(mean, 6) for mean in means], [round(variance**0.5, 6) if variance > 1e-8 else 1.0 for variance in variances]


def _read_split(path: Path, digest: str) -> Split:
    try:
        tensors = safetensors.torch.load_file(path)
        split = Split(tensors["images"], tensors["targets"])
    except (OSError, SafetensorError, KeyError, DataError) as error:
        raise CorruptError(f"{path}: cannot be read ({error}); prepare the data again") from None
    if split.digest != digest:
        raise CorruptError(f"{path}: differs from its digest {digest[:12]}; prepare the data again")
    return split
