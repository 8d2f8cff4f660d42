"""A data set's files by name alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from kfnas.config import parse
from kfnas.errors import DataError
from kfnas.train import Classification, ClassificationConfig, NetworkInputs
from kfnas.train.files import picture_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures at several depths, in capitals, behind a link, beside other files; one class has none."""
    elsewhere = tmp_path / "elsewhere"
    for path in ("b/2.png", "b/deep/1.JPG", "b/10.png", "a/x.webp", "a/notes.txt", "a/y.tiff", "none/readme.md"):
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / path).touch()
    elsewhere.mkdir()
    (elsewhere / "z.png").touch()
    (tmp_path / "set" / "b" / "linked").symlink_to(elsewhere)
    return tmp_path / "set"


def test_pictures_are_those_of_torchvision_in_its_order(folder: Path) -> None:
    train, test, classes = picture_folder(folder)
    listing = ImageFolder(str(folder), allow_empty=True)
    assert [(str(path), label) for path, label in zip(train.paths, train.labels, strict=True)] == listing.samples
    assert len(train.paths) == 6
    assert test is None
    assert classes == listing.classes == ["a", "b", "none"]


@pytest.mark.parametrize(
    ("fields", "inputs"),
    [
        ({"source": "digits"}, NetworkInputs(1, 28, 10)),
        ({"source": "fashion-mnist", "resolution": 32}, NetworkInputs(1, 32, 10)),
        ({"source": "set", "resolution": 64}, NetworkInputs(3, 64, 3)),
        ({"source": "set", "resolution": 64, "channels": 1}, NetworkInputs(1, 64, 3)),
        ({"source": "set"}, None),
    ],
)
def test_a_check_knows_what_networks_will_take_in_where_the_names_tell(fields, inputs, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert Classification().check(parse(ClassificationConfig, fields)) == inputs


def test_a_check_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Classification().check(ClassificationConfig(source=str(tmp_path / "gone")))
    with pytest.raises(DataError, match=r"Fashion-MNIST is not in .*gone; "):
        Classification().check(ClassificationConfig(data_dir=tmp_path / "gone"))


def test_a_check_imports_neither_torch_nor_torchvision(folder: Path) -> None:
    program = (
        "import sys\nfrom kfnas.train import Classification, ClassificationConfig\n"
        f"Classification().check(ClassificationConfig(source={str(folder)!r}, resolution=64))\n"
        "assert not {'torch', 'torchvision', 'PIL'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
