"""How well the shared weights of finished searches rank networks: candidates of a PC-NAS search's last updates, trained alone and read from each supernet.

The trainings are children of a folder of their own in the store, `<search>-sharing`: each is made once, whatever is killed, and more networks, seeds or
searches add to what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from kfnas.config import parse
from kfnas.errors import ConfigError, NotFound
from kfnas.oneshot.paths import complete
from kfnas.steps.context import DataPointer, Run, architecture_text, open_run
from kfnas.steps.measure_latency import child_key
from kfnas.steps.prepared import data_folder, outcome_record
from kfnas.steps.supernet_search import SupernetSearch, Tokens, load_supernet, mixop_space
from kfnas.storage import SearchStore
from kfnas.studies.sharing import RankedNetwork, Sharing, compare_sharing

if TYPE_CHECKING:
    from kfnas.train import ChildOutcome

logger = logging.getLogger(__name__)
_DRAW, _CHILD = 0x5A, 0x5B


def prove_sharing(configs: Sequence[str], *, num_networks: int, seeds: int = 1, tell: Callable[[str], None] = lambda line: None) -> Sharing:
    """Train networks alone, read them from each search's shared weights, and compare.

    Args:
        configs: canonical JSON of RunConfigs, whose searches have trained their weights to the end; the first is PC-NAS's, whose last candidates are
            the networks, and whose `proxy` is the recipe of the stand-alone trainings.
        num_networks: that are compared.
        seeds: stand-alone trainings of each network, whose mean accuracy counts.
        tell: is given a line after each training.

    Raises:
        NotFound: a search does not exist, or is not at its end.
        ConfigMismatch: a search was run with another configuration.
        ConfigError: the first is none of PC-NAS, or searches differ in space, width, data or name.
        UserError: fewer than 3 networks, or accuracies that are all alike.
    """
    runs = [open_run(config) for config in configs]
    searches = [_finished(run) for run in runs]
    data = _one_data(runs)
    chosen = _candidates(runs[0], searches[0], num_networks)
    alone = _trained_alone(runs[0], data, chosen, seeds, tell)
    shared = {run.config.name: _read(run, search, data, chosen) for run, search in zip(runs, searches, strict=True)}
    networks = [
        RankedNetwork(architecture_text(runs[0].space, tokens), alone[tokens], {name: accuracies[tokens] for name, accuracies in shared.items()})
        for tokens in chosen
        if tokens in alone
    ]
    return compare_sharing(networks, list(shared))


def _finished(run: Run) -> SupernetSearch:
    head = run.searches.head()
    if head is None or run.config.algorithm is None:
        raise NotFound(f"no search on one supernet of the name {run.config.name!r} in {run.store.uri}; run it first")
    head.check_config(run.config.digest, run.config.text)
    search = load_supernet(run, head.pointer())
    if search.weights is None or not search.ranked(len(mixop_space(run).num_choices)):
        raise NotFound(f"search {run.config.name!r} is not at its end; `kfnas resume` it first")
    return search


def _one_data(runs: Sequence[Run]) -> DataPointer:
    """The data that all of the searches are on.

    Raises:
        ConfigError: they are not comparable.
    """
    first = runs[0]
    if first.config.algorithm != "pcnas":
        raise ConfigError(f"search {first.config.name!r} is of {first.config.method}; give a PC-NAS search first: its last candidates are what is ranked")
    pointers = [parse(DataPointer, run.searches.record("data", "pointer") or {}, source=f"search {run.config.name}") for run in runs]
    for run, pointer in zip(runs[1:], pointers[1:], strict=True):
        pairs = {"space": (first.space.digest, run.space.digest), "space.width": (first.config.space.width, run.config.space.width)}
        pairs["data"] = (pointers[0].digest, pointer.digest)
        for name, (ours, theirs) in pairs.items():
            if ours != theirs:
                raise ConfigError(f"{name}: {ours} of search {first.config.name!r} and {theirs} of {run.config.name!r} cannot be compared; search on the same")
        if run.config.name == first.config.name:
            raise ConfigError(f"search {first.config.name!r} is given twice; give another")
    return pointers[0]


def _candidates(run: Run, search: SupernetSearch, count: int) -> list[Tokens]:
    """Networks of the last update, drawn alike, each canonical form once, in the order of their potential; where these are too few, random completions of the
    candidates of the update before, and so on.

    Those over the limit, which have no potential and come last, are among them: what is asked of the weights is whether they rank.
    """
    rng, num_choices = np.random.default_rng([run.config.seed, _DRAW]), mixop_space(run).num_choices
    chosen: dict[Tokens, Tokens] = {}
    for update in reversed(search.pcnas.updates):
        found: dict[Tokens, Tokens] = {}
        for candidate in update:
            tokens = complete(candidate.tokens, num_choices, rng)
            found.setdefault(run.space.canonical(run.space.architecture(tokens)).tokens, tokens)
        fresh = [form for form in found if form not in chosen]
        drawn = rng.permutation(len(fresh))[: count - len(chosen)]
        chosen |= {fresh[index]: found[fresh[index]] for index in sorted(drawn)}
        if len(chosen) == count:
            break
    return list(chosen.values())


def _trained_alone(run: Run, data: DataPointer, networks: Sequence[Tokens], seeds: int, tell: Callable[[str], None]) -> dict[Tokens, float]:
    """Mean accuracy on mini-val of each network's own trainings, of those that ended well."""
    from kfnas.train import CHILD_SPLITS, ChildJob, train_shard

    kept = SearchStore(run.store, f"{run.config.name}-sharing")
    seed_of = {number: int(np.random.default_rng([run.config.seed, _CHILD, number]).integers(2**31)) for number in range(seeds)}
    canonical = {tokens: list(run.space.canonical(run.space.architecture(tokens)).tokens) for tokens in networks}
    keys = {(tokens, number): child_key(run, canonical[tokens], seed, data) for tokens in networks for number, seed in seed_of.items()}
    missing = {f"{index}-{number}": (networks[index], number) for index in range(len(networks)) for number in range(seeds)}
    missing = {name: asked for name, asked in missing.items() if kept.child(keys[asked]) is None}
    jobs = [ChildJob(name, run.network(tokens, data), seed_of[number]) for name, (tokens, number) in missing.items()]

    def finished(job: ChildJob, outcome: ChildOutcome) -> None:
        tokens, number = missing[job.id]
        record = {
            "id": job.id,
            "tokens": list(tokens),
            "seed": job.seed,
            **outcome_record(run, data, outcome),
        }
        kept.put_child(keys[tokens, number], record)
        tell(f"network {job.id} trained alone: {outcome.status} {outcome.accuracy if outcome.status == 'ok' else outcome.reason}")

    if jobs:
        with data_folder(run, data, CHILD_SPLITS) as folder:
            train_shard(jobs, folder, run.task, run.config.proxy, workers=run.config.execution.workers, on_finished=finished)
    records = {tokens: [kept.child(keys[tokens, number]) or {} for number in range(seeds)] for tokens in networks}
    good = {tokens: [record["accuracy"] for record in found if record.get("status") == "ok"] for tokens, found in records.items()}
    return {tokens: fmean(values) for tokens, values in good.items() if values}


def _read(run: Run, search: SupernetSearch, data: DataPointer, networks: Sequence[Tokens]) -> dict[Tokens, float]:
    """Accuracy of each network with a search's shared weights, over all of mini-val."""
    from kfnas.steps.shared_weights import SharedWeights
    from kfnas.train.loop import cpu_threads

    assert search.weights is not None
    evaluator = SharedWeights(run, data).evaluator(run.searches.blob(search.weights))
    with cpu_threads(run.config.shared.training.threads):
        return {tokens: evaluator.mean_accuracy(tokens) for tokens in networks}
