"""What a supernet costs beside the networks in it: training steps, potentials, memory.

    OMP_NUM_THREADS=1 python benchmarks/supernet.py [--spaces pcnas_s_28 pcnas_l_28 betanas_28] [--width 0.5] [--rounds 9]

Steps: one step of `SupernetTraining` along a path, beside one step of a bare torch loop (Nesterov SGD, the same batch and memory format) on the network that
`Supernet.cut` gives for the path. Potentials: `SupernetEvaluator.accuracy` of a path on one mini-batch, beside plain inference of the same network in
evaluation mode. Both sides take turns in an order that alternates, and CPU seconds are counted, so that other load meets both; medians over random paths,
with the quartiles of the ratio. Memory: resident bytes that one more operator in every layer adds to a process which has trained all of them, beside the
bytes of their weights and momentum. Images are random: nothing is learnt here. Prints markdown tables.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from kfnas.nn import Network, Supernet, build_supernet, recalibrate
from kfnas.oneshot import Batch, SupernetConfig, SupernetEvaluator, SupernetTraining, TensorBatches
from kfnas.space import MixopSpace, NetworkArguments, load_space
from kfnas.space.mixop_operators import PC_NAS_LARGE
from kfnas.space.mixop_skeletons import small_skeleton

RESOLUTION, CLASSES, NUM_IMAGES = 28, 10, 512
NUM_OPERATORS = (2, 6, 12, 20)
"""Operators a layer of the supernets whose memory is compared: those of the large space, the one with the largest activations first."""


LARGEST = "MBConv_6_7"
MEMORY_BATCH = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="*", default=["pcnas_s_28", "pcnas_l_28", "betanas_28"])
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--memory-width", type=float, default=1.5, help="wide enough that weights outweigh what the allocator keeps")
    parser.add_argument("--rounds", type=int, default=9, help="random paths of each space")
    parser.add_argument("--steps", type=int, default=6, help="steps on each path and side, one after another")
    parser.add_argument("--memory-of", type=int, metavar="N", help="print what a supernet of N operators a layer takes, and end")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory_of is not None:
        print(*memory_of(given.memory_of, given.memory_width))
        return
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread; width {given.width:g}, batch {given.batch}, {given.rounds} paths\n"
    )
    print("| space | steps/s supernet | alone | ratio (quartiles) | potentials/s supernet | plain inference | ratio (quartiles) |")
    print("|---|---|---|---|---|---|---|")
    for name in given.spaces:
        space = load_space(name)
        assert isinstance(space, MixopSpace)
        trained, scored = turns(space, given.width, given.batch, given.rounds, given.steps)
        print(f"| {name} | {columns(trained)} | {columns(scored)} |", flush=True)
    print(f"\nWidth {given.memory_width:g}, batch {MEMORY_BATCH}.\n")
    print("| operators a layer | MB of weights and momentum | resident MB after training all | MB more than the row above, a MB of weights and momentum |")
    print("|---|---|---|---|")
    before: tuple[float, float] | None = None
    for count in NUM_OPERATORS:
        command = [sys.executable, __file__, "--memory-of", str(count), "--memory-width", str(given.memory_width)]
        weights, resident = map(float, subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout.split())
        more = f"{(resident - before[1]) / (weights - before[0]):.2f}" if before is not None else "-"
        print(f"| {count} | {weights:.1f} | {resident:.1f} | {more} |", flush=True)
        before = (weights, resident)


def turns(space: MixopSpace, width: float, batch: int, rounds: int, steps: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """CPU seconds of one training step, and of one mini-batch's accuracy, on the supernet and alone, for each of some random paths."""
    rng, supernet = np.random.default_rng(0), supernet_of(space, width)
    images, targets = data()
    training = training_of(supernet, batch, num_steps=rounds * (steps + 1))
    validation = [Batch(images[:batch].contiguous(memory_format=torch.channels_last), targets[:batch])]
    evaluator = SupernetEvaluator(supernet, validation)
    trained, scored = [], []
    for number in range(rounds):
        path = space.random(rng).tokens
        network = supernet.cut(space.architecture(path), recalibrate(supernet, space.architecture(path), [validation[0].images]))
        network = network.to(memory_format=torch.channels_last)
        bare = BareLoop(network, validation[0])
        trained.append(in_turn(lambda path=path: training.step(lambda _: path), bare.step, steps, first=number % 2))
        scored.append(in_turn(lambda path=path: evaluator.accuracy(path, 0), bare.accuracy, steps, first=number % 2))
    return trained, scored


class BareLoop:
    """What one would write by hand to train and to test one network."""

    def __init__(self, network: Network, batch: Batch) -> None:
        self._network, self._batch = network, batch
        self._optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def step(self) -> None:
        """One step on the batch."""
        self._network.train()
        loss = F.cross_entropy(self._network(self._batch.images), self._batch.targets)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        loss.item()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Of the batch, in evaluation mode."""
        self._network.eval()
        return float((self._network(self._batch.images).argmax(dim=1) == self._batch.targets).double().mean())


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], steps: int, *, first: int) -> tuple[float, float]:
    """Median CPU seconds of one call of either, called in turn, after one of each that does not count."""
    taken: tuple[list[float], list[float]] = ([], [])
    for step in range(steps + 1):
        for side in ((0, 1), (1, 0))[(first + step) % 2]:
            started = time.process_time()
            (ours, theirs)[side]()
            if step:
                taken[side].append(time.process_time() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])


def columns(pairs: list[tuple[float, float]]) -> str:
    """Calls a CPU second of either side, and the ratio."""
    ratios = [theirs / ours for ours, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    per_second = [statistics.median(1 / seconds for seconds in side) for side in zip(*pairs, strict=True)]
    return f"{per_second[0]:.1f} | {per_second[1]:.1f} | {middle:.2f} ({low:.2f}-{high:.2f})"


def memory_of(num_operators: int, width: float) -> tuple[float, float]:
    """Megabytes of weights and momentum, and the highest resident megabytes, of a process that trains every operator of every layer once."""
    operators = sorted(PC_NAS_LARGE, key=lambda operator: operator.name != LARGEST)[:num_operators]
    space = MixopSpace("memory", small_skeleton(), operators, reference=LARGEST)
    supernet = supernet_of(space, width)
    training = training_of(supernet, MEMORY_BATCH, num_steps=num_operators)
    for choice in range(num_operators):
        training.step(lambda _, choice=choice: tuple(min(choice, count - 1) for count in space.num_choices))  # type: ignore[misc]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in supernet.parameters())
    return 2 * weights / 1e6, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def supernet_of(space: MixopSpace, width: float) -> Supernet:
    """With random weights, laid out as a search lays it out."""
    arguments = NetworkArguments(width=width, resolution=RESOLUTION, in_channels=1, num_outputs=CLASSES)
    return build_supernet(space, arguments, torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def training_of(supernet: Supernet, batch: int, num_steps: int) -> SupernetTraining:
    """A training of the paper's recipe on random images, already normalised."""
    images, targets = data()
    batches = TensorBatches(images, targets, batch_size=batch, num_parts=1, seed=0)
    return SupernetTraining(supernet, batches, F.cross_entropy, SupernetConfig(), num_steps=num_steps, seed=0)


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [512, 1, 28, 28] and classes [512]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_IMAGES, 1, RESOLUTION, RESOLUTION, generator=generator), torch.randint(0, CLASSES, (NUM_IMAGES,), generator=generator)


if __name__ == "__main__":
    main()
