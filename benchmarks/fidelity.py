"""How well short trainings rank architectures, from random weights and from a pool's: the study, and the pilots that its setting was chosen by.

python benchmarks/fidelity.py pilot              seed-to-seed agreement of 34 architectures in a few settings; about 6 minutes of CPU time each
kfnas prove fidelity examples/fidelity.yaml      the study itself; about an hour of CPU time, killed and resumed as one likes
python benchmarks/fidelity.py table              its figures as the tables of fidelity.md
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from kfnas.space import NetworkArguments, load_space
from kfnas.steps.fidelity_children import open_study
from kfnas.steps.fidelity_compare import accuracies_of, write_fidelity_report
from kfnas.steps.fidelity_config import load_fidelity_config
from kfnas.steps.fidelity_plan import plan_of
from kfnas.steps.fidelity_pool import pool_use, with_pool_children
from kfnas.studies.fidelity import Proxy, spread_of
from kfnas.studies.statistics import paired_correlation_difference, rank_correlation

STUDY = Path(__file__).parents[1] / "examples" / "fidelity.yaml"


class Pilot(NamedTuple):
    """A setting: images of mini-train, recipe, width multiplier of `mnas_tiny`."""

    num_train: int
    batch_size: int
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.05
    width: float = 0.25


PILOTS = (
    Pilot(num_train=4096, batch_size=256),
    Pilot(num_train=4096, batch_size=128, optimizer="adamw", learning_rate=0.01),
    Pilot(num_train=4096, batch_size=128),
    Pilot(num_train=4096, batch_size=128, width=0.5),
)
"""Settings that were tried, the study's last."""


def pilot(num_architectures: int = 34, epochs: int = 10) -> None:
    """Train some architectures with two seeds in each setting. They are others than the study's, and so are the seeds."""
    from kfnas.train import Classification, ClassificationConfig, ProxyConfig, train_child

    task, space = Classification(), load_space("mnas_tiny")
    print("| width | images | batch | optimiser, rate | n | accuracy | between architectures | between seeds | rho of two seeds | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tried in PILOTS:
        data = task.prepare(ClassificationConfig(resolution=14, num_train=tried.num_train, num_val=10_000), seed=0)
        recipe = ProxyConfig(epochs=epochs, batch_size=tried.batch_size, optimizer=tried.optimizer, learning_rate=tried.learning_rate)
        rng, started = np.random.default_rng(123), time.process_time()
        found = np.zeros((num_architectures, 2))
        for index in range(num_architectures):
            architecture = space.canonical(space.random(rng))
            spec = space.network(architecture, NetworkArguments(width=tried.width, resolution=14, in_channels=1, num_outputs=10))
            found[index] = [train_child(spec, data, task, recipe, 1000 * seed + index).accuracy or 0.0 for seed in range(2)]
        between, within = spread_of(found)
        rho = rank_correlation(found[:, 0], found[:, 1], rng=np.random.default_rng(0))
        spent = time.process_time() - started
        print(
            f"| {tried.width} | {tried.num_train} | {tried.batch_size} | {tried.optimizer}, {tried.learning_rate} | {num_architectures} | {found.mean():.3f} "
            f"| {between:.4f} | {within:.4f} | {rho.value:.2f} ({rho.low:.2f} to {rho.high:.2f}) | {spent:.0f} |",
            flush=True,
        )


def table(config: Path, store: str | None) -> None:
    """The study's figures, and every difference between a proxy from the pool and one from random weights."""
    loaded = load_fidelity_config(config, () if store is None else (f"base.store={store}",))
    with tempfile.TemporaryDirectory() as folder:
        figures = write_fidelity_report(loaded.text, Path(folder) / "page.html")
    study = open_study(loaded.text)
    used = pool_use(study)
    assert used is not None
    plan = with_pool_children(study, plan_of(study), used)
    records = {child.id: study.record_of(child) for child in plan.children}
    whole = accuracies_of(study, plan, records).complete()
    print("| from | epochs | Spearman's rho | Kendall's tau | n | mean accuracy |\n|---|---|---|---|---|---|")
    for each in figures.proxies:
        rho, tau = each.spearman, each.kendall
        print(
            f"| {each.proxy.initialisation} | {each.proxy.epochs} | {rho.value:.3f} ({rho.low:.3f} to {rho.high:.3f}) "
            f"| {tau.value:.3f} ({tau.low:.3f} to {tau.high:.3f}) | {rho.n} | {each.accuracy:.4f} |"
        )
    print(f"\ntruth: rho of two seeds {', '.join(f'{pair.value:.3f}' for pair in figures.agreement)}; mean {figures.mean_agreement:.3f}")
    print(f"deviation between architectures {figures.spread[0]:.4f}, between seeds {figures.spread[1]:.4f}")
    print(
        f"pool: {used.entries} entries, {used.matched} of {used.queried} matched, {used.hits} hits, similarity {used.similarity:.3f}, filled {used.filled:.3f}"
    )
    print(f"equivalent epoch: {figures.equivalent_epoch}; passes: {figures.passes}; {'; '.join(figures.failings)}")
    seconds = sum(record["device_seconds"] for record in records.values())
    print(f"{len(records)} trainings, {sum(record['epochs'] for record in records.values())} epochs, {seconds:.0f} device-seconds\n")
    print("| rho(pool, epoch a) - rho(random, epoch b) | difference |\n|---|---|")
    for a, b in itertools.product(loaded.epochs, loaded.epochs):
        pair = whole.proxies[Proxy("pool", a)], whole.proxies[Proxy("random", b)]
        gap = paired_correlation_difference(whole.truth.mean(1), *pair, rng=np.random.default_rng(0))
        print(f"| {a}, {b} | {gap.mid:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}) |")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pilot", "table"))
    parser.add_argument("--architectures", type=int, default=34, help="pilot: how many are trained in each setting")
    parser.add_argument("--config", type=Path, default=STUDY)
    parser.add_argument("--store", help="the study's store, where it is another than the configuration's")
    given = parser.parse_args()
    if given.what == "pilot":
        pilot(given.architectures)
    else:
        table(given.config, given.store)


if __name__ == "__main__":
    main()
