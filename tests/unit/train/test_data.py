"""Splits, their digests and their files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kfnas.errors import CorruptError, DataError, StateVersionError, StorageFull
from kfnas.train import TRAINING_SPLITS, PreparedData, Split, image_data, read_index, stratified_split
from kfnas.train.data import channel_statistics


def test_splits_partition_the_training_set_and_leave_the_test_set_alone(data: PreparedData) -> None:
    assert {name: len(split) for name, split in data.splits.items()} == {"mini_train": 192, "mini_val": 64, "rest": 64, "test": 80}
    images = torch.cat([data.splits[name].images for name in TRAINING_SPLITS]).flatten(1)
    assert len(torch.unique(images, dim=0)) == 320
    assert len(torch.unique(torch.cat([images, data.splits["test"].images.flatten(1)]), dim=0)) == 400


def test_retraining_sees_every_training_image_whatever_the_proxy_limits(data: PreparedData) -> None:
    assert len(data.training_set()) == 320


def test_each_part_of_a_stratified_split_has_the_classes_in_their_shares() -> None:
    labels = np.array([0] * 500 + [1] * 300 + [2] * 200)
    first, second, rest = stratified_split(labels, [100, 400], np.random.default_rng(0))
    assert sorted(torch.cat([first, second, rest]).tolist()) == list(range(1000))
    for part, size in ((first, 100), (second, 400), (rest, 500)):
        shares = np.bincount(labels[part.numpy()], minlength=3) / size
        assert np.abs(shares - [0.5, 0.3, 0.2]).max() * size <= 2


def test_a_split_depends_on_its_seed_alone() -> None:
    labels = np.arange(100) % 7
    one, same, other = (stratified_split(labels, [50], np.random.default_rng(seed))[0].tolist() for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_too_few_training_images_for_the_proxy_are_refused() -> None:
    images, targets = torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64)
    with pytest.raises(DataError, match="10 images, too few for 8 of mini-train and 5 of mini-val; lower"):
        image_data(images, targets, images, targets, seed=0, meta={}, num_train=8, num_val=5)


def test_images_that_are_not_uint8_squares_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        Split(torch.zeros(2, 1, 8, 8), torch.zeros(2))
    with pytest.raises(DataError, match="2 images have 3 targets"):
        Split(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3))


def test_channel_statistics_equal_those_of_the_pixels() -> None:
    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = channel_statistics(images)
    pixels = images.double().transpose(0, 1).flatten(1) / 255
    assert mean == pytest.approx(pixels.mean(1).tolist(), abs=1e-6)
    assert std == pytest.approx(pixels.std(1, unbiased=False).tolist(), abs=1e-6)
    assert channel_statistics(torch.full((4, 1, 8, 8), 51, dtype=torch.uint8)) == ([0.2], [1.0])


def test_files_give_back_the_data_and_its_digest(data: PreparedData, tmp_path: Path) -> None:
    digest = data.to_files(tmp_path / "one")
    assert data.to_files(tmp_path / "two") == digest == read_index(tmp_path / "one")["digest"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    loaded = PreparedData.from_files(tmp_path / "one", {"mini_train", "mini_val"})
    assert set(loaded.splits) == {"mini_train", "mini_val"}
    assert loaded.meta == data.meta
    assert torch.equal(loaded.splits["mini_val"].images, data.splits["mini_val"].images)
    assert torch.equal(loaded.splits["mini_val"].targets, data.splits["mini_val"].targets)


def test_children_need_no_test_file(data: PreparedData, tmp_path: Path) -> None:
    data.to_files(tmp_path)
    (tmp_path / "test.safetensors").unlink()
    loaded = PreparedData.from_files(tmp_path, TRAINING_SPLITS)
    assert len(loaded.training_set()) == 320
    with pytest.raises(DataError, match="'test' is not among those loaded"):
        loaded.split("test")


def test_retraining_without_the_rest_is_refused(data: PreparedData, tmp_path: Path) -> None:
    data.to_files(tmp_path)
    with pytest.raises(DataError, match="'rest' is not loaded"):
        PreparedData.from_files(tmp_path, {"mini_train", "mini_val"}).training_set()


def test_changed_bytes_are_never_loaded(data: PreparedData, tmp_path: Path) -> None:
    data.to_files(tmp_path)
    path = tmp_path / "mini_val.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="mini_val"):
        PreparedData.from_files(tmp_path, {"mini_val"})
    path.write_bytes(content[:100])
    with pytest.raises(CorruptError, match="mini_val"):
        PreparedData.from_files(tmp_path, {"mini_val"})
    index = tmp_path / "meta.json"
    index.write_text(index.read_text().replace('"resolution":16', '"resolution":17'))
    with pytest.raises(CorruptError, match=r"meta\.json"):
        read_index(tmp_path)


def test_missing_and_newer_data_are_told_apart(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the step that prepares the data"):
        read_index(tmp_path)
    data.to_files(tmp_path)
    index = tmp_path / "meta.json"
    index.write_text(index.read_text().replace('"format":1', '"format":99'))
    with pytest.raises(StateVersionError, match="upgrade"):
        read_index(tmp_path)


def test_a_full_disk_is_said_as_such(data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageFull, match=r"no room for 0 MiB of prepared data; free some"):
        data.to_files(tmp_path)
