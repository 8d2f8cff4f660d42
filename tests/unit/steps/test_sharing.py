"""Networks of a PC-NAS search's last updates, trained alone and read from shared weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfnas.errors import ConfigError, ConfigMismatch, NotFound
from kfnas.space import MixopSpace, load_space
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage
from kfnas.steps import context
from kfnas.steps.config import RunConfig
from kfnas.steps.context import open_run
from kfnas.steps.sharing import _candidates, prove_sharing
from kfnas.steps.sharing_report import sharing_files, sharing_headline
from kfnas.steps.status import progress
from kfnas.steps.supernet_search import load_supernet
from kfnas.testing.supernet_sequence import SupernetSequence, small_supernet_search


@pytest.fixture(autouse=True)
def tiny_space(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = (Bottleneck("MBConv", 3, 3), Bottleneck("MBConv", 1, 5), Identity())
    skeleton = MixopSkeleton("tiny", 8, 8, (Stage(8, 2, 1), Stage(16, 2, 2)), 32, narrow_head=True)
    space = MixopSpace("tiny", skeleton, operators, reference="MBConv_3_3")
    monkeypatch.setattr(context, "load_space", lambda name: space if name == "tiny" else load_space(name))


def searched(store: Path, algorithm: str, **fields: object) -> RunConfig:
    """A search whose rounds are done."""
    config = small_supernet_search(store, algorithm, **{"name": algorithm, "space": {"name": "tiny", "width": 1.0}, "proxy": {"epochs": 2}, **fields})
    sequence = SupernetSequence(config, store.parent / f"{config.name}-artifacts", config.name)
    sequence.begin()
    while not progress(sequence.text).searching_done:
        sequence.round()
    return config


def test_candidates_are_trained_once_and_ranked_by_each_searchs_weights(tmp_path: Path) -> None:
    ours, other = searched(tmp_path / "store", "pcnas"), searched(tmp_path / "store", "oneshot")
    told: list[str] = []
    figures = prove_sharing([ours.text, other.text], num_networks=4, seeds=2, tell=told.append)
    assert figures.searches == ("pcnas", "oneshot")
    assert len({network.architecture for network in figures.networks}) == 4
    assert len(told) == 2 * len(figures.networks)
    assert all(0 <= network.shared[name] <= 1 for network in figures.networks for name in figures.searches)
    told.clear()
    assert prove_sharing([ours.text, other.text], num_networks=4, seeds=2, tell=told.append) == figures
    assert told == []
    files = sharing_files(figures, ours)
    assert sorted(files) == ["networks.csv", "plots/sharing.png", "report.html"]
    assert files["networks.csv"].decode().splitlines()[0] == "architecture,alone,pcnas,oneshot"
    assert f"n = {len(figures.networks)}" in sharing_headline(figures)

    with pytest.raises(ConfigError, match="give a PC-NAS search first"):
        prove_sharing([other.text, ours.text], num_networks=4)
    with pytest.raises(ConfigError, match="given twice"):
        prove_sharing([ours.text, ours.text], num_networks=4)
    with pytest.raises(ConfigMismatch):
        prove_sharing([ours.model_copy(update={"seed": 5}).text], num_networks=4)
    with pytest.raises(NotFound, match="run it first"):
        prove_sharing([ours.model_copy(update={"name": "another"}).text], num_networks=4)


def test_candidates_of_earlier_updates_are_completed_where_the_last_ones_are_too_few(tmp_path: Path) -> None:
    config = searched(tmp_path / "store", "pcnas")
    run = open_run(config.text)
    search = load_supernet(run, run.searches.head().pointer())
    last = {run.space.canonical(run.space.architecture(candidate.tokens)).tokens for candidate in search.pcnas.updates[-1]}
    few, more = (_candidates(run, search, len(last) + extra) for extra in (0, 2))
    assert {run.space.canonical(run.space.architecture(tokens)).tokens for tokens in few} == last
    assert more[: len(last)] == few and len({run.space.canonical(run.space.architecture(tokens)).tokens for tokens in more}) == len(last) + 2
    assert all(any(tokens[:-1] == candidate.tokens for candidate in search.pcnas.updates[-2]) for tokens in more[len(last) :])


def test_a_search_that_is_not_at_its_end_is_not_ranked(tmp_path: Path) -> None:
    config = small_supernet_search(tmp_path / "store", "pcnas", space={"name": "tiny", "width": 1.0})
    sequence = SupernetSequence(config, tmp_path / "artifacts")
    sequence.begin()
    sequence.round()
    with pytest.raises(NotFound, match="not at its end"):
        prove_sharing([config.text], num_networks=4)
