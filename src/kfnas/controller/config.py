"""Configuration of a search. The defaults learn on spaces of 5 to 40 decisions; `benchmarks/agent_learns.py` judges them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kfnas.config import Config
from kfnas.controller.reward import RewardConfig

AgentName = Literal["random", "evolution", "local_search", "mnas"]


class PolicyConfig(Config):
    """The LSTM policy."""

    hidden_units: int = Field(default=100, ge=1, le=4096, description="hidden units of the LSTM's one layer, and width of its token embedding")
    redraws: int = Field(
        default=4, ge=0, le=1000, description="times that known architectures of a batch are drawn again before their answers are taken from the history"
    )
    init_scale: float = Field(default=0.1, gt=0, description="initial weights are uniform in [-init_scale, init_scale]: the first draws are nearly uniform")


class PPOConfig(Config):
    """Proximal policy optimisation on the batches of the search."""

    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's learning rate")
    epochs: int = Field(default=10, ge=1, description="gradient steps on each batch")
    clip: float = Field(default=0.2, gt=0, lt=1, description="ratio is clipped to [1 - clip, 1 + clip]")
    entropy: float = Field(default=0.01, ge=0, description="weight of the policy's entropy (nats, summed over decisions) in the objective")
    entropy_end: float | None = Field(default=None, ge=0, description="weight of the entropy at the horizon, reached linearly; None: `entropy` throughout")
    max_known_share: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="share of known architectures among the policy's draws above which the weight of the entropy rises from round to round; 1: never",
    )
    max_grad_norm: float | None = Field(default=None, gt=0, description="gradients are scaled down to this norm; None: never")


class EvolutionConfig(Config):
    """Regularized evolution (arXiv:1802.01548): a child mutates one decision of the best of a sample of the population; the oldest
    member leaves."""

    population: int = Field(default=50, ge=2, description="members that are alive")
    sample: int = Field(default=10, ge=1, description="members drawn for each tournament")

    @model_validator(mode="after")
    def _sample_fits(self) -> EvolutionConfig:
        if self.sample > self.population:
            raise ValueError(f"sample ({self.sample}) is larger than population ({self.population}): lower it")
        return self


class SearchConfig(Config):
    """What `Search` needs to know beside the space and the seed."""

    agent: AgentName = Field(default="mnas", description="mnas: LSTM policy trained by PPO; the others are baselines")
    batch_size: int = Field(default=16, ge=1, le=4096, description="architectures drawn a round")
    horizon: int | None = Field(
        default=None, ge=1, description="architectures that the search will draw in all, over which it anneals; None: nothing is annealed"
    )
    reward: RewardConfig = Field(default_factory=RewardConfig)
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    ppo: PPOConfig = Field(default_factory=PPOConfig)
    evolution: EvolutionConfig = Field(default_factory=EvolutionConfig)
    max_known_batches: int = Field(default=100, ge=0, description="batches in a row that may hold known architectures only, before the search is over")

    @model_validator(mode="after")
    def _policy_compares(self) -> SearchConfig:
        if self.agent == "mnas" and self.batch_size < 2:
            raise ValueError("agent mnas learns by comparing the draws of a batch: give batch_size 2 or more")
        return self

    @model_validator(mode="after")
    def _annealing_has_a_horizon(self) -> SearchConfig:
        if self.ppo.entropy_end is not None and self.horizon is None:
            raise ValueError("ppo.entropy_end is reached at the horizon: give `horizon`, or remove entropy_end")
        return self
