"""A second pair of mini-train and mini-val, of images that the first pair leaves: what is learnt on one cannot have been seen by the other."""

from __future__ import annotations

import numpy as np

from kfnas.errors import DataError
from kfnas.train.data import PreparedData, Split, stratified_split


def disjoint_data(data: PreparedData, *, seed: int) -> PreparedData:
    """Mini-train and mini-val as large as those of `data`, out of its rest. Normalisation and all else of `meta` stay.

    Args:
        data: with `rest` loaded. Where targets are class indices, both parts hold the classes in about their shares of the rest.
        seed: of the choice.

    Raises:
        DataError: the rest is too small.
    """
    wanted = [int(data.meta["sizes"][name]) for name in ("mini_train", "mini_val")]
    rest = data.splits.get("rest")
    if rest is None or len(rest) < sum(wanted):
        left = 0 if rest is None else len(rest)
        raise DataError(
            f"task: {left} images are left beside mini-train and mini-val, too few for {wanted[0]} + {wanted[1]} others; lower num_train and num_val"
        )
    targets = rest.targets.numpy()
    labels = targets if targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer) else np.zeros(len(rest), np.int64)
    train, val, _ = stratified_split(labels, wanted, np.random.default_rng(seed))
    splits = {name: Split(rest.images[part], rest.targets[part]) for name, part in (("mini_train", train), ("mini_val", val))}
    return PreparedData(splits, {**data.meta, "sizes": {name: len(split) for name, split in splits.items()}})
