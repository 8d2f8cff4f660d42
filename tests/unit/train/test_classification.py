"""The classification task's own maths."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

from kfnas.errors import PluginError, UserError
from kfnas.train import Classification, PreparedData, load_task, oriented


def test_metrics_have_the_worked_values() -> None:
    outputs = torch.zeros(4, 10)
    targets = torch.tensor([0, 1, 2, 3])
    outputs[0, 0] = outputs[1, 1] = 5.0
    outputs[2] = torch.arange(10, 0, -1).float()
    outputs[3] = torch.arange(10).float()
    metrics = Classification().evaluate(outputs, targets, {})
    assert metrics["top1"] == 0.5
    assert metrics["top5"] == 0.75
    assert metrics["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, targets)), rel=1e-6)


def test_top5_with_few_classes_counts_all_of_them() -> None:
    metrics = Classification().evaluate(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]), {})
    assert (metrics["top1"], metrics["top5"]) == (0.5, 1.0)


def test_label_smoothing_spreads_the_target_over_all_classes() -> None:
    outputs, targets = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    log_probs = torch.log_softmax(outputs, 1)[0].tolist()
    loss = Classification().loss(outputs, targets, head=None, label_smoothing=0.2)
    assert float(loss) == pytest.approx(-(0.9 * log_probs[0] + 0.1 * log_probs[1]))


def test_a_batch_is_augmented_only_with_a_generator(data: PreparedData) -> None:
    split = data.splits["mini_train"]
    task = Classification()
    plain, _ = task.make_batch(split.images[:8], split.targets[:8], data.meta, None)
    moved, targets = task.make_batch(split.images[:8], split.targets[:8], data.meta, torch.Generator().manual_seed(0))
    assert plain.dtype == moved.dtype == torch.float32
    assert not torch.equal(plain, moved)
    assert torch.equal(targets, split.targets[:8])
    assert float(task.make_batch(split.images, split.targets, data.meta, None)[0].mean()) == pytest.approx(0, abs=0.1)


def test_the_task_is_known_by_name_and_picklable() -> None:
    assert pickle.loads(pickle.dumps(load_task("classification"))).name == "classification"
    with pytest.raises(PluginError, match="'flying' is not installed"):
        load_task("flying")


def test_a_metric_where_lower_is_better_becomes_a_fraction_to_maximise() -> None:
    task = Classification()
    assert oriented(task, {"top1": 0.25}) == 0.25
    task.higher_is_better = False
    assert [oriented(task, {"top1": value}) for value in (0.0, 0.25, 3.0)] == [1.0, 0.8, 0.25]
    assert all(math.isnan(oriented(task, {"top1": value})) for value in (math.nan, math.inf))
    with pytest.raises(UserError, match=r"top1 is -0.1, and a metric of which less is better must be 0 or more"):
        oriented(task, {"top1": -0.1})
