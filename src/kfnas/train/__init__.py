"""Data sets, tasks, and the loops that train networks: children on the proxy, finalists from scratch.

Names are imported when first used, so that recipes and the classification task's configuration can be read without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfnas.train.augment import crop_and_flip, mixup, normalise
    from kfnas.train.checkpoint import Checkpoints, FileCheckpoints
    from kfnas.train.classification import Classification, ClassificationConfig, default_cache_dir
    from kfnas.train.data import TRAINING_SPLITS, PreparedData, Split, image_data, read_index, stratified_split
    from kfnas.train.proxy import ChildOutcome, train_child
    from kfnas.train.recipes import TRAINING_CODE_VERSION, ProxyConfig, RetrainConfig, TrainingConfig
    from kfnas.train.retraining import RetrainOutcome, evaluate_final, retrain
    from kfnas.train.shard import CHILD_SPLITS, ChildJob, train_shard
    from kfnas.train.task import ImageTask, NetworkInputs, Task, load_task, oriented

_MODULES = {
    "augment": ("crop_and_flip", "mixup", "normalise"),
    "checkpoint": ("Checkpoints", "FileCheckpoints"),
    "classification": ("Classification", "ClassificationConfig", "default_cache_dir"),
    "data": ("TRAINING_SPLITS", "PreparedData", "Split", "image_data", "read_index", "stratified_split"),
    "proxy": ("ChildOutcome", "train_child"),
    "recipes": ("TRAINING_CODE_VERSION", "ProxyConfig", "RetrainConfig", "TrainingConfig"),
    "retraining": ("RetrainOutcome", "evaluate_final", "retrain"),
    "shard": ("CHILD_SPLITS", "ChildJob", "train_shard"),
    "task": ("ImageTask", "NetworkInputs", "Task", "load_task", "oriented"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "CHILD_SPLITS",
    "TRAINING_CODE_VERSION",
    "TRAINING_SPLITS",
    "Checkpoints",
    "ChildJob",
    "ChildOutcome",
    "Classification",
    "ClassificationConfig",
    "FileCheckpoints",
    "ImageTask",
    "NetworkInputs",
    "PreparedData",
    "ProxyConfig",
    "RetrainConfig",
    "RetrainOutcome",
    "Split",
    "Task",
    "TrainingConfig",
    "crop_and_flip",
    "default_cache_dir",
    "evaluate_final",
    "image_data",
    "load_task",
    "mixup",
    "normalise",
    "oriented",
    "read_index",
    "retrain",
    "stratified_split",
    "train_child",
    "train_shard",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
