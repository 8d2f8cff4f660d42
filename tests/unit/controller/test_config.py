"""Presets fill what is not given, and agents without a critic or a buffer say nothing of either."""

import pytest

from kfnas.config import canonical_json, parse
from kfnas.controller import CriticConfig, ExperienceConfig, RewardConfig, SearchConfig, ThresholdConfig
from kfnas.controller.config import BUFFER_AGENTS, CRITIC_AGENTS
from kfnas.errors import ConfigError


def test_the_paper_preset_is_the_papers() -> None:
    config = SearchConfig(agent="fnas", preset="paper")
    assert config.reward.kind == "soft"
    assert config.critic.model == "networks"
    assert config.critic.threshold.fixed is not None
    assert config.critic.audit_share == 0.0
    assert (config.experience.standardised, config.experience.normalised) == (False, False)


def test_the_default_preset_is_the_products() -> None:
    config = SearchConfig(agent="fnas")
    assert config.reward.kind == "hard"
    assert config.critic.threshold == ThresholdConfig(quantile=0.5)
    assert (config.critic.audit_share, config.critic.max_trusted_share, config.critic.max_resamples) == (0.05, 0.5, 20)
    assert (config.experience.size, config.experience.max_share) == (10, 0.5)
    assert (config.experience.standardised, config.experience.normalised, config.experience.correction) == (True, True, "inclusion")


@pytest.mark.parametrize(
    "critic", [{"threshold": {"quantile": 0.7}, "hidden_units": 50}, CriticConfig(threshold=ThresholdConfig(quantile=0.7), hidden_units=50)]
)
def test_fields_that_are_given_win_over_the_preset(critic: object) -> None:
    reward = {"kind": "hard", "target": 5.0}
    config = parse(SearchConfig, {"agent": "fnas", "preset": "paper", "reward": reward, "critic": critic, "experience": {"normalised": True}})
    assert config.reward == RewardConfig(kind="hard", target=5.0)
    assert config.critic == SearchConfig(preset="paper").critic.model_copy(update={"threshold": ThresholdConfig(quantile=0.7), "hidden_units": 50})
    assert config.experience == ExperienceConfig(standardised=False, normalised=True, correction="priority")


@pytest.mark.parametrize("agent", ["mnas", "mnas+uac", "mnas+aeb", "fnas"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_configuration_survives_json(agent: str, preset: str) -> None:
    config = parse(SearchConfig, {"agent": agent, "preset": preset, "critic": {"hidden_units": 50}})
    assert parse(SearchConfig, config.model_dump(mode="json")) == config


def test_an_agent_without_the_modules_has_the_configuration_it_had_before_there_were_any() -> None:
    value = SearchConfig(agent="mnas").model_dump(mode="json")
    assert set(value) == {"agent", "batch_size", "horizon", "reward", "policy", "ppo", "evolution", "max_known_batches"}
    assert "critic" in SearchConfig(agent="mnas+uac").model_dump()
    assert "experience" not in SearchConfig(agent="mnas+uac").model_dump()
    assert "critic" not in canonical_json(SearchConfig(agent="mnas+aeb"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "papers"}, "preset"),
        ({"preset": ["paper"]}, "preset"),
        ({"agent": "fnas", "batch_size": 1}, "batch_size 2 or more"),
        ({"critic": {"threshold": {"quantile": 0.5, "fixed": 0.1}}}, "one of quantile and fixed"),
        ({"critic": {"max_trusted_share": 1.0}}, "max_trusted_share"),
        ({"experience": {"size": 0}}, "size"),
        ({"preset": "paper", "critic": 3}, "critic"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(SearchConfig, fields)


def test_the_modules_of_each_agent() -> None:
    agents = ("mnas", "mnas+uac", "mnas+aeb", "fnas", "random")
    assert [agent in CRITIC_AGENTS for agent in agents] == [False, True, False, True, False]
    assert [agent in BUFFER_AGENTS for agent in agents] == [False, False, True, True, False]
