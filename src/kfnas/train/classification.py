"""Image classification: the first task. Importing it does not import torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from kfnas.config import Config
from kfnas.errors import DataError
from kfnas.train.files import ANIMAL_SHAPES_FILES, DEBIAN_FASHION_MNIST, idx_folder, no_animal_shapes, no_fashion_mnist, picture_folder
from kfnas.train.task import ImageTask, NetworkInputs

if TYPE_CHECKING:
    import torch

    from kfnas.train.data import PreparedData
    from kfnas.train.sources import Source

_MIN_IMAGES_OF_A_CLASS = 2
_CROP_PADDING = {"fashion-mnist": 2, "digits": 1, "animal-shapes": 2}
"""Of the sources that have a name, each of which is used at 28 pixels a side unless told otherwise, and has ten classes."""


class ClassificationConfig(Config):
    """Data set, split and augmentation. What is None is chosen by the source."""

    source: str = Field(
        "fashion-mnist", min_length=1, description="fashion-mnist, digits, animal-shapes, or the path of a folder with one subfolder of pictures a class"
    )
    data_dir: Path | None = Field(None, description="folder of the IDX files of fashion-mnist or animal-shapes, where it is none of the usual ones")
    resolution: int | None = Field(
        None, ge=8, le=4096, description="pixels a side; None: 28, for folders the median of the pictures' shorter sides (at most 224)"
    )
    channels: Literal[1, 3] | None = Field(None, description="1 (grey) or 3 (colour), for folders; None: 3")
    num_train: int | None = Field(None, ge=2, description="images of mini-train, which trains children; None: all that mini-val leaves")
    num_val: int | None = Field(None, ge=1, description="images of mini-val, which scores children; None: a tenth of the training set")
    limit: int | None = Field(None, ge=4, description="images of the whole training set, retraining included; None: all")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share that becomes the test set, where the source has none of its own")
    crop_padding: int | None = Field(
        None,
        ge=0,
        le=64,
        description="pixels by which images are moved at random; None: 1 for digits, 2 for the other named sources, resolution / 8 for folders",
    )
    flip: bool | None = Field(None, description="whether images are mirrored at random; None: not for digits")
    memory_gib: float = Field(8.0, gt=0, description="memory that a folder's images may take")


class Classification(ImageTask):
    """One class an image; cross-entropy; top-1 and top-5 accuracy as fractions."""

    name = "classification"
    metric = "top1"
    higher_is_better = True
    config_type: type[Config] = ClassificationConfig

    def check(self, config: ClassificationConfig) -> NetworkInputs | None:
        """What the names of the source's files tell: DataError where it cannot be what it must, else the networks' inputs, as far as they can be known."""
        if config.data_dir is not None and config.source == "fashion-mnist" and idx_folder([config.data_dir]) is None:
            raise no_fashion_mnist([config.data_dir])
        if config.data_dir is not None and config.source == "animal-shapes" and idx_folder([config.data_dir], ANIMAL_SHAPES_FILES) is None:
            raise no_animal_shapes([config.data_dir])
        if config.source in _CROP_PADDING:
            return NetworkInputs(1, config.resolution or 28, 10)
        _, _, classes = picture_folder(Path(config.source).expanduser())
        return None if config.resolution is None else NetworkInputs(config.channels or 3, config.resolution, len(classes))

    def prepare(self, config: ClassificationConfig, *, seed: int, cache_dir: Path | None = None) -> PreparedData:
        """Read the source, check it, split its training set by class."""
        from kfnas.train.data import image_data

        source = _limited(_read(config, seed, cache_dir), config.limit, seed)
        _check_classes(source, config.source)
        resolution = int(source.train_images.shape[-1])
        padding = _CROP_PADDING.get(config.source, resolution // 8)
        meta = {
            "task": self.name,
            "source": config.source if config.source in _CROP_PADDING else "folder",
            "classes": list(source.classes),
            "augmentation": {
                "crop_padding": padding if config.crop_padding is None else config.crop_padding,
                "flip": config.source != "digits" if config.flip is None else config.flip,
            },
        }
        data = image_data(
            source.train_images,
            source.train_labels,
            source.test_images,
            source.test_labels,
            seed=seed,
            meta=meta,
            num_train=config.num_train,
            num_val=config.num_val,
            strata=source.train_labels,
        )
        if missing := set(range(len(source.classes))) - set(data.split("mini_train").targets.tolist()):
            name = source.classes[min(missing)]
            raise DataError(f"{config.source}: mini-train of {len(data.split('mini_train'))} images has none of class {name}; raise num_train")
        return data

    def network_inputs(self, meta: Mapping[str, Any]) -> NetworkInputs:
        """One output a class."""
        return NetworkInputs(meta["in_channels"], meta["resolution"], len(meta["classes"]))

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, *, head: torch.nn.Module | None, label_smoothing: float) -> torch.Tensor:
        """Mean cross-entropy of logits [N, classes] and class indices [N]."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def evaluate(self, outputs: torch.Tensor, targets: torch.Tensor, meta: Mapping[str, Any]) -> dict[str, float]:
        """`top1` and `top5` (with fewer than five classes: the truth is among all of them) in [0, 1], `loss` the mean cross-entropy."""
        from torch.nn import functional as F

        ranked = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
        hits = ranked == targets[:, None]
        loss = F.cross_entropy(outputs.double(), targets)
        return {"top1": float(hits[:, 0].double().mean()), "top5": float(hits.any(dim=1).double().mean()), "loss": float(loss)}


