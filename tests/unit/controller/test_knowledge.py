"""What goes from one search to another: samples that another reward scores anew, and the critic's weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kfnas.config import parse
from kfnas.controller import Candidate, Knowledge, KnownSample, Result, Search, SearchConfig
from kfnas.errors import ConfigError, CorruptError, NotFound, SpaceError, StateVersionError
from kfnas.space import Space

SPACE = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(9)})
CRITIC = {"model": "networks", "hidden_units": 16, "min_samples": 24, "fit_steps": 10, "audit_share": 0.0}


def _search(agent: str = "mnas+uac", space: Space = SPACE, prior: Knowledge | None = None, seed: int = 0, **fields: object) -> Search:
    values = {"agent": agent, "batch_size": 8, "policy": {"hidden_units": 16}, "critic": CRITIC, **fields}
    return Search(space, parse(SearchConfig, values), seed=seed, prior=prior)


def _answer(candidate: Candidate, scale: float = 1.0) -> Result:
    return Result(candidate.id, accuracy=scale * sum(candidate.tokens) / 18, cost=1.0 + candidate.tokens[0], fidelity="1 epoch")


def _rounds(search: Search, count: int, scale: float = 1.0) -> Search:
    for _ in range(count):
        search.update([_answer(candidate, scale) for candidate in search.suggest()])
    return search


@pytest.fixture(scope="module")
def donor() -> Knowledge:
    return _rounds(_search(seed=5), 12, scale=0.5).knowledge(task="faces")


def _trusted(search: Search) -> list[int]:
    """Trusted draws of each round."""
    return [sum(row.source == "trusted" for row in search.rows if row.round == number) for number in range(search.round)]


@pytest.mark.parametrize("agent", ["mnas", "fnas"])
def test_knowledge_survives_its_folder(agent: str, tmp_path: Path) -> None:
    knowledge = _rounds(_search(agent), 3).knowledge(task="digits")
    knowledge.save(tmp_path)
    again = Knowledge.load(tmp_path)
    assert again == knowledge
    assert again.digest() == knowledge.digest()
    assert (tmp_path / "critic.safetensors").exists() == (agent == "fnas")
    assert again.critic.keys() == knowledge.critic.keys()
    assert all(np.array_equal(again.critic[name], knowledge.critic[name]) for name in knowledge.critic)
    assert {sample.task for sample in again.samples} == {"digits"}


def test_knowledge_passes_on_from_search_to_search_with_each_task_standardised_by_itself() -> None:
    first = _rounds(_search(seed=1), 6, scale=0.5).knowledge(task="faces")
    second = _rounds(_search(seed=2, prior=first), 6).knowledge(task="digits")
    count = len(first.samples)
    assert [sample.task for sample in second.samples] == ["faces"] * count + ["digits"] * (len(second.samples) - count)
    assert second.samples[:count] == first.samples
    third = _search(seed=3, prior=second)
    critic = third._live_agent()._critic  # type: ignore[attr-defined]
    standard = critic._prior.standard
    # Twice the accuracy for the same network: without the tasks apart, nearly all faces would lie below nearly all digits.
    for part in (standard[:count], standard[count:]):
        assert part.mean() == pytest.approx(0.0, abs=1e-9)
        assert part.std() == pytest.approx(1.0)
    assert len(_rounds(third, 4, scale=0.7).knowledge(task="cars").samples) > len(second.samples)


def test_samples_of_two_searches_without_a_label_are_not_mixed() -> None:
    first = _rounds(_search(seed=1), 6).knowledge()
    search = _rounds(_search(seed=2, prior=first), 4)
    with pytest.raises(ConfigError, match=r"have a label.*give knowledge\(task=\.\.\.\)"):
        search.knowledge()
    assert {sample.task for sample in search.knowledge(task="digits").samples} == {"", "digits"}
    with pytest.raises(ConfigError, match="have a label"):
        _search(seed=3, prior=search.knowledge(task="digits")).knowledge()


def test_knowledge_of_the_first_format_is_read(tmp_path: Path) -> None:
    samples = [[[0] * 9, 0.5, None, 1.0], [[1] * 9, 0.6, 2.0, "1 epoch"]]
    (tmp_path / "knowledge.json").write_text(json.dumps({"format": 1, "space": SPACE.to_json(), "samples": samples}))
    knowledge = Knowledge.load(tmp_path)
    assert knowledge.samples == (KnownSample((0,) * 9, 0.5, None, 1.0, "", "random"), KnownSample((1,) * 9, 0.6, 2.0, "1 epoch", "", "random"))
    assert knowledge.critic == {}


def test_damaged_or_newer_knowledge_is_refused(donor: Knowledge, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Knowledge.load(tmp_path)
    donor.save(tmp_path)
    weights, path = tmp_path / "critic.safetensors", tmp_path / "knowledge.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(CorruptError, match=r"critic\.safetensors"):
        Knowledge.load(tmp_path)
    weights.unlink()
    with pytest.raises(CorruptError, match="missing"):
        Knowledge.load(tmp_path)
    weights.write_bytes(whole)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "format": 3}))
    with pytest.raises(StateVersionError, match="newer kfnas"):
        Knowledge.load(tmp_path)
    path.write_text("{}")
    with pytest.raises(CorruptError):
        Knowledge.load(tmp_path)


def test_knowledge_without_a_critic_leaves_no_earlier_one_behind(donor: Knowledge, tmp_path: Path) -> None:
    donor.save(tmp_path)
    donor.samples_only().save(tmp_path)
    assert Knowledge.load(tmp_path).critic == {}


def test_a_prior_of_another_space_is_refused(donor: Knowledge) -> None:
    with pytest.raises(SpaceError, match="in the same space"):
        _search(space=Space.from_decisions({"a": [0, 1]}), prior=donor)


def test_a_prior_whose_samples_cannot_be_scored_is_refused() -> None:
    without_cost = Knowledge(SPACE.to_json(), (KnownSample((0,) * 9, 0.5, None, None),))
    with pytest.raises(ConfigError, match="cost"):
        _search(prior=without_cost, reward={"target": 2.0})
    with pytest.raises(ConfigError, match="no sample"):
        _search(prior=Knowledge(SPACE.to_json(), ()))


def test_a_transferred_critic_trusts_nothing_in_its_first_round_and_is_trusted_before_a_fresh_one(donor: Knowledge) -> None:
    fresh, transferred = _rounds(_search(), 4), _rounds(_search(prior=donor), 4)
    assert _trusted(fresh) == [0, 0, 0, _trusted(fresh)[3]]
    assert _trusted(transferred)[0] == 0
    assert sum(_trusted(transferred)[1:3]) > 0


def test_a_transferred_critic_errs_less_at_first_than_a_fresh_one(donor: Knowledge) -> None:
    # Rewards of the donor's task are half of this one's: only their order goes over.
    def error(search: Search) -> float:
        rows = [row for row in _rounds(search, 3).rows if row.round in (1, 2) and row.is_activated]
        return float(np.mean([abs((row.value or 0.0) - (row.reward or 0.0)) for row in rows]))

    fresh, transferred = ([error(_search(seed=seed, prior=prior)) for seed in range(3)] for prior in (None, donor))
    assert all(after < before for before, after in zip(fresh, transferred, strict=True))


def test_a_misleading_prior_is_dropped_and_not_handed_on(donor: Knowledge) -> None:
    turned = [sample._replace(accuracy=1.0 - sample.accuracy) for sample in donor.samples]
    search = _rounds(_search(prior=Knowledge(donor.space, tuple(turned))), 6)
    assert _trusted(search)[:3] == [0, 0, 0]
    assert sum(_trusted(search)) > 0  # on samples of its own
    assert len(search.knowledge().samples) == search.num_activated


def test_knowledge_hands_on_the_priors_samples_under_their_own_task(donor: Knowledge) -> None:
    search = _rounds(_search(prior=donor), 3)
    samples = search.knowledge(task="digits").samples
    assert samples[: len(donor.samples)] == donor.samples
    assert {sample.task for sample in samples[len(donor.samples) :]} == {"digits"}
    assert len(samples) == len(donor.samples) + search.num_activated


def test_another_target_scores_the_prior_anew(donor: Knowledge) -> None:
    # Cost is 1 plus the first token. With a target of 1 a hard reward divides by the cost; with one of 3 it leaves the accuracy as it is.
    values = []
    for target in (1.0, 3.0):
        search = _search(prior=donor, reward={"target": target}, critic={**CRITIC, "fit_steps": 50})
        search.suggest()
        agent = search._live_agent()
        critic = agent._critic  # type: ignore[attr-defined]
        low, high = critic._outputs([(first, *[1] * 8) for first in (0, 2)], [False, False])[0]
        values.append(high - low)
    assert values[0] < 0 < values[1]


def test_a_search_with_a_prior_is_saved_whole(donor: Knowledge, tmp_path: Path) -> None:
    whole, broken = _search(prior=donor), _search(prior=donor)
    for _ in range(4):
        results = [_answer(candidate) for candidate in whole.suggest()]
        whole.update(results)
        broken.suggest()
        broken.save(tmp_path / "state")
        broken = Search.load(tmp_path / "state")
        broken.update(results[::-1])
    assert broken.digest() == whole.digest()
    assert broken.knowledge().digest() == whole.knowledge().digest()
    assert (tmp_path / "state" / "prior.json").exists()
    _search("random").save(tmp_path / "state")
    assert not (tmp_path / "state" / "prior.json").exists()
    assert whole.digest() != _rounds(_search(), 4).digest()


def test_knowledge_of_a_saved_search_is_read_without_torch(tmp_path: Path) -> None:
    search = _rounds(_search("fnas"), 4)
    search.save(tmp_path)
    code = (
        "import sys; from kfnas.controller import Search; "
        f"knowledge = Search.load({str(tmp_path)!r}).knowledge('digits'); "
        "assert 'torch' not in sys.modules; print(knowledge.digest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == search.knowledge("digits").digest()
