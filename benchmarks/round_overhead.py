"""Seconds that a round takes outside training, by step, on kfp.local.

    python benchmarks/round_overhead.py --rounds 6

Runs a search on scikit-learn's digits whose children train for one optimiser step, and reads from the log when each task began and ended. What remains is
what the machinery costs: interpreters, imports, reading and writing state, sampling, the policy update, measuring, tracking.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import yaml

BEGUN = re.compile(r"(\d\d:\d\d:\d\d\.\d{3}) - INFO - Executing task \S*'([a-z-]+?)(?:-\d+)?'")
ENDED = re.compile(r"(\d\d:\d\d:\d\d\.\d{3}) - INFO - Task \S*'([a-z-]+?)(?:-\d+)?'\S* finished with status")
ANSI = re.compile(r"\x1b\[\d+m|\[\d+m")


def durations(log: str) -> dict[str, list[float]]:
    """Seconds of each task, by step, in the order of the log. Tasks of one step that overlap are matched first begun, first ended."""
    open_tasks: dict[str, list[datetime]] = {}
    found: dict[str, list[float]] = {}
    for line in log.splitlines():
        line = ANSI.sub("", line)
        if match := BEGUN.search(line):
            open_tasks.setdefault(match[2], []).append(datetime.strptime(match[1], "%H:%M:%S.%f"))
        elif match := ENDED.search(line):
            begun = open_tasks[match[2]].pop(0)
            found.setdefault(match[2], []).append((datetime.strptime(match[1], "%H:%M:%S.%f") - begun).total_seconds() % 86400)
    return found


def main() -> None:
    """Run the search and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--cost", default="latency_ms", choices=("latency_ms", "mult_adds"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "name": "overhead",
            "task": {"name": "classification", "source": "digits"},
            "search": {"batch_size": arguments.batch_size},
            "cost": arguments.cost,
            "rounds": arguments.rounds,
            "proxy": {"steps": 1},
            "retrain": {"steps": 1},
            "top_k": 1,
            "store": folder,
            "execution": {"rounds_per_run": arguments.rounds},
        }
        path = Path(folder) / "overhead.yaml"
        path.write_text(yaml.safe_dump(config))
        subprocess.run([str(Path(sys.executable).parent / "kfnas"), "run", str(path)], check=True)
        (log,) = sorted((Path(folder) / "logs" / "overhead").glob("*search_rounds.log"))
        found = durations(log.read_text(errors="replace"))
    print(f"{arguments.rounds} rounds of {arguments.batch_size} children, cost {arguments.cost}, two shards that run at the same time\n")
    print("| step | tasks | seconds: median (min-max) |\n|---|---|---|")
    total = 0.0
    for step in ("sample", "measure-latency", "train-children", "update", "finish-round"):
        seconds = found[step]
        total += statistics.median(seconds)
        print(f"| {step} | {len(seconds)} | {statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f}) |")
    print(f"| a round | | {total:.2f} |")
    for step in ("prepare-data", "init-search", "release-search"):
        print(f"| once a run: {step} | {len(found[step])} | {statistics.median(found[step]):.2f} |")


if __name__ == "__main__":
    main()
