"""Some networks trained in supernets of one, two or more branches a block, each weight for about as many steps: BetaNAS's figure 6.

The networks choose different operators in every block where there are enough of them. Those that share are trained together: each step draws each block's path
uniformly among theirs, as BetaNAS's phase 1 does, for as many times the epochs as there are branches. Each training is a record of the folder
`<search>-branches` of the store: made once, whatever is killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from kfnas.config import digest_of
from kfnas.errors import ConfigError
from kfnas.steps.context import DataPointer, Run, architecture_text, open_run
from kfnas.steps.prepare_data import data_of
from kfnas.steps.supernet_search import Tokens, mixop_space
from kfnas.storage import SearchStore
from kfnas.studies.branches import Branches, compare_branches

logger = logging.getLogger(__name__)
KIND = "branches"
_DRAW = 0xB6


def prove_branches(
    config: str,
    *,
    num_networks: int = 4,
    branches: Sequence[int] = (1, 2, 4),
    epochs: int = 30,
    seeds: int = 3,
    tell: Callable[[str], None] = lambda line: None,
) -> Branches:
    """Train the networks in supernets of so many branches each, with so many seeds, and compare.

    Args:
        config: canonical JSON of a RunConfig with an algorithm on one supernet: space, data, and `oneshot.training` are read.
        num_networks: that are compared; each number of branches divides it.
        branches: networks that share one supernet; 1 is what the others are compared with.
        epochs: of networks that share nothing; b branches are trained for b times as many.
        seeds: of weights, batches and paths; the networks stay.
        tell: is given a line after each training.

    Raises:
        ConfigError: a number of branches does not divide the number of networks, or 1 is not among them.
        SpaceError: the space has no mixed operators.
        UserError: a training diverged.
    """
    run = open_run(config)
    if run.config.algorithm is None:
        raise ConfigError(f"algorithm: search {run.config.name!r} is of {run.config.method}; give a configuration of a search on one supernet")
    if 1 not in branches or min(branches) < 1 or any(num_networks % count for count in branches):
        raise ConfigError(f"{num_networks} networks cannot be shared by {list(branches)}; give numbers that divide it, 1 among them")
    data, networks = data_of(run), _networks(run, num_networks)
    kept = SearchStore(run.store, f"{run.config.name}-branches")
    accuracies: dict[int, list[list[float]]] = {count: [] for count in branches}
    for seed in range(seeds):
        for count in sorted(branches):
            row: list[float] = []
            for start in range(0, num_networks, count):
                found = _accuracies(run, kept, data, networks[start : start + count], epochs * count, seed)
                row += found
                tell(f"seed {seed}, {count} branches, networks {start} to {start + count - 1}: {', '.join(f'{value:.4f}' for value in found)}")
            accuracies[count].append(row)
    return compare_branches([architecture_text(run.space, tokens) for tokens in networks], accuracies)


def _networks(run: Run, count: int) -> list[Tokens]:
    """Paths that differ in every mixed operator that has so many choices."""
    rng = np.random.default_rng([run.config.seed, _DRAW])
    drawn = [rng.permutation(choices) for choices in mixop_space(run).num_choices]
    return [tuple(int(order[number % len(order)]) for order in drawn) for number in range(count)]


def _accuracies(run: Run, kept: SearchStore, data: DataPointer, group: Sequence[Tokens], epochs: int, seed: int) -> list[float]:
    """Accuracy on mini-val of each network of a group that was trained together."""
    from kfnas.train import TRAINING_CODE_VERSION

    shared = run.config.shared
    asked = {
        "space": run.space.digest,
        "arguments": run.arguments(data).model_dump(mode="json"),
        "task": run.config.task,
        "training": shared.training.optimiser.model_dump(mode="json"),
        "batches": [shared.training.batch_size, shared.training.augment, shared.training.label_smoothing],
        "validation": shared.validation.model_dump(mode="json"),
        "data": data.digest,
        "group": [list(tokens) for tokens in group],
        "epochs": epochs,
        "seed": [run.config.seed, seed],
        "training_code": TRAINING_CODE_VERSION,
    }
    key = digest_of(asked)
    if kept.record(KIND, key) is None:
        started = time.monotonic()
        found = _trained(run, data, group, epochs, seed)
        kept.put_record(KIND, key, {**asked, "accuracies": found, "device_seconds": time.monotonic() - started, "finished_at": time.time()})
    accuracies: list[float] = (kept.record(KIND, key) or {})["accuracies"]
    return accuracies


def _trained(run: Run, data: DataPointer, group: Sequence[Tokens], epochs: int, seed: int) -> list[float]:
    from kfnas.errors import UserError
    from kfnas.steps.shared_weights import SharedWeights
    from kfnas.train.loop import cpu_threads

    own_seed = int(np.random.default_rng([run.config.seed, _DRAW, seed]).integers(2**31))
    oneshot = run.config.shared.model_copy(update={"epochs": epochs})
    weights = SharedWeights(replace(run, config=run.config.model_copy(update={"algorithm": "oneshot", "oneshot": oneshot, "seed": own_seed})), data)
    remaining = [sorted(set(choices)) for choices in zip(*group, strict=True)]

    def sample(rng: np.random.Generator) -> Tokens:
        return tuple(choices[rng.integers(len(choices))] for choices in remaining)

    with cpu_threads(run.config.shared.training.threads):
        training = weights.training(None)
        try:
            training.train(sample, until=epochs)
        except FloatingPointError as error:
            raise UserError(f"oneshot.training: {error}") from None
        evaluator = weights.evaluator(training.save())
        return [evaluator.mean_accuracy(tokens) for tokens in group]
