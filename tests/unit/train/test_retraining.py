"""Retraining: averaging, checkpoints, a real kill, and the final evaluation."""

from __future__ import annotations

import functools
import hashlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kfnas.errors import ConfigMismatch, DataError, SpaceError
from kfnas.nn import build_network
from kfnas.space import NetworkSpec
from kfnas.train import Classification, FileCheckpoints, PreparedData, RetrainConfig, evaluate_final, retrain
from kfnas.train.checkpoint import Checkpoint, pack, unpack
from kfnas.train.retraining import WeightAverage

RECIPE = RetrainConfig(epochs=4, batch_size=32, learning_rate=0.1, mixup_alpha=0.2, checkpoint_steps=7, ema_decay=0.9, max_grad_norm=5.0)


class Stopping:
    """Checkpoints in memory; the n-th save is followed by an error, as if the process had ended there."""

    def __init__(self, stop_after: int) -> None:
        self.data: bytes | None = None
        self.left = stop_after

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def _note(seen: list[tuple[int, int, float | None]], done: int, total: int, loss: float | None) -> None:
    seen.append((done, total, loss))


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    return hashlib.sha256(safetensors.torch.save(dict(weights))).hexdigest()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_going_on_from_a_checkpoint_ends_with_the_same_bits(spec: NetworkSpec, data: PreparedData, optimizer: str) -> None:
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "learning_rate": 0.1 if optimizer == "sgd" else 0.01})
    whole = retrain(spec, data, Classification(), recipe, seed=0)
    assert whole.weights is not None
    assert (whole.status, whole.steps, whole.epochs) == ("ok", 40, 4.0)
    for stop_after in (1, 3, 6):
        checkpoints = Stopping(stop_after)
        with pytest.raises(KeyboardInterrupt):
            retrain(spec, data, Classification(), recipe, 0, checkpoints)
        seen: list[tuple[int, int, float | None]] = []
        resumed = retrain(spec, data, Classification(), recipe, 0, checkpoints, functools.partial(_note, seen))
        assert seen[0][:2] == (min(7 * stop_after, 40), 40)
        assert resumed.weights is not None
        assert digest(resumed.weights) == digest(whole.weights)
        assert resumed.metrics == whole.metrics


def test_a_head_goes_on_from_its_checkpoint_too(outside_package: Path, spec: NetworkSpec, data: PreparedData) -> None:
    from odd_tasks import WithHead

    checkpoints = Stopping(2)
    with pytest.raises(KeyboardInterrupt):
        retrain(spec, data, WithHead(), RECIPE, 0, checkpoints)
    resumed, whole = retrain(spec, data, WithHead(), RECIPE, 0, checkpoints), retrain(spec, data, WithHead(), RECIPE, 0)
    assert resumed.weights is not None
    assert whole.weights is not None
    assert digest(resumed.weights) == digest(whole.weights)


def test_a_killed_retraining_ends_as_an_undisturbed_one(outside_package: Path, tmp_path: Path) -> None:
    import retrain_angle

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, str(outside_package / "retrain_angle.py"), str(tmp_path)], stdout=subprocess.PIPE, text=True)

    killed = start()
    assert killed.stdout is not None
    assert [int(killed.stdout.readline()) for _ in range(4)] == [0, 5, 10, 15]
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "weights.safetensors").exists()
    resumed = start()
    steps = [int(line) for line in resumed.communicate()[0].split()]
    assert resumed.returncode == 0
    assert 15 <= steps[0] < steps[-1] == 200
    (tmp_path / "undisturbed").mkdir()
    retrain_angle.run(tmp_path / "undisturbed")
    assert (tmp_path / "weights.safetensors").read_bytes() == (tmp_path / "undisturbed" / "weights.safetensors").read_bytes()


