"""The uncertainty-aware critic (FNAS, section 4.2): a value network V that predicts an architecture's reward, and an uncertainty network U
that predicts V's error.

    L_V = |V(m) - R(m)|     (eq. 3)
    L_U = |U(m) - L_V|      (eq. 4; L_V is a target there, so that no gradient of L_U reaches V)

Both are fitted on trained architectures alone. Rewards are standardised task by task, so that a critic can go from one task to another;
what it is asked and what it answers is in the reward's own unit.

Shapes: N architectures, F features, G networks (V first, U second), H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kfnas.controller.agents import AgentState, Scored, Tokens
from kfnas.controller.candidates import RANDOM
from kfnas.controller.config import CriticConfig
from kfnas.controller.evidence import Floats, OwnSamples, PriorSamples, scale_of
from kfnas.controller.knowledge import NETWORKS, stacked_weights
from kfnas.controller.optimizer import LazyAdam
from kfnas.controller.standing import Standing

if TYPE_CHECKING:
    from kfnas.space import Space

FIRST_FIT = 5
"""Fits are this many times longer when V and U are at their start, and when they come into use."""


class Scores(NamedTuple):
    """V(m) and U(m) [N], in the reward's unit."""

    value: Floats
    uncertainty: Floats


def value_loss(value: Tensor, reward: Tensor) -> Tensor:
    """L_V = |V(m) - R(m)| of each sample [N] (eq. 3)."""
    return (value - reward).abs()


def uncertainty_loss(uncertainty: Tensor, value_error: Tensor) -> Tensor:
    """L_U = |U(m) - L_V| of each sample [N] (eq. 4), L_V being a target: no gradient flows into it."""
    return (uncertainty - value_error.detach()).abs()


class Networks(nn.Module):
    """G multi-layer perceptrons with PReLU between their layers, all of one shape and none sharing a weight, run as one batched product."""

    def __init__(self, count: int, num_features: int, config: CriticConfig, generator: torch.Generator) -> None:
        """Build them.

        Args:
            count: G.
            num_features: F.
            config: layers and width.
            generator: the only source of the initial weights.
        """
        super().__init__()
        widths = [num_features, *[config.hidden_units] * (config.layers - 1), 1]
        self.weights, self.biases, self.slopes = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            # torch's own initialisation of linear layers: uniform within 1 / sqrt(inputs); PReLU's slope starts at 0.25.
            bound = 1 / math.sqrt(inputs)
            self.weights.append(nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound, generator=generator)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound, generator=generator)))
        for _ in range(config.layers - 1):
            self.slopes.append(nn.Parameter(torch.full((count, 1, 1), 0.25)))

    def forward(self, features: Tensor) -> Tensor:
        """Outputs [G, N] for features [N, F]."""
        hidden = features.expand(len(self.weights[0]), *features.shape)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < len(self.slopes):
                hidden = hidden.clamp(min=0) + self.slopes[index] * hidden.clamp(max=0)
        return hidden[..., 0]


