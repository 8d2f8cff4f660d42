"""A search that starts from what an earlier one has learnt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kfnas.errors import ConfigError, NotFound, SpaceError
from kfnas.steps.config import RunConfig
from kfnas.steps.context import open_run
from kfnas.steps.prior import check_prior, knowledge_of_prior
from kfnas.testing.sequence import StepSequence, small_search

QUICK = {"hidden_units": 8, "fit_steps": 2, "threshold_draws": 8, "min_samples": 4}


def eager(store: Path | str, **fields: object) -> RunConfig:
    """A search whose agent is `fnas`, with a critic that costs little."""
    return small_search(store, **{"search": {"agent": "fnas", "batch_size": 2, "critic": QUICK}, "rounds": 3, **fields})


def one_round(sequence: StepSequence) -> None:
    for shard in sequence.open_round():
        sequence.train(shard)
    sequence.close_round()


@pytest.fixture(scope="module")
def earlier_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    sequence = StepSequence(eager(folder / "store", name="earlier"), folder / "artifacts")
    sequence.begin()
    one_round(sequence)
    return folder / "store"


@pytest.fixture
def store(earlier_store: Path, tmp_path: Path) -> Path:
    """A copy of a store with a search of one round, for a test to change."""
    return Path(shutil.copytree(earlier_store, tmp_path / "store"))


def test_only_knowledge_crosses_over_and_it_bears_the_earlier_task_s_label(store: Path, tmp_path: Path) -> None:
    sequence = StepSequence(eager(store, prior="earlier"), tmp_path / "artifacts")
    sequence.begin()
    run = open_run(sequence.text)
    search = run.load_search(sequence.pointer)
    knowledge = search.knowledge(task="own")
    head = open_run(eager(store, name="earlier").text).searches.head()
    assert (search.rows, search.num_activated) == ([], 0)
    assert [sample.accuracy is not None for sample in knowledge.samples] == [True, True]
    assert {sample.task for sample in knowledge.samples} == {"classification digits"}
    assert run.searches.record("search", "prior")["snapshot"] == head.digest
    one_round(sequence)
    assert {sample.task for sample in run.load_search(sequence.pointer).knowledge(task="own").samples} >= {"own"}


def test_what_was_taken_once_is_taken_again_whatever_the_earlier_search_has_learnt_since(store: Path, tmp_path: Path) -> None:
    run = open_run(eager(store, prior={"search": "earlier", "task": "digits"}).text)
    first = knowledge_of_prior(run)
    earlier = StepSequence(eager(store, name="earlier"), tmp_path / "earlier")
    earlier.begin()
    one_round(earlier)
    again = knowledge_of_prior(run)
    assert first is not None
    assert again is not None
    assert again.digest() == first.digest()
    assert {sample.task for sample in again.samples} == {"digits"}
    assert len(open_run(earlier.text).load_search(earlier.pointer).knowledge().samples) > len(again.samples)


def test_a_prior_may_be_in_another_store(store: Path, tmp_path: Path) -> None:
    run = open_run(eager(tmp_path / "elsewhere", prior={"search": "earlier", "store": str(store)}).text)
    assert len(knowledge_of_prior(run).samples) == 2


def test_a_prior_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = open_run(eager(tmp_path / "store", prior="earlier").text)
    for check in (check_prior, knowledge_of_prior):
        with pytest.raises(ConfigError, match=r"prior: no search 'earlier' in file://.*; give the name"):
            check(run)
    with pytest.raises(ConfigError, match=r"prior: no search 'earlier'"):
        StepSequence(eager(tmp_path / "store", prior="earlier"), tmp_path / "artifacts").begin()
    assert run.searches.head() is None


def test_a_search_is_no_prior_of_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prior: 'small' is this search itself"):
        check_prior(open_run(eager(tmp_path / "store", prior="small").text))


def test_an_agent_without_a_critic_takes_no_prior(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prior: agent mnas has no critic that could start from it; set search.agent to mnas\+uac or fnas"):
        small_search(tmp_path / "store", prior="earlier")


def test_a_prior_of_another_space_is_refused_before_anything_is_trained(store: Path, tmp_path: Path) -> None:
    config = eager(store, prior="earlier", space={"name": "mnas_v2"}, task={"name": "classification", "source": "digits", "resolution": 32})
    with pytest.raises(SpaceError, match="space"):
        StepSequence(config, tmp_path / "artifacts").begin()
    assert open_run(config.text).searches.head() is None


def test_a_recorded_state_that_is_gone_is_said_so(store: Path) -> None:
    run = open_run(eager(store, prior="earlier").text)
    assert knowledge_of_prior(run) is not None
    digest = run.searches.record("search", "prior")["snapshot"]
    (store / "searches" / "earlier" / "snapshots" / f"{digest}.json").unlink()
    with pytest.raises(NotFound, match=rf"prior: state {digest[:12]} of search 'earlier' is gone"):
        knowledge_of_prior(run)


def test_a_search_without_a_prior_has_none(tmp_path: Path) -> None:
    assert knowledge_of_prior(open_run(eager(tmp_path / "store").text)) is None
