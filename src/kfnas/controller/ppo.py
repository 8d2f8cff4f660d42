"""Proximal policy optimisation of the LSTM policy (arXiv:1707.06347): clipped surrogate (eq. 7), entropy bonus, several epochs on each
batch.

An episode is one architecture, so the ratio is that of whole architectures and the return is the reward. Advantages are normalised over
the batch: any baseline shared by the batch would cancel. The log-probability in the ratio's denominator is the one stored when the
architecture was drawn.

A policy that has found a good region would draw what it knows over and over. While too many draws are known, the weight of the entropy
rises from round to round, and it falls back to its configured value when they are new again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kfnas.controller.agents import AgentState, Draw, IsKnown, Scored, Tokens, canonical_tokens
from kfnas.controller.config import SearchConfig
from kfnas.controller.optimizer import LazyAdam
from kfnas.controller.policy import Policy
from kfnas.errors import SpaceError

if TYPE_CHECKING:
    from kfnas.space import Space

MAX_DRAWS = 256
"""Architectures drawn at once where valid ones are rare."""
MAX_ATTEMPTS = 200
"""Such draws before a rule is called unsatisfiable."""
OPENING = 1.3
"""Factor by which the weight of the entropy rises or falls from one round to the next, while too many draws are known or not."""
MAX_FACTOR = 100.0
MAX_LOG_RATIO = 20.0
"""Nats beyond which a ratio, of whatever use, is not told apart: far outside of any clip, and far inside of what float32 holds."""
MAX_ADVANTAGE = 5.0
"""Standard deviations of the new draws' rewards, beyond which a replayed draw is not told apart."""
OPEN_WEIGHT = 1.0
"""Weight, beside advantages of unit deviation, of each nat that the policy's entropy falls short of the least that it is to keep."""


class Imagined(NamedTuple):
    """A draw of the current policy whose reward is imagined: tokens, log-probability (nats), and that reward."""

    tokens: Tokens
    log_prob: float
    reward: float


def normalised_advantages(rewards: Tensor, yardstick: Tensor | None = None) -> Tensor:
    """Rewards [N] less their mean, over their standard deviation (of the population); zeros where they are all alike.

    Args:
        rewards: [N].
        yardstick: bool [N], those whose mean and deviation are taken for all; where they are alike, or None: all are. The others'
            advantages are kept within `MAX_ADVANTAGE`.
    """
    measured = rewards if yardstick is None else rewards[yardstick]
    deviation = (measured - measured.mean()).square().mean().sqrt()
    if deviation <= 1e-8 * measured.abs().max().clamp(min=1e-8):
        return torch.zeros_like(rewards) if yardstick is None else normalised_advantages(rewards)
    advantages = (rewards - measured.mean()) / deviation
    if yardstick is None:
        return advantages
    # Adam would remember for thousands of steps one sample that lies a thousand deviations of the others off.
    return torch.where(yardstick, advantages, advantages.clamp(-MAX_ADVANTAGE, MAX_ADVANTAGE))


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float, spans: Tensor | float = 1.0) -> Tensor:
    """min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) * span for each sample [N], to be maximised.

    ratio = exp((log_prob - old_log_prob) / span). With a span of 1 it is the ratio of whole architectures; with one of D decisions, the
    geometric mean of the ratios of the decisions. The gradient at a ratio of 1 is the same.
    """
    ratio = ((log_prob - old_log_prob) / spans).clamp(max=MAX_LOG_RATIO).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages) * spans


