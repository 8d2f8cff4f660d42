"""Animal shapes: what the set-up script takes out of a wheel of pickles, what it refuses to run, and what is read of the files that it leaves."""

from __future__ import annotations

import gzip
import importlib.util
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kfnas.errors import DataError
from kfnas.train import Classification, ClassificationConfig, NetworkInputs

SCRIPT = Path(__file__).parents[3] / "scripts" / "convert_animal_shapes.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert_animal_shapes", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arrays(num: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Images as different as they are many, and labels of ten classes in equal numbers."""
    return np.random.default_rng(0).integers(0, 256, (num, 28, 28), dtype=np.uint8), np.repeat(np.arange(10), num // 10)


def wheel(path: Path, images: bytes, labels: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("animal_shape_mnist/data/Animal Shape/animal_data_version_3.gz", gzip.compress(images))
        archive.writestr("animal_shape_mnist/data/Animal Shape/animal_label_version_3.gz", gzip.compress(labels))
    return path


class Malicious:
    """What a pickle can do: run any function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_a_wheel_of_pickled_arrays_becomes_idx_files_that_the_source_reads(script: ModuleType, tmp_path: Path) -> None:
    images, labels = arrays()
    script.convert(wheel(tmp_path / "w.whl", pickle.dumps(images, 4), pickle.dumps(labels, 4)), tmp_path / "idx")
    data = Classification().prepare(ClassificationConfig(source="animal-shapes", data_dir=tmp_path / "idx"), seed=0)
    assert {name: len(split) for name, split in data.splits.items()} == {"mini_train": 144, "mini_val": 16, "test": 40}
    together = torch.cat([split.images[:, 0] for split in data.splits.values()]).numpy()
    assert {image.tobytes() for image in together} == {image.tobytes() for image in images}
    kept = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    for split in data.splits.values():
        assert [kept[image.tobytes()] for image in split.images[:, 0].numpy()] == split.targets.tolist()
    assert np.bincount(data.splits["test"].targets).tolist() == [4] * 10
    assert data.meta["classes"][:3] == ["bear", "bird", "cat"]
    assert data.meta["source"] == "animal-shapes"
    assert data.meta["augmentation"] == {"crop_padding": 2, "flip": True}


def test_nothing_of_a_malicious_pickle_is_run(script: ModuleType, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    attacks = [
        Malicious(os.mkdir, str(trace)),
        Malicious(eval, f"__import__('os').mkdir({str(trace)!r})"),
        Malicious(np.load, str(trace)),
        [arrays(10)[0], Malicious(os.mkdir, str(trace))],
    ]
    for attack in attacks:
        content = pickle.dumps(attack, 4)
        with pytest.raises(script.RefusedError, match=r"names \w+\.\w+, which no plain array needs"):
            script.read_array(content)
        assert script.main([str(wheel(tmp_path / "w.whl", content, content)), str(tmp_path / "idx")]) == 1
        assert not (tmp_path / "idx").exists()
        assert not trace.exists()
    pickle.loads(pickle.dumps(attacks[0], 4))
    assert trace.is_dir(), "the attack is none: it would do nothing where it is run"


@pytest.mark.parametrize(
    "other",
    [
        {"images": 1},
        np.array([{"an": "object"}]),
        np.zeros((4, 28, 28), np.float32),
        np.asfortranarray(np.zeros((4, 28, 28), np.uint8)),
        np.zeros(4, ">i8"),
    ],
    ids=["dict", "objects", "floats", "columns first", "big-endian"],
)
def test_what_is_no_plain_array_is_refused(script: ModuleType, other: object) -> None:
    with pytest.raises(script.RefusedError, match="not a plain array"):
        script.read_array(pickle.dumps(other, 4))


def test_damaged_and_unfit_contents_are_refused(script: ModuleType, tmp_path: Path) -> None:
    images, labels = arrays(20)
    plain = [script.read_array(pickle.dumps(array, 4)) for array in (images, labels)]
    for content in (b"", b"hello", pickle.dumps(images, 4)[:500]):
        with pytest.raises(script.RefusedError, match="not a pickled array"):
            script.read_array(content)
    with pytest.raises(script.RefusedError, match="images are i8"):
        script.idx(plain[1], plain[1])
    with pytest.raises(script.RefusedError, match="labels are i8"):
        script.idx(plain[0], script.read_array(pickle.dumps(labels[:5], 4)))
    with pytest.raises(script.RefusedError, match="labels are not all 0 to 9"):
        script.idx(plain[0], script.read_array(pickle.dumps(labels + 1, 4)))
    (tmp_path / "w.whl").write_bytes(b"no wheel")
    with pytest.raises(script.RefusedError, match="cannot be unpacked"):
        script.convert(tmp_path / "w.whl", tmp_path / "idx")


def test_a_picture_that_occurs_twice_is_never_in_training_and_test_set(script: ModuleType, tmp_path: Path) -> None:
    images, labels = arrays(400)
    images[10:400:40] = images[:400:40]
    script.convert(wheel(tmp_path / "w.whl", pickle.dumps(images, 4), pickle.dumps(labels, 4)), tmp_path / "idx")
    data = Classification().prepare(ClassificationConfig(source="animal-shapes", data_dir=tmp_path / "idx", resolution=14), seed=3)
    assert sum(len(split) for split in data.splits.values()) == 390
    assert data.meta["resolution"] == 14


def test_animal_shapes_that_are_not_there_are_explained(tmp_path: Path) -> None:
    here = r"animal shapes are not in .*; run scripts/fetch_animal_shapes.sh, or set data_dir"
    with pytest.raises(DataError, match=here):
        Classification().check(ClassificationConfig(source="animal-shapes", data_dir=tmp_path))
    with pytest.raises(DataError, match=here):
        Classification().prepare(ClassificationConfig(source="animal-shapes"), seed=0, cache_dir=tmp_path)
    assert Classification().check(ClassificationConfig(source="animal-shapes")) == NetworkInputs(1, 28, 10)


def test_real_animal_shapes_where_they_were_fetched() -> None:
    try:
        data = Classification().prepare(ClassificationConfig(source="animal-shapes"), seed=0)
    except DataError:
        pytest.skip("animal shapes were not fetched: scripts/fetch_animal_shapes.sh")
    assert {name: len(split) for name, split in data.splits.items()} == {"mini_train": 6996, "mini_val": 777, "test": 1943}
    assert np.bincount(data.splits["test"].targets).min() >= 160
