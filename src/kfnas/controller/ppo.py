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
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kfnas.controller.agents import AgentState, Draw, IsKnown, Scored, Tokens, canonical_tokens
from kfnas.controller.config import SearchConfig
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


def normalised_advantages(rewards: Tensor) -> Tensor:
    """Rewards [N] less their mean, over their standard deviation (of the population); zeros where they are all alike."""
    centred = rewards - rewards.mean()
    deviation = centred.square().mean().sqrt()
    if deviation <= 1e-8 * rewards.abs().max().clamp(min=1e-8):
        return torch.zeros_like(rewards)
    return centred / deviation


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A) for each sample [N], to be maximised; ratio = exp(log_prob - old_log_prob)."""
    ratio = (log_prob - old_log_prob).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


class PPOAgent:
    """Draws from the policy, and moves it towards the draws that were rewarded."""

    def __init__(self, space: Space, config: SearchConfig, seed: int) -> None:
        self._space, self._config = space, config
        self._generator = torch.Generator().manual_seed(seed)
        self.policy = Policy(space.num_choices, config.policy, self._generator)
        self._optimizer: torch.optim.Adam | None = None
        self._moments: dict[str, dict[str, Tensor]] = {}
        self._entropy_factor = 1.0
        self._known_share = 0.0

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
            for tokens in self._sample(count if attempt <= redraws else MAX_DRAWS):
                key = canonical_tokens(self._space, tokens)
                (known if key in taken or is_known(key) else fresh).append(tokens)
                taken.add(key)
            if attempt == 0:
                self._known_share = len(known) / max(1, len(known) + len(fresh))
            if len(fresh) >= count or (attempt >= redraws and len(fresh) + len(known) >= count):
                break
        if not fresh and not known:
            raise SpaceError(
                f"space {self._space.name!r}: none of over {MAX_DRAWS * MAX_ATTEMPTS:,} architectures drawn is valid; its is_valid leaves too little: "
                f"state the rule as choices of fewer decisions"
            )
        chosen = (fresh + known)[:count]
        with torch.no_grad():
            log_prob = self.policy(torch.tensor(chosen)).log_prob
        return [Draw(tokens, value) for tokens, value in zip(chosen, log_prob.tolist(), strict=True)]

    def _sample(self, count: int) -> list[Tokens]:
        """The valid ones of `count` draws."""
        drawn = [tuple(row) for row in self.policy.sample(count, self._generator).tolist()]
        return [tokens for tokens in drawn if self._space.is_valid(tokens)]

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """One PPO update of several epochs. Batches of fewer than two draws, which have no advantages, change nothing."""
        if len(batch) < 2:
            return {}
        settings = self._config.ppo
        optimizer = self._live_optimizer()
        entropy_weight = self._entropy_weight(progress)
        tokens = torch.tensor([item.draw.tokens for item in batch])
        old_log_prob = torch.tensor([item.draw.log_prob for item in batch])
        advantages = normalised_advantages(torch.tensor([item.reward for item in batch], dtype=torch.float64)).float()
        for _ in range(settings.epochs):
            log_prob, entropy = self.policy(tokens)
            surrogate = clipped_surrogate(log_prob, old_log_prob, advantages, settings.clip)
            loss = -(surrogate.mean() + entropy_weight * entropy.mean())
            optimizer.zero_grad()
            loss.backward()
            if settings.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), settings.max_grad_norm)
            optimizer.step()
        return {**self._metrics(tokens, old_log_prob), "policy/entropy_weight": entropy_weight, "policy/known_share": self._known_share}

    def _live_optimizer(self) -> torch.optim.Adam:
        """Adam, made when it is first needed: constructing one imports torch's compiler, which costs a process that only samples a second."""
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=self._config.ppo.learning_rate)
            for name, parameter in self.policy.named_parameters():
                if name in self._moments:
                    self._optimizer.state[parameter] = self._moments[name]
        return self._optimizer

    def _entropy_weight(self, progress: float) -> float:
        """The configured weight at this share of the horizon, times the factor that keeps the policy open."""
        settings = self._config.ppo
        step = OPENING if self._known_share > settings.max_known_share else 1 / OPENING
        self._entropy_factor = max(1.0, min(self._entropy_factor * step, MAX_FACTOR))
        end = settings.entropy if settings.entropy_end is None else settings.entropy_end
        return (settings.entropy + (end - settings.entropy) * progress) * self._entropy_factor

    @torch.no_grad()
    def _metrics(self, tokens: Tensor, old_log_prob: Tensor) -> dict[str, float]:
        log_prob, entropy = self.policy(tokens)
        log_ratio = log_prob - old_log_prob
        clipped = (log_ratio.exp() - 1).abs() > self._config.ppo.clip
        return {
            "policy/entropy_nats": float(entropy.mean()),
            "policy/approx_kl": float((log_ratio.exp() - 1 - log_ratio).mean()),  # http://joschu.net/blog/kl-approx.html, k3
            "policy/clipped_share": float(clipped.float().mean()),
        }

    def state(self) -> AgentState:
        """Weights, Adam's moments and the generator."""
        arrays = {f"policy.{name}": value.detach().numpy().copy() for name, value in self.policy.state_dict().items()}
        for name, parameter in self.policy.named_parameters():
            moments = self._moments.get(name, {}) if self._optimizer is None else self._optimizer.state.get(parameter, {})
            for key, value in moments.items():
                arrays[f"adam.{name}.{key}"] = np.asarray(value.detach().numpy()).copy()
        arrays["generator"] = self._generator.get_state().numpy().copy()
        return AgentState(values={"entropy_factor": self._entropy_factor, "known_share": self._known_share}, arrays=arrays)

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.arrays.items()}
        self.policy.load_state_dict({name.removeprefix("policy."): value for name, value in tensors.items() if name.startswith("policy.")})
        keys = ("step", "exp_avg", "exp_avg_sq")
        found = {name: {key: tensors[f"adam.{name}.{key}"] for key in keys if f"adam.{name}.{key}" in tensors} for name, _ in self.policy.named_parameters()}
        self._optimizer, self._moments = None, {name: moments for name, moments in found.items() if moments}
        self._generator.set_state(tensors["generator"])
        self._entropy_factor, self._known_share = float(state.values["entropy_factor"]), float(state.values["known_share"])
