"""Fashion-MNIST's files, digits, folders of pictures: what is read, and what is refused with which words."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kfnas.config import parse
from kfnas.errors import ConfigError, DataError
from kfnas.train import Classification, ClassificationConfig, PreparedData
from kfnas.train.sources import fashion_mnist, resized


def write_idx(folder: Path, *, num_train: int = 60, num_test: int = 20, pixels: int = 28) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_train, pixels, pixels), dtype=np.uint8)
    for name, array in (
        ("train-images-idx3-ubyte", images),
        ("train-labels-idx1-ubyte", np.arange(num_train, dtype=np.uint8) % 10),
        ("t10k-images-idx3-ubyte", images[:num_test]),
        ("t10k-labels-idx1-ubyte", np.arange(num_test, dtype=np.uint8) % 10),
    ):
        header = (0x800 + array.ndim).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return images


def write_pictures(folder: Path, classes: dict[str, int], *, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> None:
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{index:03}.png")


def prepare(source: str | Path, **fields: object) -> PreparedData:
    return Classification().prepare(ClassificationConfig(source=str(source), **fields), seed=0)


def test_fashion_mnist_is_read_from_its_own_files(tmp_path: Path) -> None:
    images = write_idx(tmp_path / "cache" / "fashion-mnist")
    source = fashion_mnist([tmp_path / "absent", tmp_path / "cache" / "fashion-mnist"], download=None)
    assert torch.equal(source.train_images[:, 0], torch.from_numpy(images))
    assert source.train_labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert len(source.test_labels) == 20
    assert source.classes[9] == "Ankle boot"


def test_fashion_mnist_that_is_nowhere_is_fetched_or_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not in .*absent; run scripts/fetch_fashion_mnist.sh"):
        prepare("fashion-mnist", data_dir=tmp_path / "absent")

    def download() -> Path:
        write_idx(tmp_path / "fetched")
        return tmp_path / "fetched"

    assert len(fashion_mnist([tmp_path / "absent"], download=download).train_labels) == 60


def test_a_failed_download_says_what_to_do_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    from kfnas.train.sources import torchvision_download

    def fail(root: str, download: bool) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    with pytest.raises(DataError, match=r"cannot be downloaded .*Network is unreachable.*; run scripts/fetch_fashion_mnist.sh"):
        torchvision_download(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "other", "no idx"])
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: str) -> None:
    write_idx(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:500], "other": gzip.compress(gzip.decompress(content)[:-1]), "no idx": gzip.compress(b"hello")}[damage])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz.*fetch the data set again"):
        fashion_mnist([tmp_path], download=None)


def test_real_fashion_mnist_where_it_was_fetched() -> None:
    try:
        data = prepare("fashion-mnist", num_train=1000, num_val=500)
    except DataError:
        pytest.skip("Fashion-MNIST was not fetched: scripts/fetch_fashion_mnist.sh")
    assert {name: len(split) for name, split in data.splits.items()} == {"mini_train": 1000, "mini_val": 500, "rest": 58500, "test": 10000}
    assert np.bincount(data.splits["mini_train"].targets).tolist() == [100] * 10
    assert data.meta["mean"] == pytest.approx([0.2860], abs=1e-4)
    assert data.meta["std"] == pytest.approx([0.3530], abs=1e-4)
    assert data.meta["augmentation"] == {"crop_padding": 2, "flip": True}


def test_digits_are_enlarged_and_never_mirrored() -> None:
    data = prepare("digits", resolution=16)
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"mini_train": 1295, "mini_val": 143, "test": 359}
    assert data.splits["test"].images.shape == (359, 1, 16, 16)
    assert data.meta["augmentation"] == {"crop_padding": 1, "flip": False}
    assert Classification().network_inputs(data.meta) == (1, 16, 10)


def test_resizing_keeps_flat_images_flat() -> None:
    images = torch.full((3, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resized(images, 20), torch.full((3, 1, 20, 20), 77, dtype=torch.uint8))
    assert resized(images, 8) is images


def test_a_folder_without_test_pictures_is_split_by_class(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 30, "dog": 20})
    data = prepare(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"mini_train": 36, "mini_val": 4, "test": 10}
    assert np.bincount(data.splits["test"].targets).tolist() == [6, 4]
    assert data.meta["classes"] == ["cat", "dog"]
    assert data.meta["resolution"] == 16
    assert data.meta["in_channels"] == 3
    again = prepare(tmp_path)
    assert all(again.splits[name].digest == split.digest for name, split in data.splits.items())


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_a_folder_with_test_pictures_keeps_them_for_the_test(tmp_path: Path, test_name: str) -> None:
    write_pictures(tmp_path / "train", {"cat": 20, "dog": 20, "eel": 20})
    write_pictures(tmp_path / test_name, {"dog": 5, "eel": 4})
    data = prepare(tmp_path, resolution=8, channels=1)
    assert np.bincount(data.splits["test"].targets, minlength=3).tolist() == [0, 5, 4]
    assert data.splits["test"].images.shape == (9, 1, 8, 8)


def test_a_limit_holds_for_the_whole_training_set(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 30, "dog": 30})
    assert len(prepare(tmp_path, limit=20).training_set()) == 20
    assert len(prepare("digits", limit=200, resolution=8).training_set()) == 200


def test_grey_and_palette_pictures_become_colour(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", {"cat": 6, "dog": 6}, mode="L")
    write_pictures(tmp_path / "test", {"cat": 2, "dog": 2}, mode="P")
    assert prepare(tmp_path).splits["mini_train"].images.shape[1] == 3


def test_the_centre_is_cut_out_after_resizing(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    images = prepare(tmp_path).splits["mini_train"].images
    assert (images == 255).all()


def test_an_unknown_name_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: no such folder; give one with a subfolder of pictures for each class, or the name fashion-mnist"):
        prepare(tmp_path / "absent")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no subfolder; put the pictures of each class"):
        prepare(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"hold no pictures .*; add some"):
        prepare(tmp_path)


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 5})
    with pytest.raises(DataError, match=r"holds one class \(cat\); classification needs two"):
        prepare(tmp_path)


def test_a_class_of_too_few_pictures_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", {"cat": 5, "dog": 1})
    write_pictures(tmp_path / "test", {"cat": 1})
    with pytest.raises(DataError, match="class dog has 1 training images; it needs 2 or more: add pictures"):
        prepare(tmp_path)


def test_a_mini_train_that_misses_a_class_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 100, "dog": 3})
    with pytest.raises(DataError, match="has none of class dog; raise num_train"):
        prepare(tmp_path, num_train=4, num_val=4)


def test_a_class_of_the_test_set_that_training_lacks_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", {"cat": 5, "dog": 5})
    write_pictures(tmp_path / "test", {"cow": 2})
    with pytest.raises(DataError, match="holds class cow, which the training folder lacks"):
        prepare(tmp_path)


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 6, "dog": 6})
    broken = tmp_path / "dog" / "003.png"
    for content in (b"", b"not a picture", broken.read_bytes()[:200]):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=r"dog/003.png: cannot be read as a picture .*; replace or remove the file"):
            prepare(tmp_path)


def test_pictures_that_are_too_small_are_refused_unless_enlarged(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 6, "dog": 6}, size=(5, 5))
    with pytest.raises(DataError, match="pictures of 5 pixels are too small; set resolution to 8 or more"):
        prepare(tmp_path)
    assert prepare(tmp_path, resolution=16).meta["resolution"] == 16


def test_a_resolution_under_the_minimum_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"task: resolution: .*8 \(got 4\)"):
        parse(ClassificationConfig, {"resolution": 4}, source="task")


def test_pictures_beyond_the_memory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"cat": 6, "dog": 6})
    with pytest.raises(DataError, match=r"12 pictures of 4096 pixels take 0.562 GiB, more than memory_gib=0.1; lower resolution"):
        prepare(tmp_path, resolution=4096, memory_gib=0.1)
