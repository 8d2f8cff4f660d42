"""The steps of a search on one supernet one after another in this process, without Kubeflow.

config = small_supernet_search(tmp_path / "store", "pcnas")
SupernetSequence(config, tmp_path / "artifacts").run()
assert outcome_of(config).finalists["searched-1"]["status"] == "ok"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kfnas.steps.alternate import alternate
from kfnas.steps.config import RunConfig
from kfnas.steps.decide_mixop import decide_mixop
from kfnas.steps.evolve import evolve
from kfnas.steps.finish_round import finish_round
from kfnas.steps.operator_costs import operator_costs
from kfnas.steps.plan_potentials import plan_potentials
from kfnas.steps.score_potentials import score_potentials
from kfnas.steps.status import progress, release_lease
from kfnas.steps.train_supernet import train_supernet
from kfnas.testing.sequence import StepSequence, small_search

_SMALL: dict[str, Any] = {
    "training": {"batch_size": 16, "learning_rate": 0.05, "checkpoint_steps": 2},
    "validation": {"batch_size": 12},
    "pcnas": {"pool_size": 2, "num_evaluations": 2, "warmup_epochs": 1, "interval_epochs": 1},
    "epochs": 1,
    "evolution": {"num_evaluations": 6, "batches_per_model": 1, "population_size": 2},
    "betanas": {"num_steps": 6, "learning_rate": 0.1},
    "steps_per_round": 4,
}


def small_supernet_search(store: Path | str, algorithm: str, **fields: object) -> RunConfig:
    """A search of a few seconds on scikit-learn's digits with one finalist; name a space of few mixed operators. Fields given by name replace its own."""
    oneshot = {**_SMALL, **(fields.pop("oneshot", {}) or {})}  # type: ignore[dict-item]
    return small_search(store, algorithm=algorithm, oneshot=oneshot, **{"search": {}, **fields})


class SupernetSequence(StepSequence):
    """One run of a search on one supernet, held in this process's name."""

    def run(self) -> None:
        """From wherever the search stands to its end; then it is given up."""
        self.begin()
        while not progress(self.text).searching_done:
            self.round()
        self.finish()
        release_lease(self.text, self.owner.run_id)

    def begin(self) -> None:
        """Data, claim, and the costs of operators."""
        super().begin()
        operator_costs(self.text, self.data, self.state, self.folder / "costs")

    def round(self) -> None:
        """One round of the run's algorithm."""
        if self.config.algorithm == "betanas":
            alternate(self.text, self.data, self.state, self.state)
        else:
            train_supernet(self.text, self.data, self.state, self.state)
        if self.config.algorithm == "oneshot":
            evolve(self.text, self.data, self.state, self.state)
        if self.config.algorithm == "pcnas":
            for shard in plan_potentials(self.text, self.data, self.state, self.plan):
                score_potentials(self.text, self.data, self.plan, shard, self.folder / "results")
            decide_mixop(self.text, self.state, self.plan, self.state)
        finish_round(self.text, self.state, self.folder / "metrics")
