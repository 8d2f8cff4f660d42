"""A study whose searches are judged by what their incumbents are worth when trained from scratch: top-1 along device-seconds.

Shared by `all_together.py` and `transfer_images.py`. The searches run by their steps in processes of their own, without Kubeflow, in the study's own store:
killed, the same command goes on. The incumbent after some device-seconds is the trained child of highest reward within the budget so far; every distinct
one is trained from scratch on all training images with several seeds, and the mean of its top-1 on the test set is what it is worth. A row's curve is the
mean over its searches of the worth of the incumbent; what it costs to reach the baseline's quality is where its curve reaches the baseline's final value and
stays there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from kfnas.config import digest_of
from kfnas.report.study_plots import Plot, Series, curves
from kfnas.space import Architecture
from kfnas.steps.config import RunConfig, run_config, task_of
from kfnas.steps.context import DataPointer, open_run
from kfnas.steps.prepared import load_data
from kfnas.steps.status import progress, release_lease
from kfnas.steps.study import StudyPlan, plan_study
from kfnas.steps.study_config import Kind, StudyConfig, load_study_config
from kfnas.steps.study_results import SearchResult, search_result
from kfnas.studies.curves import Steps, mean_curve, reaches, saving_interval
from kfnas.testing.sequence import StepSequence


@dataclass(frozen=True)
class Incumbent:
    """The best child from some point of a search on: after how many activated samples and device-seconds it was known."""

    architecture: str
    samples: int
    device_seconds: float


def search_rounds(text: str, folder: str) -> str:
    """All rounds of one search, in this process; those that are closed already are not run again."""
    config = run_config(text)
    sequence = StepSequence(config, Path(folder) / config.name)
    sequence.begin()
    while not progress(text).searching_done:
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()
    release_lease(text, sequence.owner.run_id)
    return config.name


def incumbents(result: SearchResult) -> list[Incumbent]:
    """Each child that was the best so far, within the budget, when it ended."""
    found: list[Incumbent] = []
    best, seconds = -np.inf, 0.0
    for number, (row, reward) in enumerate(zip(result.activated, result.rewards, strict=True), start=1):
        seconds += row.device_seconds
        if reward > best:
            best = reward
            found.append(Incumbent(row.architecture, number, seconds))
    return found


def retrained(text: str, architecture: str, seed: int, folder: str) -> float:
    """Top-1 on the test set of an architecture trained from scratch with one seed; looked up where it was trained before."""
    from kfnas.train import TRAINING_SPLITS, evaluate_final, retrain

    run = open_run(text)
    pointer = DataPointer(**(run.searches.record("data", "pointer") or {}))
    tokens = run.space.canonical(Architecture.parse(architecture)).tokens
    recipe = run.config.retrain.model_dump(mode="json")
    key = digest_of({"tokens": tokens, "recipe": recipe, "data": pointer.digest, "width": run.config.space.width, "seed": seed})
    path = Path(folder) / f"{key}.json"
    if not path.exists():
        task, _ = task_of(run.config)
        spec = run.network(tokens, pointer)
        outcome = retrain(spec, load_data(run, pointer, TRAINING_SPLITS), task, run.config.retrain, seed)
        if outcome.weights is None:
            raise SystemExit(f"{architecture} diverged with seed {seed} when it was trained from scratch: give another base.retrain.learning_rate")
        top1 = evaluate_final(outcome.weights, spec, load_data(run, pointer, ("test",)), task)[task.metric]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"top1": top1, "architecture": architecture, "seed": seed}))
        part.replace(path)
    return float(json.loads(path.read_text())["top1"])


def run_searches(plan: StudyPlan, folder: Path, jobs: int) -> None:
    """The donor's rounds, then those of all variants, `jobs` at a time."""
    stages: list[list[RunConfig]] = [[plan.donor]] if plan.donor is not None else []
    stages.append([variant.config for variant in plan.variants])
    with _processes(jobs) as pool:
        for stage in stages:
            for job in [pool.submit(search_rounds, config.text, str(folder / "steps")) for config in stage]:
                print(f"searched {job.result()}", flush=True)


def worths(plan: StudyPlan, folder: Path, num_seeds: int, jobs: int) -> dict[str, list[tuple[Incumbent, list[float]]]]:
    """Of each search by name, its incumbents with the top-1 of each retraining."""
    results = {variant.config.name: (variant.config, incumbents(search_result(open_run(variant.config.text)))) for variant in plan.variants}
    with _processes(jobs) as pool:
        pending = {
            name: [
                (one, [pool.submit(retrained, config.text, one.architecture, 1000 + seed, str(folder / "retrained")) for seed in range(num_seeds)])
                for one in found
            ]
            for name, (config, found) in results.items()
        }
        return {name: [(one, [job.result() for job in trained]) for one, trained in found] for name, found in pending.items()}


