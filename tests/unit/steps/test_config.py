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
