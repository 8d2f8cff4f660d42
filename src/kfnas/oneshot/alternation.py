"""BetaNAS's algorithm 1 on a supernet: weight steps and importance steps in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from kfnas.oneshot.beta_nas import BetaNAS, StepRecord
from kfnas.oneshot.gates import Gates
from kfnas.oneshot.paths import Sampler
from kfnas.oneshot.seeds import random_stream
from kfnas.oneshot.training import TrainedStep


class TrainableByStep(Protocol):
    """Shared weights that are trained step by step; `SupernetTraining` is one."""

    num_steps_done: int

    def step(self, sample: Sampler) -> TrainedStep:
        """One weight step along drawn paths."""


def alternate(search: BetaNAS, training: TrainableByStep, gates: Gates, *, seed: int) -> Iterator[list[StepRecord]]:
    """Go on with the search until its last step; after each alternation its records come out, and search and training can be saved together.

    Args:
        search: importance, at any number of whole alternations.
        training: weights, at the same one.
        gates: gradients on the validation part.
        seed: of the drawn paths.
    """
    config = search.config
    while search.num_steps_done < search.num_importance_steps:
        for _ in range(config.weight_steps):
            search.count(training.step(search.training_path).paths)
        records = []
        for _ in range(config.importance_steps):
            step = search.num_steps_done
            draw = search.draw(random_stream(seed, "importance", step))
            loss, gradients = gates.gradients(draw, step)
            records.append(search.update(draw, gradients, loss))
        yield records


def run(
    search: BetaNAS, training: TrainableByStep, gates: Gates, *, seed: int, after_alternation: Callable[[list[StepRecord]], None] = lambda records: None
) -> tuple[int, ...]:
    """`alternate` to the end, calling `after_alternation` with each one's records.

    Returns:
        The result: the remaining path of the highest importance in each block.
    """
    for records in alternate(search, training, gates, seed=seed):
        after_alternation(records)
    return search.result()