def report(study: StudyConfig, plan: StudyPlan, worth: dict[str, list[tuple[Incumbent, list[float]]]], folder: Path) -> str:
    """The table as markdown; the figure beside it as PNG. A search that trained nothing within the budget ends it with a word."""
    empty = [name for name, found in worth.items() if not found]
    if empty:
        raise SystemExit(f"nothing within the budget was trained by {', '.join(empty)}: give more rounds, or a higher base.search.reward.target")
    rows: dict[str, list[str]] = {}
    for variant in plan.variants:
        rows.setdefault(variant.row.name, []).append(variant.config.name)
    by_seconds = {row: [_steps(worth[name], "device_seconds") for name in names] for row, names in rows.items()}
    by_samples = {row: [_steps(worth[name], "samples") for name in names] for row, names in rows.items()}
    baseline = by_seconds[study.reference]
    level = fmean(float(run.y[-1]) for run in baseline)
    rng = np.random.default_rng(0)
    lines = [
        f"| row | activated | device-seconds | final top-1 (%) | device-seconds to {100 * level:.2f} % | samples to it | times fewer device-seconds (95%) |",
        "|---|---|---|---|---|---|---|",
    ]
    own = reaches(baseline, level)
    for row in rows:
        found = [search_result(open_run(variant.config.text)) for variant in plan.variants if variant.row.name == row]
        finals = [float(run.y[-1]) for run in by_seconds[row]]
        seconds, samples = reaches(by_seconds[row], level), reaches(by_samples[row], level)
        bounds = saving_interval(baseline, by_seconds[row], rng)
        ratio = "never" if seconds is None or own is None else f"{own / seconds:.2f}" + (f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else "")
        deviation = f" ± {100 * stdev(finals):.2f}" if len(finals) > 1 else ""
        cells = [
            f"{fmean(len(one.activated) for one in found):.0f}",
            f"{fmean(one.device_seconds for one in found):.0f}",
            f"{100 * fmean(finals):.2f}{deviation}",
            "never" if seconds is None else f"{seconds:.0f}",
            "never" if samples is None else f"{samples:.0f}",
            ratio,
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    lines += ["", "| search | worth of each incumbent (%), after so many children |", "|---|---|"]
    for name, found_there in worth.items():
        lines.append(f"| {name} | {', '.join(f'{one.samples}: {100 * fmean(top1):.2f}' for one, top1 in found_there)} |")
    _draw(by_seconds, level, study.reference, folder / f"{study.name}.png")
    return "\n".join(lines)


def main(kind: Kind, default: Path, description: str | None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=default)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="replace a field of the study, such as base.rounds=2")
    parser.add_argument("--folder", type=Path, default=Path("runs") / default.stem, help="store of the searches, and the results")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, of one thread each")
    parser.add_argument("--retrainings", type=int, default=3, help="seeds with which an incumbent is trained from scratch")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    study = load_study_config(arguments.study, kind, (*arguments.overrides, f"base.store={folder / 'store'}"))
    plan = plan_study(study)
    started = time.monotonic()
    run_searches(plan, folder, arguments.jobs)
    searched = time.monotonic()
    worth = worths(plan, folder, arguments.retrainings, arguments.jobs)
    print(f"\n{report(study, plan, worth, folder)}\n")
    num_trained = sum(len(found) for found in worth.values()) * arguments.retrainings
    spent = f"{searched - started:.0f} s of searching and {time.monotonic() - searched:.0f} s of {num_trained} retrainings"
    print(f"{spent}, {arguments.jobs} processes; figure in {folder}")


def _steps(worth: list[tuple[Incumbent, list[float]]], over: str) -> Steps:
    return Steps(np.array([getattr(one, over) for one, _ in worth], dtype=float), np.array([fmean(top1) for _, top1 in worth]))


def _draw(runs: dict[str, list[Steps]], level: float, reference: str, path: Path) -> None:
    series = []
    for row, found in runs.items():
        curve = mean_curve(found)
        band: dict[str, Any] = {"low": list(curve.low), "high": list(curve.high)} if len(found) > 1 else {}
        series.append(Series(row, list(curve.x), list(curve.mean), **band))
    draw = curves(series, x="device-seconds", y="top-1 of the incumbent, trained from scratch", level=level, level_label=f"final value of {reference}")
    path.write_bytes(Plot(path.stem, draw, "").png())


def _processes(jobs: int) -> ProcessPoolExecutor:
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
