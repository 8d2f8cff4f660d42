"""A second split of one training set that shares no image with the first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfnas.errors import DataError
from kfnas.train import PreparedData, Split, image_data
from kfnas.train.disjoint import disjoint_data


def prepared(num: int = 300, num_train: int = 60, num_val: int = 40, *, classes: int = 10) -> PreparedData:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (num, 1, 8, 8), dtype=np.uint8))
    labels = torch.arange(num) % classes
    return image_data(images, labels, images[:10], labels[:10], seed=1, meta={}, num_train=num_train, num_val=num_val, strata=labels)


def pictures(*splits: Split) -> set[bytes]:
    return {image.numpy().tobytes() for split in splits for image in split.images}


def test_no_image_is_in_both_and_the_classes_keep_their_shares() -> None:
    data = prepared()
    other = disjoint_data(data, seed=5)
    assert {name: len(split) for name, split in other.splits.items()} == {"mini_train": 60, "mini_val": 40}
    assert not pictures(data.split("mini_train"), data.split("mini_val")) & pictures(*other.splits.values())
    assert pictures(*other.splits.values()) <= pictures(data.split("rest"))
    assert len(pictures(*other.splits.values())) == 100
    assert np.bincount(other.split("mini_train").targets).tolist() == [6] * 10
    assert other.meta == {**data.meta, "sizes": {"mini_train": 60, "mini_val": 40}}


def test_the_seed_decides_the_choice() -> None:
    first, same, another = (disjoint_data(prepared(), seed=seed) for seed in (5, 5, 6))
    assert first.split("mini_train").digest == same.split("mini_train").digest
    assert first.split("mini_train").digest != another.split("mini_train").digest


def test_targets_that_are_no_classes_are_split_too() -> None:
    data = prepared()
    angles = {name: Split(split.images, torch.rand(len(split), 2, generator=torch.Generator().manual_seed(0))) for name, split in data.splits.items()}
    assert len(disjoint_data(PreparedData(angles, data.meta), seed=0).split("mini_val")) == 40


@pytest.mark.parametrize("num", [150, 100])
def test_a_rest_that_is_too_small_is_refused(num: int) -> None:
    with pytest.raises(DataError, match=rf"{num - 100} images are left .* too few for 60 \+ 40 others; lower num_train"):
        disjoint_data(prepared(num), seed=0)
