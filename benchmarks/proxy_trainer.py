"""Images per CPU-second of the proxy trainer beside a bare hand-written torch loop: same child, augmentation, batch, memory format and threads.

    OMP_NUM_THREADS=1 python benchmarks/proxy_trainer.py [--rounds 7] [--steps 40] [--batch 64]

Both sides train the same networks on Fashion-MNIST (`scripts/fetch_fashion_mnist.sh`), interleaved and in an order that alternates, so that other load
on the machine meets both; CPU seconds are counted, not wall-clock. Two children: the reference of `mnas_small` at width 0.25, and a network of four
MBConv blocks (28 x 28 pixels, width 0.5, stem of stride 2). Prints a markdown table of medians, with the quartiles of the ratio between neighbouring runs.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch
from torch.nn import functional as F

from kfnas.nn import build_network
from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkArguments, NetworkSpec, load_space, mult_adds
from kfnas.train import Classification, ClassificationConfig, PreparedData, ProxyConfig
from kfnas.train.loop import DivergenceWatch, Training


def four_blocks() -> NetworkSpec:
    """Stem 16 of stride 2, MBConv blocks (expansion 3, kernel 3) of widths 8, 12, 16, 32 and strides 1, 2, 1, 2: MobileNetV2's first widths by 0.5."""
    size = 14
    layers = [LayerSpec("stem", (ConvSpec("op", 1, 16, (3, 3), 2, activation="relu6"),), 1, 16, 2, 28, size)]
    channels = 16
    for index, (width, stride) in enumerate(((8, 1), (12, 2), (16, 1), (32, 2))):
        hidden = 3 * channels
        operations = (
            ConvSpec("expand", channels, hidden, activation="relu6"),
            ConvSpec("depthwise", hidden, hidden, (3, 3), stride, groups=hidden, activation="relu6"),
            ConvSpec("project", hidden, width),
        )
        layers.append(LayerSpec(f"blocks.{index}", operations, channels, width, stride, size, -(-size // stride)))
        channels, size = width, -(-size // stride)
    return NetworkSpec(1, 28, tuple(layers), (LinearSpec(channels, 10),))


def trainer(spec: NetworkSpec, data: PreparedData, config: ProxyConfig) -> float:
    """CPU seconds of the product's loop."""
    started = time.process_time()
    training = Training(spec, data.splits["mini_train"], data.meta, Classification(), config, seed=0)
    watch = DivergenceWatch()
    for step in range(training.num_steps):
        watch.check(training.step(step), now=False)
    return time.process_time() - started


def bare(spec: NetworkSpec, data: PreparedData, config: ProxyConfig) -> float:
    """CPU seconds of what one would write by hand."""
    started = time.process_time()
    network = build_network(spec).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps(10**9))
    images, labels = data.splits["mini_train"].images, data.splits["mini_train"].targets
    mean, std = 255 * data.meta["mean"][0], 255 * data.meta["std"][0]
    num, pixels, padding = config.batch_size, images.shape[-1], data.meta["augmentation"]["crop_padding"]
    which, steps = torch.arange(num)[:, None, None], torch.arange(pixels)
    order = torch.randperm(len(images))
    for step in range(config.num_steps(10**9)):
        start = step * num % (len(images) - num)
        batch = order[start : start + num]
        columns = torch.where(torch.rand(num, 1) < 0.5, steps.flip(0), steps) + torch.randint(2 * padding + 1, (num, 1))
        rows = steps + torch.randint(2 * padding + 1, (num, 1))
        moved = F.pad(images[batch], (padding,) * 4)[which, 0, rows[:, :, None], columns[:, None, :]][:, None]
        inputs = moved.float().sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(inputs), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = Classification()
    data = task.prepare(ClassificationConfig(num_train=10000, num_val=1000), seed=0)
    space = load_space("mnas_small")
    assert space.reference is not None
    small = space.network(space.reference, NetworkArguments(width=0.25, **task.network_inputs(data.meta)._asdict()))
    config = ProxyConfig(steps=arguments.steps, batch_size=arguments.batch, augment=True)
    children = {"mnas_small reference, width 0.25": small, "four MBConv blocks": four_blocks()}
    images = arguments.steps * arguments.batch
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in children}
    for index in range(-1, arguments.rounds):
        for name, spec in children.items():
            sides = [("trainer", trainer), ("bare", bare)]
            seconds = {side: run(spec, data, config) for side, run in (sides if index % 2 else sides[::-1])}
            if index >= 0:
                rates[name].append((images / seconds["trainer"], images / seconds["bare"]))
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, 1 thread; batch {arguments.batch}, {arguments.steps} steps, ",
        end="",
    )
    print(f"{arguments.rounds} rounds, interleaved; images per CPU-second, training steps with augmentation\n")
    print("| child | mult-adds (M) | trainer | bare loop | ratio: median (quartiles) |\n|---|---|---|---|---|")
    for name, pairs in rates.items():
        low, middle, high = statistics.quantiles([ours / theirs for ours, theirs in pairs], n=4)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {mult_adds(children[name]) / 1e6:.2f} | {ours:.0f} | {theirs:.0f} | {middle:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()