class Critic(Standing):
    """V and U, what they were fitted on, and whether they may be trusted.

    A critic without a prior is trusted once it has seen `min_samples` trained draws. One that starts from a prior is trusted once what it
    predicted of this search's draws, before it was fitted on them, goes with their rewards; where it does not by `min_samples`, the prior
    is given up and the critic starts afresh.
    """

    def __init__(
        self, space: Space, config: CriticConfig, seed: int, prior: PriorSamples | None = None, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Build V and U.

        Args:
            space: what is searched.
            config: sizes, fits and trust.
            seed: of initial weights and of the samples that each gradient step sees.
            prior: an earlier search's samples.
            weights: its critic's, taken over where they are of the same shape; the prior's samples are fitted from there.
        """
        super().__init__(config, prior)
        sizes = np.asarray(space.num_choices)
        self._offsets = np.cumsum(sizes) - sizes
        self._num_features = int(sizes.sum()) + 1
        self._generator = torch.Generator().manual_seed(seed)
        self.networks = Networks(len(NETWORKS), self._num_features, config, self._generator)
        self._adam = LazyAdam(self.networks, config.learning_rate, fused=True)
        if weights:
            self._load(weights)

    @property
    def is_calibrated(self) -> bool:
        """Whether its word may be taken."""
        return self._judged and (self.has_prior or len(self._own) >= self._config.min_samples)

    def score(self, tokens: Sequence[Tokens], initialisation: str = RANDOM) -> Scores | None:
        """V and U of architectures by their canonical tokens [N]; None before the critic has learnt anything, and before the search has two
        rewards: a prior's predictions are in standard deviations, of which it must learn the size."""
        scale = self.scale
        if scale is None or self._num_fits == 0:
            return None
        value, uncertainty = self._outputs(tokens, [initialisation != RANDOM] * len(tokens))
        return Scores(scale.to_reward(value), uncertainty * scale.deviation)

    def learn(self, evidence: Sequence[tuple[Tokens, Scored]]) -> None:
        """Take in trained draws with their canonical tokens, in candidate order; judge a prior by them; and fit V and U."""
        if not evidence:
            return
        before = self.is_calibrated
        warm = [item.initialisation != RANDOM for _, item in evidence]
        # The networks are as they were when the batch was drawn: this is what they would have said of it.
        predicted = self._outputs([tokens for tokens, _ in evidence], warm)[0] if self._num_fits else np.full(len(evidence), np.nan)
        for (tokens, item), is_warm, value in zip(evidence, warm, predicted.tolist(), strict=True):
            self._own.add(tokens, item.reward, is_warm, value)
        if self.scale is None:
            return
        self._judge()
        self._fit(long=self.is_calibrated and not before)

    def state(self) -> AgentState:
        """Weights, moments, samples and the generator. The prior's samples are the search's to keep."""
        arrays = {f"networks.{name}": value.detach().numpy().copy() for name, value in self.networks.state_dict().items()}
        arrays |= {f"adam.{name}": value for name, value in self._adam.arrays().items()}
        arrays |= {f"own.{name}": value for name, value in self._own.arrays().items()}
        arrays["generator"] = self._generator.get_state().numpy().copy()
        return AgentState({"has_prior": self.has_prior, "judged": self._judged, "num_fits": self._num_fits}, arrays)

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        groups: dict[str, dict[str, np.ndarray]] = {"networks": {}, "adam": {}, "own": {}}
        for name, value in state.arrays.items():
            group, _, rest = name.partition(".")
            if group in groups:
                groups[group][rest] = value
        self.networks.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in groups["networks"].items()})
        self._adam.restore(groups["adam"])
        self._own = OwnSamples.restore(groups["own"])
        self._generator.set_state(torch.from_numpy(np.array(state.arrays["generator"])))
        self._judged, self._num_fits = bool(state.values["judged"]), int(state.values["num_fits"])
        if not state.values["has_prior"]:
            self._prior = None

    def _outputs(self, tokens: Sequence[Tokens], warm: Sequence[bool]) -> Floats:
        """V and U [2, N], standardised."""
        with torch.inference_mode():
            return np.asarray(self.networks(self._features(np.asarray(tokens), np.asarray(warm))).double().numpy())

    def _begin_again(self) -> None:
        self._num_fits = 0
        self.networks = Networks(len(NETWORKS), self._num_features, self._config, self._generator)
        self._adam = LazyAdam(self.networks, self._config.learning_rate, fused=True)

    def _fit(self, *, long: bool = False) -> None:
        """Gradient steps on samples drawn at random; a prior's weigh as much as `prior_weight` of the search's own, and teach U nothing."""
        features, rewards, weights, own = self._training_set()
        steps = self._config.fit_steps * (FIRST_FIT if long or self._num_fits == 0 else 1)
        if self._num_fits == 0:
            steps = max(steps, FIRST_FIT * len(rewards) // self._config.fit_batch)  # a large prior is seen as often as a small one
        self._num_fits += 1
        teaches_uncertainty = own if own.any() else torch.ones_like(own)
        chosen = torch.multinomial(weights, steps * self._config.fit_batch, replacement=True, generator=self._generator).view(steps, -1)
        optimizer = self._adam.live()
        for rows in chosen:
            value, uncertainty = self.networks(features[rows])
            value_error = value_loss(value, rewards[rows])
            taught = teaches_uncertainty[rows]
            error = uncertainty_loss(uncertainty, value_error) * taught
            loss = value_error.mean() + error.sum() / taught.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _training_set(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features [N, F], standardised rewards [N], chances of being drawn [N] and whether they are the search's own [N]."""
        parts: list[tuple[Tensor, Floats, Floats, bool]] = []
        if len(self._own):
            scale = scale_of(self._own.rewards)
            features = self._features(np.asarray(self._own.tokens), np.asarray(self._own.warm))
            parts.append((features, scale.standard(self._own.rewards), np.ones(len(self._own)), True))
        if self._prior is not None:
            count = len(self._prior.tokens)
            chance = min(1.0, self._config.prior_weight / count) if len(self._own) else 1.0
            parts.append((self._features(self._prior.tokens, self._prior.warm), self._prior.standard, np.full(count, chance), False))
        own = torch.cat([torch.full((len(part[1]),), float(part[3])) for part in parts])
        rewards, weights = (torch.from_numpy(np.concatenate([part[index] for part in parts])).float() for index in (1, 2))
        return torch.cat([part[0] for part in parts]), rewards, weights, own

    def _features(self, tokens: np.ndarray, warm: np.ndarray) -> Tensor:
        """The expand embedding of tokens [N, D], and a feature that is 1 for children initialised from a pool: [N, F]."""
        features = np.zeros((len(tokens), self._num_features), dtype=np.float32)
        features[np.arange(len(tokens))[:, None], tokens + self._offsets] = 1.0
        features[:, -1] = warm
        return torch.from_numpy(features)

    def _load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over the weights of another critic, where they are of this one's shape."""
        named = dict(self.networks.named_parameters())
        stacked = stacked_weights(weights)
        if {name: tuple(value.shape) for name, value in named.items()} != {name: value.shape for name, value in stacked.items()}:
            return
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(torch.from_numpy(stacked[name]))
