from __future__ import annotations

import contextlib
import math
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kfnas.errors import ConfigError, ConfigMismatch, CorruptError, DataError
from kfnas.nn import Supernet, build_supernet, recalibrate
from kfnas.oneshot import pc_nas
from kfnas.oneshot.alternation import run as run_beta_nas
from kfnas.oneshot.batches import TensorBatches, fixed_batches
from kfnas.oneshot.beta_nas import BetaNAS, BetaNASConfig
from kfnas.oneshot.evaluation import SupernetEvaluator
from kfnas.oneshot.gates import SupernetGates
from kfnas.oneshot.paths import Path, Sampler
from kfnas.oneshot.pc_nas import PCNASConfig, PCNASState
from kfnas.oneshot.ranks import OneRank
from kfnas.oneshot.recipe import SupernetConfig, learning_rate
from kfnas.oneshot.training import SupernetTraining, load_weights
from kfnas.space import mult_add_costs

Images = Callable[..., tuple[Tensor, Tensor]]
Make = Callable[..., Supernet]


def uniform(net: Supernet) -> Sampler:
    return lambda rng: tuple(rng.integers(0, net.space.num_choices).tolist())


def always(path: Path) -> Sampler:
    return lambda rng: path


def training_of(net: Supernet, data: tuple[Tensor, Tensor], *, num_epochs: int = 4, seed: int = 0, batch_size: int = 16, **changes: Any) -> SupernetTraining:
    ranks, autocast = changes.pop("ranks", None), changes.pop("autocast", contextlib.nullcontext)
    config = SupernetConfig.model_validate(changes)
    batches = TensorBatches(*data, batch_size=batch_size, num_parts=config.num_parts, seed=seed)
    num_steps = num_epochs * batches.steps_per_epoch
    return SupernetTraining(net, batches, F.cross_entropy, config, num_steps=num_steps, seed=seed, ranks=ranks, autocast=autocast)


