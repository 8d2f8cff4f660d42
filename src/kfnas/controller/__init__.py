"""Searches: what to evaluate next, and what to make of the results. torch is imported when an agent with a policy first draws or
learns."""

from kfnas.controller.agents import Agent, AgentState, Draw, Scored
from kfnas.controller.candidates import Candidate, Result, Row
from kfnas.controller.config import (
    AgentName,
    CriticConfig,
    EvolutionConfig,
    ExperienceConfig,
    PolicyConfig,
    PPOConfig,
    PresetName,
    SearchConfig,
    ThresholdConfig,
)
from kfnas.controller.knowledge import Knowledge, KnownSample
from kfnas.controller.reward import RewardConfig, is_within_budget, reward
from kfnas.controller.search import Search, make_agent

__all__ = [
    "Agent",
    "AgentName",
    "AgentState",
    "Candidate",
    "CriticConfig",
    "Draw",
    "EvolutionConfig",
    "ExperienceConfig",
    "Knowledge",
    "KnownSample",
    "PPOConfig",
    "PolicyConfig",
    "PresetName",
    "Result",
    "RewardConfig",
    "Row",
    "Scored",
    "Search",
    "SearchConfig",
    "ThresholdConfig",
    "is_within_budget",
    "make_agent",
    "reward",
]
