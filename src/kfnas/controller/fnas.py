"""The FNAS agent: the PPO agent, with the uncertainty-aware critic, the experience buffer, or both (FNAS, Fig. 1).

A batch is made of new draws of the policy and of exploited ones from the buffer. Of the new ones some take the critic's word for their
reward, and the others are trained. When the rewards are there, V and U are fitted on what was trained, the policy is updated on the whole
batch, and what was trained goes into the buffer.

The policy's advantage is the reward less a baseline that the whole batch shares: less V, the advantage of a trusted draw would be zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kfnas.controller.agents import AgentState, Draw, DrawSource, IsKnown, Scored, Tokens, canonical_tokens
from kfnas.controller.bayesian import BayesianCritic
from kfnas.controller.candidates import RANDOM
from kfnas.controller.config import BUFFER_AGENTS, CRITIC_AGENTS, SearchConfig
from kfnas.controller.critic import Critic
from kfnas.controller.evidence import prior_samples
from kfnas.controller.experience import Experience, ExperienceBuffer
from kfnas.controller.guidance import Member, choose, least_entropy
from kfnas.controller.ppo import MAX_ATTEMPTS, MAX_DRAWS, Imagined, PPOAgent
from kfnas.controller.trust import Judged, Selection, select
from kfnas.errors import SpaceError

if TYPE_CHECKING:
    from kfnas.controller.knowledge import Knowledge
    from kfnas.space import Space

HUNDRED = 100
"""Draws over which the share of distinct ones is reported."""


class FNASAgent:
    """PPO with a critic (agent `mnas+uac`), an experience buffer (`mnas+aeb`), or both (`fnas`)."""

    def __init__(self, space: Space, config: SearchConfig, seed: int, prior: Knowledge | None = None) -> None:
        self._space, self._config = space, config
        self._ppo = PPOAgent(space, config, seed)
        self._rng = np.random.default_rng([seed, 1])
        self._critic: Critic | BayesianCritic | None = None
        if config.agent in CRITIC_AGENTS:
            known = None if prior is None else prior_samples(prior.samples, config.reward)
            seed_of_critic = int(np.random.SeedSequence([seed, 2]).generate_state(1)[0])
            kind = BayesianCritic if config.critic.model == "bayesian" else Critic
            self._critic = kind(space, config.critic, seed_of_critic, known, None if prior is None else prior.critic)
        self._buffer = ExperienceBuffer(config.experience) if config.agent in BUFFER_AGENTS else None
        self._initialisation = RANDOM
        self._distinct_share = 1.0
        self._threshold: float | None = None

    def propose(self, count: int, is_known: IsKnown) -> list[Draw]:
        """New draws of the policy, then exploited ones.

        Raises:
            SpaceError: not one of many draws was valid.
        """
        exploited = [] if self._buffer is None else self._buffer.draw(self._buffer.share_of(count), self._rng)
        if self._critic is not None:
            self._critic.prepare()
        new = self._new_draws(count - len(exploited), is_known)
        return [*new, *(Draw(entry.tokens, entry.log_prob, "exploited", entry.id) for entry in exploited)]

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """Fit the critic on what was trained, update the policy on the whole batch, and keep what was trained."""
        began = next((item.initialisation for item in reversed(batch) if item.is_evidence), self._initialisation)
        changed = began != self._initialisation
        if changed:  # the critic answered for children that begin otherwise than these did
            batch = [replace(item, draw=replace(item.draw, value=None, uncertainty=None)) for item in batch]
        self._initialisation = began
        evidence = [item for item in batch if item.is_evidence]
        metrics = self._judgement(batch, evidence)
        if changed:  # rewards of the two do not compare
            batch = [item for item in batch if item.draw.source not in ("trusted", "exploited")]
        if self._critic is not None:
            taught = [(canonical_tokens(self._space, item.draw.tokens), item) for item in evidence]
            if isinstance(self._critic, BayesianCritic):
                graded = [item for item in batch if item.status in ("infeasible", "failed") and item.draw.source in ("policy", "audit") and not item.cached]
                # What was over the budget was never trained; it counts as the kind that members are asked for, or the kind would explain its reward away.
                alike = [replace(item, initialisation=self._initialisation) if item.status == "infeasible" else item for item in graded]
                self._critic.learn(taught, [(canonical_tokens(self._space, item.draw.tokens), item) for item in alike])
            else:
                self._critic.learn(taught)
            metrics["critic/calibrated"] = float(self._critic.is_calibrated)
        if self._buffer is None:
            return {**metrics, **self._update(batch, [1.0] * len(batch), progress)}
        exploited = [item for item in batch if item.draw.source == "exploited"]
        metrics |= {"experience/exploited_share": len(exploited) / max(1, len(batch)), "experience/beta": self._buffer.beta(progress)}
        weights = dict(zip((item.id for item in exploited), self._buffer.weights([item.draw.origin or "" for item in exploited], progress), strict=True))
        metrics |= self._update(batch, [weights.get(item.id, 1.0) if item.draw.source == "exploited" else 1.0 for item in batch], progress)
        for item in evidence:
            assert item.draw.log_prob is not None
            self._buffer.begin(item.initialisation)
            self._buffer.add(Experience(item.id, item.draw.tokens, item.draw.log_prob, item.reward))
        return {**metrics, "experience/size": float(len(self._buffer))}

    def state(self) -> AgentState:
        """Policy, critic, buffer and generators."""
        ppo = self._ppo.state()
        values = {
            "ppo": dict(ppo.values),
            "rng": self._rng.bit_generator.state,
            "initialisation": self._initialisation,
            "distinct_share": self._distinct_share,
            "threshold": self._threshold,
        }
        arrays = {f"ppo.{name}": value for name, value in ppo.arrays.items()}
        if self._critic is not None:
            critic = self._critic.state()
            values["critic"] = dict(critic.values)
            arrays |= {f"critic.{name}": value for name, value in critic.arrays.items()}
        if self._buffer is not None:
            values["experience"] = self._buffer.state()
        return AgentState(values, arrays)

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        values = state.values
        self._ppo.restore(_part(state, "ppo"))
        if self._critic is not None:
            self._critic.restore(_part(state, "critic"))
        if self._buffer is not None:
            self._buffer.restore(values["experience"])
        self._rng.bit_generator.state = values["rng"]
        self._initialisation, self._distinct_share, self._threshold = values["initialisation"], values["distinct_share"], values["threshold"]

    def _new_draws(self, count: int, is_known: IsKnown) -> list[Draw]:
        """Draws of the policy, some of them trusted."""
        batches = self._batches(is_known)
        first = next(batches)
        self._distinct_share = len({draw.canonical for draw in first[:HUNDRED]}) / len(first[:HUNDRED])
        head = [draw.known or draw.canonical in {other.canonical for other in first[:index]} for index, draw in enumerate(first[:count])]
        self._ppo.known_share = sum(head) / len(head)
        critic, settings = self._critic, self._config.critic
        self._threshold = None
        if critic is not None and critic.is_calibrated:
            self._threshold = critic.threshold(np.array([draw.uncertainty for draw in first], dtype=np.float64))
        if isinstance(critic, BayesianCritic) and len(critic) >= 2:
            chosen = self._guided(first, batches, count, critic)
        else:
            tries = 1 + (self._config.policy.redraws if self._threshold is None else max(self._config.policy.redraws, settings.max_resamples))
            chosen = select(_up_to(tries * count, first, batches), count, threshold=self._threshold, max_trusted_share=settings.max_trusted_share)
        log_probs = self._ppo.log_probs([draw.tokens for draw in chosen.draws])
        draws = []
        for index, (draw, log_prob) in enumerate(zip(chosen.draws, log_probs, strict=True)):
            source: DrawSource = "policy"
            if index in chosen.trusted:
                source = "audit" if self._rng.random() < settings.audit_share else "trusted"
            # U is not bounded below: its order decides, but no error is expected to be negative.
            uncertainty = None if draw.uncertainty is None else max(0.0, draw.uncertainty)
            draws.append(Draw(draw.tokens, log_prob, source, None, draw.value, uncertainty))
        return draws

    def _guided(self, first: list[Judged], rest: Iterator[list[Judged]], count: int, critic: BayesianCritic) -> Selection:
        """New draws of which the critic's members choose, more of them where too few are unknown."""
        draws, attempts = list(first), 0
        while len({draw.canonical for draw in draws if not draw.known}) < 2 * count and (attempts < self._config.policy.redraws or len(draws) < count):
            more = next(rest, None)
            if more is None:  # valid architectures are rare: what there is must do
                break
            draws += more
            attempts += 1

        def member() -> Member:
            found = critic.member(self._initialisation)
            assert found is not None
            return found

        return choose(draws, count, member, threshold=self._threshold, max_trusted_share=self._config.critic.max_trusted_share)

    def _update(self, batch: Sequence[Scored], weights: Sequence[float], progress: float) -> dict[str, float]:
        """Update the policy on a batch; with members of the critic, also on draws whose rewards one of them imagines."""
        critic = self._critic
        if not isinstance(critic, BayesianCritic):
            return self._ppo.update(batch, weights, progress)
        seen = [replace(item, reward=float(value)) for item, value in zip(batch, critic.seen([item.reward for item in batch]), strict=True)]
        floor = least_entropy(self._space.num_choices, self._pool_size, critic.num_known) if self._config.critic.keep_open else None
        member = critic.member(self._initialisation)
        tokens = [] if member is None or not self._config.critic.imagined else self._ppo.sample(self._config.critic.imagined)
        if member is None or not tokens:
            return self._ppo.update(seen, weights, progress, least_entropy=floor)
        rewards = member([canonical_tokens(self._space, item) for item in tokens]).tolist()
        log_probs = self._ppo.log_probs(tokens)
        imagined = [Imagined(*fields) for fields in zip(tokens, log_probs, rewards, strict=True)]
        return self._ppo.update(seen, weights, progress, imagined, least_entropy=floor)

    @property
    def _pool_size(self) -> int:
        """Draws of the policy that are judged at once."""
        return HUNDRED if self._critic is None else max(HUNDRED, self._config.critic.threshold_draws)

    def _batches(self, is_known: IsKnown) -> Iterator[list[Judged]]:
        """Judged draws of the current policy, many at a time.

        Raises:
            SpaceError: not one of many draws was valid.
        """
        size = self._pool_size
        found = False
        for _ in range(MAX_ATTEMPTS):
            tokens = self._ppo.sample(size)
            if not tokens:
                continue
            found = True
            canonical = [canonical_tokens(self._space, item) for item in tokens]
            yield self._judged(tokens, canonical, [is_known(item) for item in canonical])
        if not found:
            raise SpaceError(
                f"space {self._space.name!r}: none of over {MAX_DRAWS * MAX_ATTEMPTS:,} architectures drawn is valid; its is_valid leaves too little: "
                f"state the rule as choices of fewer decisions"
            )

    def _judged(self, tokens: list[Tokens], canonical: list[Tokens], known: list[bool]) -> list[Judged]:
        scores = None if self._critic is None else self._critic.score(canonical, self._initialisation)
        if scores is None:
            return [Judged(*fields) for fields in zip(tokens, canonical, known, strict=True)]
        value, uncertainty = scores.value.tolist(), scores.uncertainty.tolist()
        return [Judged(*fields) for fields in zip(tokens, canonical, known, value, uncertainty, strict=True)]

    def _judgement(self, batch: Sequence[Scored], evidence: Sequence[Scored]) -> dict[str, float]:
        """How the critic's predictions, made before it was fitted on the batch, compare with the rewards."""
        metrics = {"policy/distinct_share": self._distinct_share}
        if self._critic is None:
            return metrics
        new = [item for item in batch if item.draw.source != "exploited"]
        metrics["critic/trusted_share"] = sum(item.draw.source == "trusted" for item in new) / max(1, len(new))
        errors = {item.id: abs(item.draw.value - item.reward) for item in evidence if item.draw.value is not None}
        if errors:
            metrics["critic/value_error"] = float(np.mean(list(errors.values())))
            within = [errors[item.id] <= (item.draw.uncertainty or 0.0) for item in evidence if item.id in errors]
            metrics["critic/coverage"] = sum(within) / len(within)
        # An audited draw that is over the budget was not trained, and yet V was wrong about its reward.
        audited = [item for item in batch if item.draw.source == "audit" and not item.cached and item.draw.value is not None]
        audits = [abs((item.draw.value or 0.0) - item.reward) for item in audited if item.status in ("ok", "infeasible")]
        if audits:
            metrics["critic/audit_error"] = float(np.mean(audits))
            metrics["critic/audit_infeasible_share"] = sum(item.status == "infeasible" for item in audited) / len(audited)
        if self._threshold is not None:
            metrics["critic/threshold"] = self._threshold
        return metrics


def _part(state: AgentState, name: str) -> AgentState:
    arrays = {key.removeprefix(f"{name}."): value for key, value in state.arrays.items() if key.startswith(f"{name}.")}
    return AgentState(state.values[name], arrays)


def _up_to(count: int, first: list[Judged], rest: Iterator[list[Judged]]) -> Iterator[Judged]:
    """The first `count` draws: those of `first`, and then of further batches."""
    left = count
    batch: list[Judged] | None = first
    while batch is not None and left > 0:
        yield from batch[:left]
        left -= len(batch)
        batch = next(rest, None) if left > 0 else None
