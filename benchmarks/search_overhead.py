"""Seconds that a search itself takes, beside its evaluations, as its history grows.

    python benchmarks/search_overhead.py --samples 10000 --agent mnas

A search of 28 decisions runs on made-up accuracies until its history holds so many samples; then `suggest` + `update` are timed over
some batches, and `save`, `load` and the history's table. The exit code is 1 where a batch takes a second or more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from kfnas.controller import Result, Search, SearchConfig
from kfnas.space import Space

LIMIT_SECONDS = 1.0


def one_round(search: Search, rng: np.random.Generator) -> float:
    """Suggest and update one batch of made-up results; seconds."""
    started = time.perf_counter()
    batch = search.suggest()
    search.update([Result(candidate.id, accuracy=float(np.mean(candidate.tokens) / 3 + 0.05 * rng.standard_normal())) for candidate in batch])
    return time.perf_counter() - started


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> int:
    """Fill the history, time, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--agent", default="mnas")
    parser.add_argument("--rounds", type=int, default=20, help="batches timed")
    arguments = parser.parse_args()

    space = Space.from_decisions({f"block{block}/{name}": [0, 1, 2, 3] for block in range(7) for name in ("op", "kernel", "layers", "se")})
    search = Search(space, SearchConfig(agent=arguments.agent, batch_size=arguments.batch_size), seed=0)
    rng = np.random.default_rng(0)
    filling = 0.0
    while len(search.rows) < arguments.samples:
        filling += one_round(search, rng)
    seconds = [one_round(search, rng) for _ in range(arguments.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        saving = timed(lambda: search.save(folder))
        loading = timed(lambda: Search.load(folder))
    table = timed(lambda: search.history)
    samples = len(search.rows)
    print(f"agent {arguments.agent}, batches of {arguments.batch_size}, history filled in {filling:.0f} s")
    print(f"{samples:,} samples of history, {search.num_activated:,} activated\n")
    print("| what | seconds |\n|---|---|")
    print(f"| `suggest` + `update`, median of {arguments.rounds} batches | {np.median(seconds):.3f} |")
    print(f"| the slowest of them | {max(seconds):.3f} |")
    print(f"| `save` | {saving:.3f} |\n| `load` | {loading:.3f} |\n| `history` | {table:.3f} |")
    return int(float(np.median(seconds)) >= LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
