"""A retraining in a process of its own, to be killed: `python retrain_angle.py FOLDER` goes on from the folder's checkpoint and says each step it saves."""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
from angle_task import AngleConfig, AngleTask

from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkSpec
from kfnas.train import FileCheckpoints, RetrainConfig, retrain


def _say(done: int, total: int, loss: float | None) -> None:
    sys.stdout.write(f"{done}\n")
    sys.stdout.flush()


def run(folder: Path) -> None:
    task = AngleTask()
    layer = LayerSpec("stem", (ConvSpec("op", 1, 8, (3, 3), 2, activation="relu6"),), 1, 8, 2, 16, 8)
    spec = NetworkSpec(1, 16, (layer,), (LinearSpec(8, 2),), 0.1)
    recipe = RetrainConfig(steps=200, batch_size=64, checkpoint_steps=5)
    outcome = retrain(spec, task.prepare(AngleConfig(), seed=0), task, recipe, 3, FileCheckpoints(folder / "checkpoint"), _say)
    assert outcome.weights is not None
    safetensors.torch.save_file(dict(outcome.weights), folder / "weights.safetensors")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
