"""What `complete` fills in."""

import pytest

from kfnas.config import parse
from kfnas.steps.config import RunConfig, complete


def completed(**search: object) -> RunConfig:
    return complete(
        parse(RunConfig, {"name": "flowers", "task": {"name": "classification", "source": "digits"}, "rounds": 12, "search": {"batch_size": 8, **search}})
    )


@pytest.mark.parametrize("agent", ["fnas", "mnas+aeb"])
def test_an_experience_buffer_anneals_over_the_rounds_there_are(agent):
    assert completed(agent=agent).search.horizon == 96


def test_a_given_horizon_stays_and_agents_without_a_buffer_get_none():
    assert completed(agent="fnas", horizon=50).search.horizon == 50
    assert completed(agent="mnas").search.horizon is None


def test_searches_that_go_by_the_priority_have_the_digests_of_before_there_was_a_choice() -> None:
    # Taken of the code before; where another default changes, take them anew.
    def digest(**search: object) -> str:
        return parse(RunConfig, {"name": "x", "search": search}).digest[:8]

    assert digest(agent="mnas+aeb", experience={"correction": "priority"}) == "50b3d8bf"
    assert digest(agent="fnas", preset="paper") == "f041fbbb"
    assert digest(agent="fnas") != digest(agent="fnas", experience={"correction": "priority"}) == "0138741d"