def copied(net: Supernet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_the_learning_rate_falls_along_a_cosine_to_the_final_one() -> None:
    config = SupernetConfig()
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[50] == pytest.approx((0.1 + 5e-4) / 2)
    assert rates[100] == pytest.approx(5e-4)
    assert rates == sorted(rates, reverse=True)


def test_a_step_is_torchs_nesterov_sgd_along_the_path_and_nothing_else_moves(make_supernet: Make, make_images: Images) -> None:
    data = make_images(64)
    net, reference = make_supernet(), make_supernet()
    training = training_of(net, data)
    path = (1, 0, 1, 1)
    on_path = reference.path_parameters(reference.space.architecture(path))
    groups = [{"params": [p for p in on_path if p.ndim > 1], "weight_decay": 1e-4}, {"params": [p for p in on_path if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    batches = TensorBatches(*data, batch_size=16, num_parts=1, seed=0)
    before = copied(net)
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 16, SupernetConfig())
        images, targets = batches.part(step, 0)
        optimizer.zero_grad()
        loss = F.cross_entropy(reference(images, reference.space.architecture(path)), targets)
        loss.backward()
        optimizer.step()
        done = training.step(always(path))
        assert done.paths == (path,)
        assert done.loss == pytest.approx(loss.item(), rel=1e-6)
    trained = {id(parameter) for parameter in net.path_parameters(net.space.architecture(path))}
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, reference.get_parameter(name), rtol=1e-5, atol=1e-7)
        assert (id(parameter) in trained) != torch.equal(parameter, before[name]), name


def test_an_operator_off_the_path_keeps_its_momentum_for_its_next_turn(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    training = training_of(net, make_images(64))
    training.step(always((1, 1, 1, 1)))
    name = "mixops.0.MBConv_3_3.expand.conv.weight"
    before, momentum = net.get_parameter(name).clone(), training._optimizer.state[net.get_parameter(name)]["momentum_buffer"].clone()
    training.step(always((2, 1, 1, 1)))
    assert torch.equal(net.get_parameter(name), before)
    assert torch.equal(training._optimizer.state[net.get_parameter(name)]["momentum_buffer"], momentum)


def test_memory_grows_with_the_weights_of_operators_that_were_trained_and_their_momentum_only(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    training = training_of(net, make_images(64))
    training.step(always((1, 0, 1, 1)))
    on_path = {id(parameter) for parameter in net.path_parameters(net.space.architecture((1, 0, 1, 1)))}
    assert {id(parameter) for parameter, state in training._optimizer.state.items() if state} == on_path
    assert all(parameter.grad is None for parameter in net.parameters())


def test_parts_accumulate_the_mean_gradient_of_their_paths(make_supernet: Make, make_images: Images) -> None:
    data = make_images(64)
    net, reference = make_supernet(), make_supernet()
    paths = iter([(1, 0, 1, 1), (2, 2, 1, 0)])
    done = training_of(net, data, num_parts=2, momentum=0.0, weight_decay=0.0).step(lambda rng: next(paths))
    batches = TensorBatches(*data, batch_size=16, num_parts=2, seed=0)
    losses = [
        F.cross_entropy(reference(batches.part(0, part).images, reference.space.architecture(path)), batches.part(0, part).targets)
        for part, path in enumerate(done.paths)
    ]
    (sum(losses) / 2).backward()  # type: ignore[union-attr]
    assert done.loss == pytest.approx(sum(losses).item() / 2, rel=1e-6)  # type: ignore[union-attr]
    for name, parameter in net.named_parameters():
        before = reference.get_parameter(name)
        expected = before if before.grad is None else before - 0.1 * before.grad
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)


def test_two_parts_of_a_step_are_different_images(make_images: Images) -> None:
    images, targets = torch.arange(40.0).reshape(40, 1, 1, 1), torch.arange(40)
    batches = TensorBatches(images, targets, batch_size=12, num_parts=3, seed=0)
    assert batches.steps_per_epoch == 3
    epochs = []
    for epoch in range(2):
        seen = torch.cat([batches.part(3 * epoch + step, part).targets for step in range(3) for part in range(3)])
        assert len(seen) == len(set(seen.tolist())) == 36
        epochs.append(seen)
    assert not torch.equal(*epochs)
    assert torch.equal(batches.part(1, 2).targets, epochs[0][20:24]), "a part depends on its step alone"
    with pytest.raises(DataError, match="do not fill a step"):
        TensorBatches(images, targets, batch_size=48, num_parts=3, seed=0)


@pytest.mark.parametrize("stop", [1, 5, 6])
def test_a_training_killed_at_any_step_and_resumed_gives_the_same_bytes(make_supernet: Make, make_images: Images, stop: int) -> None:
    data = make_images(64)
    net = make_supernet(dropout=0.3)
    whole = training_of(net, data, num_parts=2, num_epochs=3)
    whole.train(uniform(net), until=3)
    first, second = make_supernet(dropout=0.3), make_supernet(9, dropout=0.3)
    part = training_of(first, data, num_parts=2, num_epochs=3)
    for _ in range(stop):
        part.step(uniform(first))
    saved = part.save()
    rest = training_of(second, data, num_parts=2, num_epochs=3)
    rest.restore(saved)
    assert rest.save() == saved
    rest.train(uniform(second), until=3)
    assert rest.save() == whole.save()


def test_a_process_that_only_evaluates_takes_the_weights_alone(make_supernet: Make, make_images: Images) -> None:
    data = make_images(32)
    net, other = make_supernet(), make_supernet(5)
    training = training_of(net, data)
    training.step(uniform(net))
    load_weights(other, training.save())
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())
    with pytest.raises(ConfigMismatch, match=r"arguments: .* there"):
        load_weights(build_supernet(net.space, net.arguments.model_copy(update={"width": 2.0})), training.save())


def test_channels_last_weights_survive_a_restore(make_supernet: Make, make_images: Images) -> None:
    data = make_images(32)
    net, second = (make_supernet().to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    whole = training_of(net, data)
    whole.train(uniform(net), until=1)
    saved = whole.save()
    whole.train(uniform(net), until=2)
    rest = training_of(second, data)
    rest.restore(saved)
    assert second.get_parameter("before.stem.conv.conv.weight").is_contiguous(memory_format=torch.channels_last)
    rest.train(uniform(second), until=2)
    assert rest.save() == whole.save()


def test_weights_of_another_training_or_damaged_ones_are_refused(make_supernet: Make, make_images: Images) -> None:
    data = make_images(32)
    saved = training_of(make_supernet(), data).save()
    with pytest.raises(ConfigMismatch, match="seed: 0 there, 1 here"):
        training_of(make_supernet(), data, seed=1).restore(saved)
    with pytest.raises(ConfigMismatch, match="num_steps: 8 there, 10 here"):
        training_of(make_supernet(), data, num_epochs=5).restore(saved)
    with pytest.raises(CorruptError, match="cannot be read"):
        training_of(make_supernet(), data).restore(saved[:-10])


def test_a_head_is_trained_with_every_path_and_saved_with_the_weights(make_supernet: Make, make_images: Images) -> None:
    def start() -> tuple[torch.nn.Linear, SupernetTraining]:
        head = torch.nn.Linear(3, 3)
        for parameter in head.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        batches = TensorBatches(*make_images(32), batch_size=16, num_parts=1, seed=0)

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(head(outputs) * outputs, targets)

        return head, SupernetTraining(make_supernet(), batches, loss, SupernetConfig(), num_steps=4, seed=0, head=head)

    (head, whole), (other, rest) = start(), start()
    whole.step(always((1, 1, 1, 1)))
    assert not torch.equal(head.weight, other.weight)
    rest.restore(whole.save())
    assert torch.equal(head.weight, other.weight)
    whole.step(always((2, 0, 1, 0)))
    rest.step(always((2, 0, 1, 0)))
    assert rest.save() == whole.save()


def test_two_ranks_of_torchrun_give_one_ranks_weights(tmp_path: FilePath) -> None:
    script = FilePath(__file__).with_name("two_ranks.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)]
    interface = "lo" if sys.platform == "linux" else "lo0"
    together = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface}, start_new_session=True)
    try:
        with one_thread():
            alone = runpy.run_path(str(script))["trained"](OneRank())
        assert together.wait(timeout=300) == 0
    finally:
        if together.poll() is None:
            os.killpg(together.pid, signal.SIGKILL)
    first, second = (tmp_path.joinpath(f"rank{rank}").read_bytes() for rank in range(2))
    assert first == second == alone


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As many threads as the ranks have: sums of gradients depend on it in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_ranks_without_a_part_are_refused(make_supernet: Make, make_images: Images) -> None:
    class Two:
        rank, size = 0, 2

        def add(self, tensors: Any) -> None:
            """Alone, in truth."""

    with pytest.raises(ConfigError, match="leave some of 2 ranks idle"):
        training_of(make_supernet(), make_images(32), ranks=Two())


def test_the_forward_pass_runs_in_the_given_precision(make_supernet: Make, make_images: Images) -> None:
    data = make_images(32)
    entered = []

    @contextlib.contextmanager
    def half() -> Iterator[None]:
        entered.append(True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield

    exact, mixed = make_supernet(), make_supernet()
    losses = [training_of(exact, data).step(always((1, 1, 1, 1))).loss, training_of(mixed, data, autocast=half).step(always((1, 1, 1, 1))).loss]
    assert entered == [True]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())


def test_a_diverging_training_stops(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        training_of(net, make_images(32), learning_rate=1e30).train(uniform(net), until=4)


def test_gradients_are_clipped_over_all_parts_together(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    before = copied(net)
    training_of(net, make_images(64), max_grad_norm=0.01, momentum=0.0, weight_decay=0.0, num_parts=2).step(uniform(net))
    moved = math.sqrt(sum(float((tensor - before[name]).square().sum()) for name, tensor in net.state_dict().items()))
    assert moved == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_evaluator_reads_the_accuracy_of_the_path_on_the_mini_batch(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    training_of(net, make_images(128), num_epochs=3).train(uniform(net), until=3)
    images, targets = make_images(64, seed=5)
    validation = fixed_batches(images, targets, 20)
    assert len(validation) == 3
    before = copied(net)
    architecture = net.space.architecture((1, 1, 1, 1))
    calibration = [make_images(32, seed=6)[0]]
    by_batch = SupernetEvaluator(net, validation)
    recalibrated = SupernetEvaluator(net, validation, normalised_by="recalibrated", calibration=calibration)
    with torch.no_grad():
        expected = [float((net(batch.images, architecture).argmax(1) == batch.targets).float().mean()) for batch in validation]
        alone = net.cut(architecture, recalibrate(net, architecture, calibration))
        expected_alone = [float((alone(batch.images).argmax(1) == batch.targets).float().mean()) for batch in validation]
    assert [by_batch.accuracy((1, 1, 1, 1), index) for index in range(4)] == pytest.approx([*expected, expected[0]])
    assert [recalibrated.accuracy((1, 1, 1, 1), index) for index in range(3)] == pytest.approx(expected_alone)
    assert recalibrated.mean_accuracy((1, 1, 1, 1)) == pytest.approx(np.mean(expected_alone))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(ConfigError, match="batches to recalibrate on only"):
        SupernetEvaluator(net, validation, normalised_by="recalibrated")
    with pytest.raises(DataError, match="one or more"):
        SupernetEvaluator(net, [])


class Killed(Exception):
    """The process ends here."""


def test_pc_nas_on_a_supernet_learns_stays_within_the_limit_and_survives_a_kill_in_any_phase(make_supernet: Make, make_images: Images) -> None:
    data, validation = make_images(96), fixed_batches(*make_images(64, seed=5), 32)
    config = PCNASConfig(pool_size=2, num_evaluations=4, warmup_epochs=4, interval_epochs=1, limit=50_000)

    def start() -> tuple[Supernet, SupernetTraining, dict[str, Any]]:
        net = make_supernet()
        training = training_of(net, data, num_epochs=config.num_epochs(4))
        costs = mult_add_costs(net.space.layers(net.arguments))
        return net, training, {"evaluator": SupernetEvaluator(net, validation), "num_choices": net.space.num_choices, "config": config, "cost": costs}

    net, training, rest = start()
    saved: list[tuple[PCNASState, bytes]] = []
    state = pc_nas.run(training, seed=0, after_phase=lambda current: saved.append((current, training.save())), **rest)
    best = pc_nas.result(state, net.space.num_choices)
    costs = rest["cost"]
    assert costs(best) <= 50_000 < costs.range[1]
    assert state.updates[-1][0].value is not None
    assert state.updates[-1][0].value > 0.6, "three classes: chance is a third"
    assert training.num_epochs == 7
    for current, weights in saved[:-1:2]:
        _, again, rest = start()
        again.restore(weights)
        resumed = pc_nas.run(again, seed=0, state=PCNASState.from_json(current.to_json()), **rest)
        assert resumed == state
        assert again.save() == training.save()


def test_beta_nas_on_a_supernet_trains_drops_and_survives_a_kill_at_any_alternation(make_supernet: Make, make_images: Images) -> None:
    data, validation = make_images(96), make_images(64, seed=5)
    config = BetaNASConfig(num_steps=18, learning_rate=0.3, beta=0.5, importance_steps=2, drop_warmup=0.1)

    def start() -> tuple[Supernet, BetaNAS, SupernetTraining, SupernetGates]:
        net = make_supernet()
        search = BetaNAS(net.space.num_choices, config, costs=mult_add_costs(net.space.layers(net.arguments)))
        gates = SupernetGates(net, TensorBatches(*validation, batch_size=32, num_parts=1, seed=1), F.cross_entropy)
        return net, search, training_of(net, data, num_epochs=3), gates

    net, search, training, gates = start()
    saved: list[tuple[bytes, bytes]] = []
    records: list[Any] = []

    def keep(found: list[Any]) -> None:
        records.extend(found)
        saved.append((search.save(), training.save()))

    best = run_beta_nas(search, training, gates, seed=0, after_alternation=keep)
    assert [record.step for record in records] == list(range(1, 37))
    assert sum(len(record.dropped) for record in records) == sum(net.space.num_choices) - search.remaining.sum() > 0
    assert search.counts.sum(axis=1).tolist() == [18] * 4
    assert all(search.remaining[block, choice] for block, choice in enumerate(best))
    assert np.mean([record.loss for record in records[-6:]]) < np.mean([record.loss for record in records[:6]])
    for index in (0, 7, 16):
        _, second, again, gates = start()
        second.restore(saved[index][0])
        again.restore(saved[index][1])
        assert run_beta_nas(second, again, gates, seed=0) == best
        assert (second.save(), again.save()) == saved[-1]
