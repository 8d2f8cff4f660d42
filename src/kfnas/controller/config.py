"""Configuration of a search. The defaults learn on spaces of 5 to 40 decisions; `benchmarks/agent_learns.py` judges them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from kfnas.config import Config
from kfnas.controller.reward import RewardConfig

AgentName = Literal["random", "evolution", "local_search", "mnas", "mnas+uac", "mnas+aeb", "fnas"]
PresetName = Literal["default", "paper"]

POLICY_AGENTS: tuple[AgentName, ...] = ("mnas", "mnas+uac", "mnas+aeb", "fnas")
CRITIC_AGENTS: tuple[AgentName, ...] = ("mnas+uac", "fnas")
BUFFER_AGENTS: tuple[AgentName, ...] = ("mnas+aeb", "fnas")


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
        description="share of known architectures among the policy's draws above which the weight of the entropy rises from round to round; 1: never. "
        "Not in use with a bayesian critic that keeps the policy open",
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


class ThresholdConfig(Config):
    """Uncertainty above which the critic is not trusted: exactly one of the two."""

    quantile: float | None = Field(default=None, ge=0, le=1, description="this quantile of the uncertainties of a large sample of the current policy")
    fixed: float | None = Field(default=None, ge=0, description="this many standard deviations of the rewards that the search has seen")

    @model_validator(mode="after")
    def _exactly_one(self) -> ThresholdConfig:
        if (self.quantile is None) == (self.fixed is None):
            raise ValueError("threshold has one of quantile and fixed: write `threshold: {quantile: 0.5}` or `threshold: {fixed: 0.5}`")
        return self


class CriticConfig(Config):
    """The uncertainty-aware critic: a value network V and an uncertainty network U."""

    model: Literal["bayesian", "networks"] = Field(
        default="bayesian",
        description="bayesian: regression on choices and pairs of choices, with imagined draws and Thompson sampling; networks: the paper's V and U",
    )
    imagined: int = Field(
        default=48, ge=0, le=65536, description="bayesian: draws of the policy, scored by a member of the posterior, that each update learns from too"
    )
    temperature: float = Field(
        default=0.5, ge=0, description="bayesian: distance of members from the posterior's mean; 1: Thompson sampling, 0: the mean itself"
    )
    keep_open: bool = Field(
        default=True, description="bayesian: the policy's perplexity is kept above threshold_draws and the number of trained samples together"
    )
    layers: int = Field(default=4, ge=1, le=16, description="linear layers of V and of U")
    hidden_units: int = Field(default=200, ge=1, le=4096, description="width of their hidden layers")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's learning rate for V and U")
    fit_steps: int = Field(default=20, ge=1, description="gradient steps of V and U a round, from where they were; five times as many at their start")
    fit_batch: int = Field(default=32, ge=1, description="samples a gradient step")
    min_samples: int = Field(default=16, ge=2, description="trained samples of this search before a critic without a prior is trusted, or a prior is given up")
    threshold: ThresholdConfig = Field(default_factory=lambda: ThresholdConfig(quantile=0.5), description="uncertainty above which a draw is trained")
    threshold_draws: int = Field(
        default=256, ge=1, le=65536, description="draws of the current policy over which a quantile is taken; bayesian: of which the trained are chosen"
    )
    max_trusted_share: float = Field(default=0.5, ge=0, lt=1, description="largest share of a batch's new draws whose reward is V's word")
    max_resamples: int = Field(
        default=20, ge=0, description="networks: batches that are drawn again for want of uncertain draws, before the most uncertain of them are trained"
    )
    audit_share: float = Field(default=0.05, ge=0, le=1, description="share of the trusted draws that are trained all the same, to check V")
    prior_weight: float = Field(default=64.0, ge=0, description="a prior's samples count as much as this many of the search's own when V is fitted")


class ExperienceConfig(Config):
    """The architecture experience buffer: trained draws that are learnt from again."""

    size: int = Field(default=10, ge=1, le=4096, description="draws that the buffer holds")
    max_share: float = Field(default=0.5, ge=0, lt=1, description="largest share of a batch that comes from the buffer")
    standardised: bool = Field(default=True, description="priorities: softmax of rewards less their mean over their deviation; false: of raw fractions")
    normalised: bool = Field(default=True, description="importance weights are divided by their largest in the batch; false: as they are")
    correction: Literal["inclusion", "priority"] = Field(
        default="inclusion",
        description="chance that the importance weights correct: inclusion: that of being among a batch's, which are drawn without repeats; "
        "priority: the priority itself, as if each were drawn from the whole buffer",
    )
    ratio: Literal["per_decision", "architecture"] = Field(
        default="per_decision",
        description="PPO's ratio of a buffered draw, to the policy that drew it: the mean over its decisions, or that of the whole architecture, "
        "which a few rounds take beyond any clip",
    )
    beta_start: float = Field(default=0.0, ge=0, le=1, description="exponent of the importance weights at the start")
    beta_end: float = Field(default=1.0, ge=0, le=1, description="exponent at the horizon, reached linearly; without a horizon it stays at beta_start")


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "default": {},
    "paper": {
        "reward": {"kind": "soft"},
        "critic": {"model": "networks", "threshold": {"fixed": 0.5}, "audit_share": 0.0, "min_samples": 32, "threshold_draws": 128},
        "experience": {"standardised": False, "normalised": False, "correction": "priority"},
    },
}
"""Fields, by section, that a preset fills where they are not given."""


class SearchConfig(Config):
    """What `Search` needs to know beside the space and the seed."""

    agent: AgentName = Field(
        default="mnas",
        description="mnas: LSTM policy trained by PPO; mnas+uac: with the uncertainty-aware critic; mnas+aeb: with the experience buffer; fnas: with both; "
        "the others are baselines",
    )
    preset: PresetName = Field(default="default", description="values of the fields that are not given; paper: FNAS as its paper has it")
    batch_size: int = Field(default=16, ge=1, le=4096, description="architectures drawn a round")
    horizon: int | None = Field(
        default=None, ge=1, description="architectures that the search will draw in all, over which it anneals; None: nothing is annealed"
    )
    reward: RewardConfig = Field(default_factory=RewardConfig)
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    ppo: PPOConfig = Field(default_factory=PPOConfig)
    critic: CriticConfig = Field(default_factory=CriticConfig)
    experience: ExperienceConfig = Field(default_factory=ExperienceConfig)
    evolution: EvolutionConfig = Field(default_factory=EvolutionConfig)
    max_known_batches: int = Field(default=100, ge=0, description="batches in a row that may hold known architectures only, before the search is over")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, value: Any) -> Any:
        preset = value.get("preset", "default") if isinstance(value, dict) else "default"
        if not isinstance(preset, str) or preset not in PRESETS:
            return value
        filled = dict(value)
        for section, fields in PRESETS[preset].items():
            given = filled.get(section, {})
            if isinstance(given, Config):
                given = given.model_dump(exclude_unset=True)
            if isinstance(given, dict):
                filled[section] = {**fields, **given}
        return filled

    @model_validator(mode="after")
    def _policy_compares(self) -> SearchConfig:
        if self.agent in POLICY_AGENTS and self.batch_size < 2:
            raise ValueError(f"agent {self.agent} learns by comparing the draws of a batch: give batch_size 2 or more")
        return self

    @model_validator(mode="after")
    def _annealing_has_a_horizon(self) -> SearchConfig:
        if self.ppo.entropy_end is not None and self.horizon is None:
            raise ValueError("ppo.entropy_end is reached at the horizon: give `horizon`, or remove entropy_end")
        return self

    @model_serializer(mode="wrap")
    def _without_what_the_agent_lacks(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Sections that the agent does not read, and that hold their defaults, are left out: digests of agents without them stay as they
        were before there were any."""
        value: dict[str, Any] = handler(self)
        if self.agent not in CRITIC_AGENTS and self.critic == CriticConfig():
            value.pop("critic", None)
        if self.agent not in BUFFER_AGENTS and self.experience == ExperienceConfig():
            value.pop("experience", None)
        if self.agent not in (*CRITIC_AGENTS, *BUFFER_AGENTS) and self.preset == "default":
            value.pop("preset", None)
        return value
