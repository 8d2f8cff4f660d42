"""A fidelity study step by step: what is trained on what, and what a study that is stopped, repeated or changed keeps."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import kfnas.train
from kfnas.config import parse
from kfnas.errors import ConfigError, ConfigMismatch, ConflictError, DataError, NotFound, SpaceError
from kfnas.nn import build_network
from kfnas.pool import Pool, blocks_of
from kfnas.space import load_space
from kfnas.steps.fidelity_children import FidelityPlan, open_study, read_plan, shards_of
from kfnas.steps.fidelity_compare import accuracies_of, fidelity_compare, write_fidelity_report
from kfnas.steps.fidelity_config import FidelityConfig, load_fidelity_config
from kfnas.steps.fidelity_plan import draw_architectures, fidelity_plan
from kfnas.steps.fidelity_pool import _iterations, fidelity_pool, pool_use
from kfnas.steps.fidelity_train import fidelity_train
from kfnas.steps.prepared import load_data
from kfnas.studies.fidelity import Proxy
from kfnas.testing.sequence import StepSequence, small_search
from kfnas.train import ChildOutcome
from kfnas.train.loop import copied

TASK = {"name": "classification", "source": "digits", "resolution": 8, "num_train": 64, "num_val": 100}


def config(store: Path, **fields: Any) -> FidelityConfig:
    base = {"store": str(store), "task": TASK, "proxy": {"batch_size": 32}, "tracking": {"enabled": False}, **fields.pop("base", {})}
    small = {"architectures": 5, "epochs": [1, 2], "truth": {"epochs": 2, "seeds": 2}, "donors": {"architectures": 3, "epochs": 2}}
    return parse(FidelityConfig, {"name": "small", "base": base, **small, **fields})


class Steps:
    """The steps of one study, in this process."""

    def __init__(self, study: FidelityConfig, folder: Path) -> None:
        self.study, self.text, self.folder = study, study.text, folder
        folder.mkdir(exist_ok=True)
        self.plan, self.pooled, self.metrics, self.page = (folder / name for name in ("plan", "pooled", "metrics", "page.html"))

    def train_all(self) -> None:
        for shard in fidelity_plan(self.text, self.plan):
            fidelity_train(self.text, self.plan, shard)
        for shard in fidelity_pool(self.text, self.plan, self.pooled):
            fidelity_train(self.text, self.pooled, shard)

    def run(self) -> dict[str, Any]:
        self.train_all()
        fidelity_compare(self.text, self.pooled, self.metrics, self.page)
        return json.loads(self.metrics.read_text())


@pytest.fixture(scope="module")
def trained() -> Iterator[list[str]]:
    """Ids of the children that are trained, in order. Training is a stand-in: random weights, and an accuracy that architecture and seed decide."""
    ids: list[str] = []

    def train_shard(jobs, folder, task, recipe, *, workers, on_finished) -> None:
        for job in jobs:
            ids.append(job.id)
            network = build_network(job.spec, torch.Generator().manual_seed(job.seed))
            quality = np.random.default_rng([len(job.spec.layers), job.spec.layers[-2].out_channels]).random()
            accuracy = 0.5 + 0.1 * quality + 0.01 * np.random.default_rng([job.seed, round(recipe.epochs), job.initial_weights is None]).random()
            on_finished(job, ChildOutcome("ok", float(accuracy), {"top1": float(accuracy)}, device_seconds=0.1, weights=copied(network.state_dict())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kfnas.train, "train_shard", train_shard)
        yield ids


@pytest.fixture(autouse=True)
def fresh_list(trained: list[str]) -> None:
    trained.clear()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, trained: list[str]) -> Steps:
    """A study with all of its trainings done."""
    folder = tmp_path_factory.mktemp("study")
    steps = Steps(config(folder / "store"), folder / "artifacts")
    steps.run()
    return steps


def test_every_training_of_the_study_is_planned_once(done: Steps) -> None:
    plan = read_plan(done.pooled)
    assert {role: len(plan.of(role)) for role in ("truth", "random", "pool", "donor")} == {"truth": 10, "random": 10, "pool": 10, "donor": 3}
    assert len({child.key for child in plan.children}) == len({child.id for child in plan.children}) == 33
    assert {child.epochs for child in plan.of("truth")} == {2}
    ranked, donors = ({child.tokens for child in plan.of(role)} for role in ("truth", "donor"))
    assert len(ranked) == 5 and len(donors) == 3 and not ranked & donors
    assert {child.tokens for child in plan.of("random")} == ranked


def test_donors_share_no_image_with_what_is_ranked(done: Steps) -> None:
    plan, run = read_plan(done.pooled), open_study(done.text).any_run

    def pictures(data) -> set[bytes]:
        splits = load_data(run, data, ("mini_train", "mini_val")).splits
        return {image.numpy().tobytes() for split in splits.values() for image in split.images}

    ours, theirs = pictures(plan.data), pictures(plan.donor_data)
    assert len(ours) == len(theirs) == 164
    assert not ours & theirs


def test_a_training_from_the_pool_differs_from_its_like_in_the_initial_weights_alone(done: Steps) -> None:
    plan = read_plan(done.pooled)
    for random, pool in zip(plan.of("random"), plan.of("pool"), strict=True):
        assert (random.index, random.epochs, random.tokens, random.seed) == (pool.index, pool.epochs, pool.tokens, pool.seed)
        assert random.initial_weights is None
        assert pool.initial_weights is not None
        assert random.key != pool.key
    assert len({child.seed for child in plan.children if child.role in ("truth", "random", "donor")}) == 10 + 5 + 3


def test_the_pool_holds_the_donors_blocks_and_nothing_else(done: Steps) -> None:
    study, plan = open_study(done.text), read_plan(done.pooled)
    rows = Pool(study.store, "small.donors").at().rows
    assert {row.source for row in rows} == {child.key for child in plan.of("donor")}
    used = pool_use(study)
    assert used is not None
    assert used.queried == 5 * 7
    assert 0 < used.matched <= used.queried
    assert 0 < used.filled <= 1
    assert len(used.weights) == 5


def test_a_pool_that_holds_other_children_s_blocks_is_refused(done: Steps, tmp_path: Path) -> None:
    study = config(tmp_path / "store")
    steps, other = Steps(study, tmp_path / "first"), open_study(done.text)
    for shard in fidelity_plan(study.text, steps.plan):
        fidelity_train(study.text, steps.plan, shard)
    foreign = open_study(study.text)
    plan = read_plan(done.pooled)
    donor = plan.of("donor")[0].model_copy(update={"key": "f" * 64})
    record = other.record_of(plan.of("donor")[0])
    run = other.run(donor.epochs)
    blocks = blocks_of(
        run.space, run.space.architecture(donor.tokens), run.network(donor.tokens, plan.donor_data),
        safetensors.numpy.load(other.searches.child_weights(record)), source=donor.key, iterations=_iterations(other, plan), score=0.99,
    )  # fmt: skip
    Pool(foreign.store, "small.donors").push(list(blocks), space=run.space.digest, iterations=_iterations(other, plan))
    with pytest.raises(ConflictError, match=r"pool small\.donors holds blocks of 1 children that are no donors of this study"):
        fidelity_pool(study.text, steps.plan, steps.pooled)
    assert {row.source for row in Pool(foreign.store, "small.donors").at().rows} == {donor.key}, "nothing was added to it"


def test_figures_come_from_the_ledger_and_stand_in_metrics_and_report(done: Steps) -> None:
    study, plan = open_study(done.text), read_plan(done.pooled)
    records = {child.id: study.record_of(child) for child in plan.children}
    accuracies = accuracies_of(study, plan, records)
    assert accuracies.truth[3, 1] == records["truth-003-s1"]["accuracy"]
    assert accuracies.proxies[Proxy("pool", 2)][4] == records["pool-004-e2"]["accuracy"]
    told = json.loads(done.metrics.read_text())
    assert told["metrics"]["fidelity/num_architectures"] == 5
    assert told["metrics"]["study/num_epochs"] == 10 * 2 + 2 * 5 * 3 + 3 * 2
    assert told["metrics"]["fidelity/passes"] == (not told["failings"])
    page = done.page.read_text()
    assert "Spearman&#39;s rho" in page or "Spearman's rho" in page
    assert "<svg" in page
    figures = write_fidelity_report(done.text, done.folder / "again.html")
    assert figures.difference.mid == told["metrics"]["fidelity/difference"]
    table = list(csv.DictReader(io.StringIO((done.folder / "again.csv").read_text())))
    assert {row["id"]: float(row["accuracy"]) for row in table} == {name: record["accuracy"] for name, record in records.items()}


def test_a_study_that_is_run_again_trains_nothing(done: Steps, tmp_path: Path, trained: list[str]) -> None:
    before = json.loads(done.metrics.read_text())
    assert Steps(done.study, tmp_path / "again").run() == before
    assert trained == []


def test_a_study_that_was_stopped_goes_on_with_what_is_missing(done: Steps, tmp_path: Path, trained: list[str]) -> None:
    study = config(tmp_path / "store", base={"execution": {"shards": 3}})
    first = Steps(study, tmp_path / "first")
    shards = fidelity_plan(study.text, first.plan)
    assert len(shards) == 3
    fidelity_train(study.text, first.plan, shards[1])
    assert 0 < len(trained) < 23
    with pytest.raises(NotFound, match=r"was not trained .* run the study again"):
        fidelity_pool(study.text, first.plan, first.pooled)
    told = Steps(study, tmp_path / "second").run()
    assert sorted(trained) == sorted(child.id for child in read_plan(done.pooled).children)
    ours, theirs = told["metrics"], json.loads(done.metrics.read_text())["metrics"]
    assert {name: value for name, value in ours.items() if name != "study/device_seconds"} == {
        name: value for name, value in theirs.items() if name != "study/device_seconds"
    }


def test_another_configuration_is_refused_under_the_same_name(done: Steps, tmp_path: Path) -> None:
    other = done.study.model_copy(update={"seed": 1})
    with pytest.raises(ConfigMismatch, match=r"study 'small' .* seed was 0, is 1; restore it, or give the study another name"):
        fidelity_plan(other.text, tmp_path / "plan")
    moved = done.study.model_copy(update={"base": {**done.study.base, "execution": {"shards": 7}}})
    fidelity_plan(moved.text, tmp_path / "plan")


def test_a_training_that_fails_costs_its_architecture_and_not_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_shard = kfnas.train.train_shard

    def unlucky(jobs, *arguments, on_finished, **options):
        def finished(job, outcome):
            unfit = job.id in ("truth-001-s0", "donor-000-e1")
            on_finished(job, ChildOutcome("failed", reason="diverged: by chance") if unfit else outcome)

        train_shard(jobs, *arguments, on_finished=finished, **options)

    monkeypatch.setattr(kfnas.train, "train_shard", unlucky)
    settings = config(tmp_path / "store", architectures=3, truth={"epochs": 1, "seeds": 2}, donors={"architectures": 2, "epochs": 1})
    steps = Steps(settings, tmp_path / "artifacts")
    steps.train_all()
    study, plan = open_study(settings.text), read_plan(steps.pooled)
    accuracies = accuracies_of(study, plan, {child.id: study.record_of(child) for child in plan.children})
    assert np.isnan(accuracies.truth).tolist() == [[False, False], [True, False], [False, False]]
    assert len(accuracies.complete().truth) == 2
    assert len({row.source for row in Pool(study.store, "small.donors").at().rows}) == 1


def test_shards_take_about_as_long_and_are_never_none(done: Steps) -> None:
    children = read_plan(done.plan).children
    shards = [json.loads(shard)["ids"] for shard in shards_of(children, 4)]
    assert sorted(name for ids in shards for name in ids) == sorted(child.id for child in children)
    epochs = {child.id: child.epochs for child in children}
    loads = [sum(epochs[name] for name in ids) for ids in shards]
    assert max(loads) - min(loads) <= 2
    assert [json.loads(shard)["ids"] for shard in shards_of([], 4)] == [[]]


def test_architectures_are_canonical_and_different() -> None:
    space = load_space("mnas_small")
    ranked, donors = draw_architectures(space, 30, 20, seed=3)
    assert len({*ranked, *donors}) == 50
    assert all(space.canonical(architecture) == architecture for architecture in ranked + donors)
    assert draw_architectures(space, 30, 20, seed=3) == (ranked, donors)
    assert draw_architectures(space, 30, 20, seed=4)[0] != ranked


def test_too_few_architectures_or_images_are_refused(tmp_path: Path) -> None:
    from kfnas.space import Space

    with pytest.raises(SpaceError, match="4 different architectures were found, and the study needs 6"):
        draw_architectures(Space.from_decisions({"a": [0, 1], "b": [0, 1]}), 4, 2, seed=0)
    large = config(tmp_path / "store", base={"task": {**TASK, "num_train": 1000}})
    with pytest.raises(DataError, match="too few for 1000 \\+ 100 others; lower num_train and num_val"):
        fidelity_plan(large.text, tmp_path / "plan")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base": {"seed": 3}}, "base.seed: the study gives it; remove it"),
        ({"base": {"proxy": {"epochs": 3}}}, "base.proxy.epochs: the study gives it"),
        ({"epochs": [1, 1]}, "are not different whole numbers"),
        ({"epochs": [1, 3]}, r"criterion.random_epoch: 2 is none of epochs \[1, 3\]; add it there"),
        ({"truth": {"seeds": 1}}, r"truth\.seeds: .*2 \(got 1\)"),
    ],
)
def test_a_wrong_configuration_is_one_line(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **fields)


def test_a_file_is_read_with_its_overrides_and_its_base_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text("name: small\nbase: {task: {name: classification, source: digits}}\n")
    study = load_fidelity_config(path, ("architectures=7", "base.store=there"))
    assert study.architectures == 7
    assert study.run(4).proxy.epochs == 4
    assert study.run(4).store == str(tmp_path / "there")
    with pytest.raises(ConfigError, match=r"base: .*rounds"):
        load_fidelity_config(path, ("base.rounds=0",))


def test_a_plan_survives_its_artifact(done: Steps) -> None:
    plan = read_plan(done.pooled)
    assert FidelityPlan.model_validate(json.loads(plan.model_dump_json())) == plan


def test_a_search_and_a_study_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    study = config(tmp_path / "store")
    sequence = StepSequence(small_search(tmp_path / "store"), tmp_path / "search")
    open_study(study.text).require_own()
    with pytest.raises(ConfigMismatch, match="has a fidelity study 'small'"):
        sequence.begin()
    other = StepSequence(small_search(tmp_path / "other"), tmp_path / "other-search")
    other.begin()
    with pytest.raises(ConfigMismatch, match="has a search of that name"):
        fidelity_plan(config(tmp_path / "other").text, tmp_path / "plan")
