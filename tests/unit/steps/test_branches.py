"""Networks trained alone and with others, each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kfnas.errors import ConfigError
from kfnas.space import MixopSpace, load_space
from kfnas.space.mixop_operators import BETA_NAS
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage
from kfnas.steps import context
from kfnas.steps.branches import KIND, prove_branches
from kfnas.steps.branches_report import branches_files, branches_headline
from kfnas.steps.context import open_run
from kfnas.storage import SearchStore
from kfnas.testing.sequence import small_search
from kfnas.testing.supernet_sequence import small_supernet_search


@pytest.fixture(autouse=True)
def tiny_space(monkeypatch: pytest.MonkeyPatch) -> None:
    space = MixopSpace("tiny", MixopSkeleton("tiny", 8, 8, (Stage(8, 2, 1), Stage(16, 1, 2)), 32, narrow_head=True), BETA_NAS)
    monkeypatch.setattr(context, "load_space", lambda name: space if name == "tiny" else load_space(name))


def test_each_group_is_trained_once_and_its_paths_are_drawn_from_its_own_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfnas.oneshot import SupernetTraining

    config = small_supernet_search(tmp_path / "store", "betanas", space={"name": "tiny", "width": 1.0})
    drawn: list[list[tuple[int, ...]]] = []
    train = SupernetTraining.train

    def watched(training, sample, *, until):
        paths: list[tuple[int, ...]] = []
        drawn.append(paths)
        train(training, lambda rng: paths.append(sample(rng)) or paths[-1], until=until)

    monkeypatch.setattr(SupernetTraining, "train", watched)
    told: list[str] = []
    figures = prove_branches(config.text, epochs=1, seeds=2, tell=told.append)
    assert len(drawn) == len(told) == 2 * (4 + 2 + 1)
    assert {count: values.shape for count, values in figures.accuracies.items()} == {1: (2, 4), 2: (2, 4), 4: (2, 4)}
    alone, pairs, together = drawn[:4], drawn[4:6], drawn[6]
    assert [len(set(paths)) for paths in alone] == [1, 1, 1, 1]
    networks = [paths[0] for paths in alone]
    assert all(len(set(choices)) == 4 for choices in zip(*networks, strict=True)), "the networks have no operator in common"
    assert 2 * len(alone[0]) == len(pairs[0])
    assert 4 * len(alone[0]) == len(together)
    assert {path[0] for path in pairs[1]} <= {networks[2][0], networks[3][0]}
    assert not set(together) <= set(networks), "paths of four branches mix the networks' operators"

    drawn.clear()
    again = prove_branches(config.text, epochs=1, seeds=2)
    assert drawn == []
    assert all(np.array_equal(again.accuracies[count], figures.accuracies[count]) for count in (1, 2, 4))
    assert len(list(SearchStore(open_run(config.text).store, f"{config.name}-branches").records(KIND))) == 14
    files = branches_files(figures, config, 1)
    assert sorted(files) == ["networks.csv", "plots/branches.png", "report.html"]
    assert len(files["networks.csv"].decode().splitlines()) == 1 + 2 * 4 * 3
    assert "2 less 4 branches" in branches_headline(figures)


def test_groups_that_do_not_come_out_even_and_other_searches_are_refused(tmp_path: Path) -> None:
    config = small_supernet_search(tmp_path / "store", "betanas", space={"name": "tiny", "width": 1.0})
    for counts in ((1, 3), (2, 4), (0, 1), (-2, 1)):
        with pytest.raises(ConfigError, match="give numbers that divide it, 1 among them"):
            prove_branches(config.text, branches=counts)
    with pytest.raises(ConfigError, match="give a configuration of a search on one supernet"):
        prove_branches(small_search(tmp_path / "store").text)