class PPOAgent:
    """Draws from the policy, and moves it towards the draws that were rewarded.

    `known_share`: share of known architectures among the first draws of the last batch, by which the entropy's weight rises and falls.
    """

    def __init__(self, space: Space, config: SearchConfig, seed: int) -> None:
        self._space, self._config = space, config
        self._generator = torch.Generator().manual_seed(seed)
        self.policy = Policy(space.num_choices, config.policy, self._generator)
        self._adam = LazyAdam(self.policy, config.ppo.learning_rate)
        self._entropy_factor = 1.0
        self.known_share = 0.0

    def propose(self, count: int, is_known: IsKnown) -> list[Draw]:
        """Draws of the policy. Invalid ones are drawn again; so are known ones, `redraws` times, before they fill what is left of the
        batch.

        The stored log-probability is the policy's own: drawing again divides the probabilities of all that may be kept by the same
        share, which the ratio leaves out.

        Raises:
            SpaceError: not one of many draws was valid.
        """
        redraws = self._config.policy.redraws
        fresh: list[Tokens] = []
        known: list[Tokens] = []
        taken: set[Tokens] = set()
        for attempt in range(MAX_ATTEMPTS + redraws):
            for tokens in self.sample(count if attempt <= redraws else MAX_DRAWS):
                key = canonical_tokens(self._space, tokens)
                (known if key in taken or is_known(key) else fresh).append(tokens)
                taken.add(key)
            if attempt == 0:
                self.known_share = len(known) / max(1, len(known) + len(fresh))
            if len(fresh) >= count or (attempt >= redraws and len(fresh) + len(known) >= count):
                break
        if not fresh and not known:
            raise SpaceError(
                f"space {self._space.name!r}: none of over {MAX_DRAWS * MAX_ATTEMPTS:,} architectures drawn is valid; its is_valid leaves too little: "
                f"state the rule as choices of fewer decisions"
            )
        chosen = (fresh + known)[:count]
        return [Draw(tokens, value) for tokens, value in zip(chosen, self.log_probs(chosen), strict=True)]

    @property
    def replay_span(self) -> int:
        """Decisions over which the ratio of a draw from the experience buffer is averaged."""
        return len(self._space.num_choices) if self._config.experience.ratio == "per_decision" else 1

    @torch.no_grad()
    def log_probs(self, architectures: Sequence[Tokens]) -> list[float]:
        """Log-probability (nats) of each architecture under the current policy."""
        values: list[float] = self.policy(torch.tensor(architectures)).log_prob.tolist()
        return values

    def sample(self, count: int) -> list[Tokens]:
        """The valid ones of `count` draws."""
        drawn = [tuple(row) for row in self.policy.sample(count, self._generator).tolist()]
        return [tokens for tokens in drawn if self._space.is_valid(tokens)]

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """One PPO update of several epochs. Batches of fewer than two draws, which have no advantages, change nothing."""
        return self.update(batch, [1.0] * len(batch), progress)

    def update(
        self,
        batch: Sequence[Scored],
        weights: Sequence[float],
        progress: float,
        imagined: Sequence[Imagined] = (),
        *,
        least_entropy: float | None = None,
    ) -> dict[str, float]:
        """`learn`, with more say: imagined draws count among those of which there must be two.

        Args:
            batch: as `learn` takes it.
            weights: of the surrogate of each draw of the batch.
            progress: as `learn` takes it.
            imagined: draws of the current policy that are learnt from together with the batch; their rewards are on the batch's scale.
            least_entropy: nats below which the policy's mean entropy is pushed back up, by `OPEN_WEIGHT` for each nat, in the place of
                the weight that rises with the share of known draws; None: that weight.
        """
        if len(batch) + len(imagined) < 2:
            return {}
        settings = self._config.ppo
        optimizer = self._adam.live()
        entropy_weight = self._entropy_weight(progress, rises=least_entropy is None)
        tokens = torch.tensor([item.draw.tokens for item in batch] + [item.tokens for item in imagined])
        old_log_prob = torch.tensor([item.draw.log_prob for item in batch] + [item.log_prob for item in imagined])
        weight = torch.tensor([*weights, *[1.0] * len(imagined)])
        rewards = [item.reward for item in batch] + [item.reward for item in imagined]
        # Draws of the current policy are the yardstick: the best of old would make all that it draws now look bad.
        replayed = torch.tensor([item.draw.source == "exploited" for item in batch] + [False] * len(imagined))
        yardstick = ~replayed if replayed.any() and not replayed.all() else None
        advantages = normalised_advantages(torch.tensor(rewards, dtype=torch.float64), yardstick).float()
        spans = torch.where(replayed, float(self.replay_span), 1.0)
        clipped = self._clipped_share(tokens, old_log_prob, advantages, spans, replayed)
        for _ in range(settings.epochs):
            log_prob, entropy = self.policy(tokens)
            surrogate = weight * clipped_surrogate(log_prob, old_log_prob, advantages, settings.clip, spans)
            loss = -(surrogate.mean() + entropy_weight * entropy.mean())
            if least_entropy is not None:
                loss = loss + OPEN_WEIGHT * (least_entropy - entropy.mean()).clamp(min=0)
            optimizer.zero_grad()
            loss.backward()
            if settings.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), settings.max_grad_norm)
            optimizer.step()
        # A replayed draw's ratio is that to a policy of many updates ago: it says nothing about this update.
        recent = torch.ones_like(replayed) if replayed.all() else ~replayed
        return {
            **clipped,
            **self._metrics(tokens[recent], old_log_prob[recent]),
            "policy/entropy_weight": entropy_weight,
            "policy/known_share": self.known_share,
        }

    def _entropy_weight(self, progress: float, *, rises: bool) -> float:
        """The configured weight at this share of the horizon, times the factor that keeps the policy open."""
        settings = self._config.ppo
        step = OPENING if rises and self.known_share > settings.max_known_share else 1 / OPENING
        self._entropy_factor = max(1.0, min(self._entropy_factor * step, MAX_FACTOR))
        end = settings.entropy if settings.entropy_end is None else settings.entropy_end
        return (settings.entropy + (end - settings.entropy) * progress) * self._entropy_factor

    @torch.no_grad()
    def _clipped_share(self, tokens: Tensor, old_log_prob: Tensor, advantages: Tensor, spans: Tensor, replayed: Tensor) -> dict[str, float]:
        """Share of replayed draws that the clip leaves without a gradient as the update begins: the policy has moved the way their
        advantage points further than the clip allows."""
        if not replayed.any():
            return {}
        clip = self._config.ppo.clip
        ratio = ((self.policy(tokens).log_prob - old_log_prob) / spans).clamp(max=MAX_LOG_RATIO).exp()
        clipped = torch.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
        return {"experience/clipped_share": float(clipped[replayed].float().mean())}

    @torch.no_grad()
    def _metrics(self, tokens: Tensor, old_log_prob: Tensor) -> dict[str, float]:
        log_prob, entropy = self.policy(tokens)
        log_ratio = (log_prob - old_log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        clipped = (log_ratio.exp() - 1).abs() > self._config.ppo.clip
        return {
            "policy/entropy_nats": float(entropy.mean()),
            "policy/approx_kl": float((log_ratio.exp() - 1 - log_ratio).mean()),  # http://joschu.net/blog/kl-approx.html, k3
            "policy/clipped_share": float(clipped.float().mean()),
        }

    def state(self) -> AgentState:
        """Weights, Adam's moments and the generator."""
        arrays = {f"policy.{name}": value.detach().numpy().copy() for name, value in self.policy.state_dict().items()}
        arrays |= {f"adam.{name}": value for name, value in self._adam.arrays().items()}
        arrays["generator"] = self._generator.get_state().numpy().copy()
        return AgentState(values={"entropy_factor": self._entropy_factor, "known_share": self.known_share}, arrays=arrays)

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.arrays.items()}
        self.policy.load_state_dict({name.removeprefix("policy."): value for name, value in tensors.items() if name.startswith("policy.")})
        self._adam.restore({name.removeprefix("adam."): value for name, value in state.arrays.items() if name.startswith("adam.")})
        self._generator.set_state(tensors["generator"])
        self._entropy_factor, self.known_share = float(state.values["entropy_factor"]), float(state.values["known_share"])