def default_cache_dir() -> Path:
    """Where downloads are kept unless a caller says otherwise: `~/.cache/kfnas`.

    The library reads no environment variable: who honours XDG_CACHE_HOME passes `cache_dir`.
    """
    return Path.home() / ".cache" / "kfnas"


def _read(config: ClassificationConfig, seed: int, cache_dir: Path | None) -> Source:
    from kfnas.train import sources

    if config.source == "fashion-mnist":
        cache = (default_cache_dir() if cache_dir is None else cache_dir) / config.source
        if config.data_dir is not None:
            found = sources.fashion_mnist([config.data_dir], download=None)
        else:
            folders = [DEBIAN_FASHION_MNIST, cache, cache / "FashionMNIST" / "raw"]
            found = sources.fashion_mnist(folders, download=lambda: sources.torchvision_download(cache))
    elif config.source == "digits":
        found = sources.digits(seed=seed, test_fraction=config.test_fraction)
    elif config.source == "animal-shapes":
        folder = (default_cache_dir() if cache_dir is None else cache_dir) / config.source if config.data_dir is None else config.data_dir
        found = sources.animal_shapes([folder], seed=seed, test_fraction=config.test_fraction)
    else:
        return sources.image_folder(
            Path(config.source).expanduser(),
            resolution=config.resolution,
            channels=config.channels or 3,
            limit=config.limit,
            memory_gib=config.memory_gib,
            seed=seed,
            test_fraction=config.test_fraction,
        )
    resolution = config.resolution or 28
    return sources.Source(
        sources.resized(found.train_images, resolution), found.train_labels, sources.resized(found.test_images, resolution), found.test_labels, found.classes
    )


def _limited(source: Source, limit: int | None, seed: int) -> Source:
    """A seeded stratified part of the training set."""
    if limit is None or limit >= len(source.train_labels):
        return source
    import dataclasses

    import numpy as np

    from kfnas.train.data import stratified_split

    kept, _ = stratified_split(source.train_labels.numpy(), [limit], np.random.default_rng([seed, 2]))
    return dataclasses.replace(source, train_images=source.train_images[kept], train_labels=source.train_labels[kept])


def _check_classes(source: Source, name: str) -> None:
    counts = Counter(source.train_labels.tolist())
    for label, class_name in enumerate(source.classes):
        if counts[label] < _MIN_IMAGES_OF_A_CLASS:
            raise DataError(
                f"{name}: class {class_name} has {counts[label]} training images; "
                f"it needs {_MIN_IMAGES_OF_A_CLASS} or more: add pictures, raise limit or remove the class"
            )
