"""Does an agent learn, by its default configuration, on tables of networks that others have trained?

    KFNAS_TABLES=/path/to/tables python benchmarks/agent_learns.py --table mnas_imagenet --agents mnas,random --seeds 20 --jobs 2

The folder holds a `tables.py` whose functions return tables with `choices`, `score(tokens)` (true accuracy, percent) and
`observe(tokens, seed)` (what one noisy training would have shown). A search sees `observe` alone. Printed is the mean over seeds of the
true accuracy of the architecture that looked best so far, after N distinct evaluations. The defaults were tuned on seeds from 1000 on;
those judged here start at 0. With agent mnas on mnas_imagenet the exit code is 1 where the mean falls short of a plain PPO + LSTM by
more than 0.1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kfnas.controller import Result, Search, SearchConfig
from kfnas.errors import SearchExhausted
from kfnas.space import Space

PLAIN_PPO = {"mnas_imagenet": {200: 66.75, 500: 67.75}}
"""Reference means of a plain PPO + LSTM on the noisy table, hidden 64, batch 10, lr 1e-3, entropy 0.03, 4 epochs; the best of 24
settings, 20 seeds."""
SLACK = 0.1


class Run(NamedTuple):
    """One search: true accuracy (percent) of the best-looking architecture at each point, distinct evaluations made, seconds."""

    at_points: list[float]
    num_activated: int
    seconds: float


def load_table(folder: Path, name: str) -> Any:
    """The table that `folder/tables.py` returns under `name`."""
    spec = importlib.util.spec_from_file_location("tables", folder / "tables.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder}: holds no tables.py; give --tables or KFNAS_TABLES")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tables"] = module
    spec.loader.exec_module(module)
    return getattr(module, name)()


def run_one(folder: Path, name: str, config: SearchConfig, seed: int, points: list[int]) -> Run:
    """One search of `max(points)` distinct evaluations, or as many as it finds."""
    import torch

    torch.set_num_threads(1)
    table = load_table(folder, name)
    space = Space.from_decisions({f"decision{index}": list(range(count)) for index, count in enumerate(table.choices)}, name=name)
    search = Search(space, config, seed=seed)
    started = time.perf_counter()
    while search.num_activated < max(points):
        try:
            batch = search.suggest()
        except SearchExhausted:
            break
        observed = table.observe(np.array([candidate.tokens for candidate in batch]), seed)
        search.update([Result(candidate.id, accuracy=float(value)) for candidate, value in zip(batch, observed, strict=True)])
    seconds = time.perf_counter() - started
    rows = [row for row in search.rows if row.is_activated]
    observed = np.array([row.accuracy for row in rows])
    best = [int(np.argmax(observed[:point])) for point in points]
    return Run([float(value) for value in table.score(np.array([rows[index].tokens for index in best]))], len(rows), seconds)


def main() -> int:
    """Run the searches, print a markdown table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=os.environ.get("KFNAS_TABLES"), help="folder with tables.py (default: KFNAS_TABLES)")
    parser.add_argument("--table", default="mnas_imagenet")
    parser.add_argument("--agents", default="mnas,random", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--points", default="50,100,200,500", help="numbers of distinct evaluations, comma-separated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.tables is None:
        parser.error("give --tables DIR or set KFNAS_TABLES")
    points = [int(point) for point in arguments.points.split(",")]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)

    print(f"`{arguments.table}`, seeds {seeds[0]} to {seeds[-1]}: mean true accuracy (%) of the best-looking architecture, default configuration\n")
    print(f"| agent | {' | '.join(map(str, points))} | standard deviation at {points[-1]} | distinct | seconds a search |")
    print("|---|" + "---|" * (len(points) + 3))
    short = False
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for agent in arguments.agents.split(","):
            config = SearchConfig(agent=agent)
            jobs = [pool.submit(run_one, arguments.tables, arguments.table, config, seed, points) for seed in seeds]
            runs = [job.result() for job in jobs]
            values = np.array([run.at_points for run in runs])
            means = values.mean(0)
            cells = " | ".join(f"{mean:.2f}" for mean in means)
            distinct, seconds = np.mean([run.num_activated for run in runs]), np.mean([run.seconds for run in runs])
            print(f"| {agent} | {cells} | {values[:, -1].std():.2f} | {distinct:.0f} | {seconds:.1f} |", flush=True)
            wanted = PLAIN_PPO.get(arguments.table, {}) if agent == "mnas" else {}
            short |= any(mean < wanted[point] - SLACK for point, mean in zip(points, means, strict=True) if point in wanted)
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
