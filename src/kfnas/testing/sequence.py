"""The steps of a search one after another in this process, without Kubeflow: a whole search in seconds, to try a task, a space, a device or a store with.

config = small_search(tmp_path / "store", space={"name": "my_space"})
StepSequence(config, tmp_path / "artifacts").run()       # or begin(), open_round(), train(shard), close_round(), finish()
assert outcome_of(config).finalists["searched-1"]["status"] == "ok"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfnas.config import parse
from kfnas.errors import NotFound
from kfnas.steps.choose_finalists import choose_finalists
from kfnas.steps.config import RunConfig, complete
from kfnas.steps.context import open_run, read_pointer
from kfnas.steps.evaluate import evaluate
from kfnas.steps.export import export
from kfnas.steps.finish_round import finish_round
from kfnas.steps.init_search import init_search
from kfnas.steps.measure_latency import measure_latency
from kfnas.steps.prepare_data import prepare_data
from kfnas.steps.pull_pool import pull_pool
from kfnas.steps.push_pool import push_pool
from kfnas.steps.register import register
from kfnas.steps.retrain import retrain
from kfnas.steps.sample import sample
from kfnas.steps.status import progress, release_lease
from kfnas.steps.train_children import train_children
from kfnas.steps.update import update
from kfnas.steps.view import finalists, load_state
from kfnas.storage import Owner, Pointer

_SMALL: dict[str, Any] = {
    "name": "small",
    "task": {"name": "classification", "source": "digits", "resolution": 8, "limit": 96, "num_train": 48, "num_val": 24},
    "search": {"batch_size": 2},
    "rounds": 2,
    "cost": "mult_adds",
    "proxy": {"steps": 2, "batch_size": 8},
    "retrain": {"steps": 2, "batch_size": 8, "checkpoint_steps": 1},
    "top_k": 1,
    "comparisons": False,
    "latency": {"warmup": 0, "min_runs": 5, "max_runs": 5, "min_seconds": 0, "max_spread": 10, "cpu_ratio_floor": 0},
    "tracking": {"enabled": False},
}
_OF_THE_MOMENT = frozenset({"device_seconds", "finished_at", "provenance", "latency_ms"})


def small_search(store: Path | str, **fields: object) -> RunConfig:
    """A search that takes a second or two: two rounds of two children and one finalist, on scikit-learn's digits. Fields given by name replace its own."""
    return complete(parse(RunConfig, {**_SMALL, "store": str(store), **fields}))


class StepSequence:
    """One run of a search, held in this process's name.

    Args:
        config: the run's configuration, completed (`kfnas.steps.config.complete`).
        folder: where the steps leave what they pass to each other; made where it is missing.
        run_id: name of the run; a second sequence of the same search needs another one.

    Attributes:
        data, state: artifacts of `begin`; `state` is replaced by each step that moves the search.
        batch, plan: artifacts of the open round.
    """

    def __init__(self, config: RunConfig, folder: Path, run_id: str = "sequence") -> None:
        self.config, self.folder, self.text = config, folder, config.text
        self.owner = Owner.of_process(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        self.data, self.state, self.batch, self.plan = (folder / name for name in ("data", "state", "batch", "plan"))

    @property
    def pointer(self) -> Pointer:
        """Where the search stands."""
        return read_pointer(self.state)

    def run(self) -> None:
        """From wherever the search stands to its end; then it is given up."""
        self.begin()
        while not progress(self.text).searching_done:
            for shard in self.open_round():
                self.train(shard)
            self.close_round()
        self.finish()
        release_lease(self.text, self.owner.run_id)

    def begin(self) -> None:
        """Prepare the data and claim the search."""
        prepare_data(self.text, self.data)
        init_search(self.text, self.data, self.owner.model_dump_json(), self.state)

    def open_round(self) -> list[str]:
        """Draw a batch, take its costs and, with a pool, its initial weights; its shards."""
        sample(self.text, self.state, self.batch, self.state)
        shards = measure_latency(self.text, self.data, self.state, self.batch, self.plan)
        if self.config.pool is not None:
            pull_pool(self.text, self.data, self.state, self.plan, self.plan)
        return shards

    def train(self, shard: str) -> Path:
        """Train a shard; the artifact that says what became of it."""
        results = self.folder / "results"
        train_children(self.text, self.data, self.plan, shard, results)
        return results

    def close_round(self) -> None:
        """Tell the pool, if there is one, and the search what became of the batch."""
        if self.config.pool is not None:
            push_pool(self.text, self.data, self.state, self.plan, self.folder / "pushed")
        update(self.text, self.state, self.plan, self.state)
        finish_round(self.text, self.state, self.folder / "metrics")

    def finish(self) -> None:
        """Train, evaluate and export the finalists, and close the search."""
        model = self.folder / "model"
        for finalist in choose_finalists(self.text, self.data, self.state, self.folder / "finalists"):
            retrain(self.text, self.data, finalist, model)
            evaluate(self.text, self.data, model, self.folder / "final-metrics")
            export(self.text, self.data, model, self.folder / "model.onnx")
        register(self.text, self.state, self.folder / "summary", self.folder / "report.html")


@dataclass(frozen=True)
class Outcome:
    """What a search came to, apart from when and how fast: equal for equal configurations and seeds, however the search was run.

    Attributes:
        search: digest of history and policy (`Search.digest`).
        children: their records by ledger key; `weights` is a sha256.
        finalists: by name, with the sha256 of their weights and of their ONNX models, and their metrics.
    """

    search: str
    children: dict[str, dict[str, Any]]
    finalists: dict[str, dict[str, Any]]


def outcome_of(config: RunConfig) -> Outcome:
    """What the search of a configuration has come to so far. Every weight is read and held to its digest.

    Raises:
        NotFound: there is no such search.
        CorruptError: some weight is damaged.
    """
    run = open_run(config.text)
    head = run.searches.head()
    if head is None:
        raise NotFound(f"no search {config.name!r} in {run.store.uri}; run it first")
    children = {key: run.searches.child(key) or {} for key in run.searches.children()}
    finals = {finalist["name"]: finalist for finalist in finalists(run)}
    for record in (*children.values(), *finals.values()):
        if record.get("weights"):
            run.searches.blob(record["weights"])
    return Outcome(
        search=load_state(run, head.pointer()).digest(),
        children={key: _lasting(record) for key, record in children.items()},
        finalists={name: _lasting(finalist) for name, finalist in finals.items()},
    )


def _lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _OF_THE_MOMENT}
