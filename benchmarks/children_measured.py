"""Children measured a minute: architecture to latency record, as the search does it, on this machine.

    python benchmarks/children_measured.py --children 60

Each child's ONNX graph is built from its architecture alone and timed by the default protocol. Building and timing are told apart.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from kfnas.measure import LatencyConfig, LocalDevice, build_onnx, graph_digest
from kfnas.space import NetworkArguments, load_space


def main() -> None:
    """Measure random architectures and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=60)
    parser.add_argument("--space", default="mnas_small")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--resolution", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    space, device, protocol = load_space(given.space), LocalDevice(), LatencyConfig()
    network = NetworkArguments(width=given.width, resolution=given.resolution, in_channels=1, num_outputs=10)
    generator = np.random.default_rng(given.seed)
    build_ms, measure_ms, spreads, attempts, unmeasured = [], [], [], [], 0
    started = time.perf_counter()
    for _ in range(given.children):
        spec = space.network(space.random(generator), network)
        begun = time.perf_counter()
        model = build_onnx(spec, None).SerializeToString()
        built = time.perf_counter()
        record = device.measure(model, protocol, graph=graph_digest(spec, protocol.batch))
        build_ms.append(1000 * (built - begun))
        measure_ms.append(1000 * (time.perf_counter() - built))
        attempts.append(record.attempts)
        unmeasured += record.status != "ok"
        if record.spread is not None:
            spreads.append(record.spread)
    minutes = (time.perf_counter() - started) / 60
    print(f"{given.space}, width {given.width:g}, {given.resolution} pixels, seed {given.seed}, {protocol.threads} thread\n")
    print("| children a minute | graph built, ms: median (p90) | measured, ms: median (p90) | spread: median | windows: mean | unmeasured |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {given.children / minutes:.0f} | {statistics.median(build_ms):.1f} ({np.quantile(build_ms, 0.9):.1f}) "
        f"| {statistics.median(measure_ms):.0f} ({np.quantile(measure_ms, 0.9):.0f}) | {statistics.median(spreads) if spreads else float('nan'):.3f} "
        f"| {statistics.mean(attempts):.2f} | {unmeasured} |"
    )


if __name__ == "__main__":
    main()