def test_a_checkpoint_of_another_retraining_is_refused(spec: NetworkSpec, data: PreparedData, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": None, "steps": 3})
    retrain(spec, data, Classification(), recipe, 0, FileCheckpoints(tmp_path / "c"))
    for other_recipe, seed in ((recipe, 1), (recipe.model_copy(update={"learning_rate": 0.2}), 0)):
        with pytest.raises(ConfigMismatch, match="belongs to another retraining"):
            retrain(spec, data, Classification(), other_recipe, seed, FileCheckpoints(tmp_path / "c"))
    retrain(spec, data, Classification(), recipe.model_copy(update={"checkpoint_steps": 1}), 0, FileCheckpoints(tmp_path / "c"))


def test_a_damaged_checkpoint_is_not_loaded_and_training_starts_again(
    spec: NetworkSpec, data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = RECIPE.model_copy(update={"epochs": None, "steps": 3})
    first = retrain(spec, data, Classification(), recipe, 0, FileCheckpoints(tmp_path / "c"))
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-9])
    again = retrain(spec, data, Classification(), recipe, 0, FileCheckpoints(tmp_path / "c"))
    assert "a checkpoint cannot be used" in caplog.text
    assert first.weights is not None
    assert again.weights is not None
    assert digest(first.weights) == digest(again.weights)


def test_a_checkpoint_keeps_header_and_tensors() -> None:
    checkpoint = Checkpoint({"step": 3, "loss": 0.25}, {"a/b": torch.arange(3), "c": torch.eye(2)})
    again = unpack(pack(checkpoint))
    assert again is not None
    assert again.header == {"step": 3, "loss": 0.25, "format": 1}
    assert {name: tensor.tolist() for name, tensor in again.tensors.items()} == {"a/b": [0, 1, 2], "c": [[1.0, 0.0], [0.0, 1.0]]}
    assert unpack(b"") is None
    assert unpack(safetensors.torch.save({"a": torch.zeros(1)})) is None


def test_the_average_follows_its_formula_and_takes_in_buffers(spec: NetworkSpec) -> None:
    network = build_network(spec)
    average = WeightAverage(network, decay=0.15)
    bias, mean, count = "classifier.0.bias", "stem.op.bn.running_mean", "stem.op.bn.num_batches_tracked"
    for step, value in enumerate((1.0, 2.0)):
        with torch.no_grad():
            network.get_parameter(bias).fill_(value)
            network.get_buffer(mean).fill_(-value)
            network.get_buffer(count).fill_(step + 1)
        average.update(step)
    expected = 0.15 * 0.9 + 0.85 * 2.0
    state = average.state()
    torch.testing.assert_close(state[bias], torch.full((4,), expected))
    torch.testing.assert_close(state[mean], torch.full((8,), -expected))
    assert state[count] == 2


def test_without_averaging_the_last_weights_are_the_result(spec: NetworkSpec, data: PreparedData) -> None:
    plain = retrain(spec, data, Classification(), RECIPE.model_copy(update={"ema_decay": 0.0}), seed=0)
    averaged = retrain(spec, data, Classification(), RECIPE, seed=0)
    assert plain.weights is not None
    assert averaged.weights is not None
    assert digest(plain.weights) != digest(averaged.weights)
    assert plain.metrics == averaged.metrics


def test_a_retrained_network_is_scored_on_the_test_set(spec: NetworkSpec, data: PreparedData, tmp_path: Path) -> None:
    data.to_files(tmp_path)
    training_only = PreparedData.from_files(tmp_path, {"mini_train", "mini_val", "rest"})
    outcome = retrain(spec, training_only, Classification(), RECIPE.model_copy(update={"epochs": 10.0}), seed=0)
    assert outcome.weights is not None
    metrics = evaluate_final(outcome.weights, spec, PreparedData.from_files(tmp_path, {"test"}), Classification())
    assert set(metrics) == {"top1", "top5", "loss"}
    assert metrics["top1"] > 0.85
    with pytest.raises(DataError, match="'test'"):
        evaluate_final(outcome.weights, spec, training_only, Classification())
    with pytest.raises(SpaceError, match="weights do not fit the network"):
        evaluate_final({}, spec, data, Classification())


def test_divergence_is_a_failed_retraining(spec: NetworkSpec, data: PreparedData) -> None:
    outcome = retrain(spec, data, Classification(), RetrainConfig(epochs=6, batch_size=32, learning_rate=1e9, warmup=0), seed=0)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith("diverged: ")
    assert outcome.weights is None
