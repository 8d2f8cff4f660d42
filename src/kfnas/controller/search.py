"""A search: `suggest()` hands out a batch, `update()` takes its results.

The search keeps the books (batches, cache, history, rewards, state); an agent behind it proposes and learns. Neither knows how
candidates are evaluated, stored or scheduled. The agent learns once a batch, in candidate order, when every candidate has been answered
or abandoned: no order or split of the results matters.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfnas.config import canonical_json, parse
from kfnas.controller.agents import Agent, AgentState, Tokens
from kfnas.controller.baselines import EvolutionAgent, LocalSearchAgent, RandomAgent
from kfnas.controller.batch import Answer, Batch, checked, same, scored
from kfnas.controller.candidates import ACTIVATED_SOURCES, Candidate, Result, Row
from kfnas.controller.config import CRITIC_AGENTS, POLICY_AGENTS, SearchConfig
from kfnas.controller.evidence import prior_samples
from kfnas.controller.history import History, activated_ok, pareto_front, to_frame
from kfnas.controller.knowledge import Knowledge, KnownSample, critic_weights
from kfnas.controller.reward import is_within_budget
from kfnas.controller.state import SavedState, arrays_digest, read_state, write_state
from kfnas.controller.threads import one_thread
from kfnas.errors import BudgetError, ConfigError, CorruptError, NotFound, ResultError, SearchExhausted, SpaceError
from kfnas.space import Space

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class Search:
    """A search over a space, by one agent.

    Args:
        space: what is searched.
        config: agent, reward and batches; None: the defaults.
        seed: of every draw; 0 or more. Equal seeds and equal results give equal searches.
        prior: knowledge of an earlier search in the same space, of any task and target, which the critic starts from.

    Raises:
        ConfigError: the seed is no integer in [0, 2**63); the agent has no critic that could start from the prior; or not one of the prior's
            samples can be scored by this search's reward.
        SpaceError: the prior is of another space.
    """

    def __init__(self, space: Space, config: SearchConfig | None = None, *, seed: int = 0, prior: Knowledge | None = None) -> None:
        self._begin(space, SearchConfig() if config is None else config, seed)
        if prior is not None:
            self._take(prior)
        aim = self.config.reward
        if aim.ranks_without_target:
            logger.warning("reward %s has one exponent on both sides: target %g scales every reward alike and changes no ranking", aim.kind, aim.target)

    @property
    def space(self) -> Space:
        """What is searched."""
        return self._space

    @property
    def config(self) -> SearchConfig:
        """The configuration."""
        return self._config

    @property
    def seed(self) -> int:
        """The seed."""
        return self._seed

    @property
    def round(self) -> int:
        """Number of closed batches."""
        return self._round

    @property
    def open_batch(self) -> tuple[Candidate, ...]:
        """Candidates of the open batch that have no answer; empty between batches."""
        return () if self._batch is None else self._batch.waiting

    @property
    def metrics(self) -> dict[str, float]:
        """What the agent reported of its last update, by `group/name`."""
        return dict(self._metrics)

    @property
    def num_activated(self) -> int:
        """Children that were really trained, failed ones included; infeasible and cached ones not."""
        return self._history.num_activated + sum(row.is_activated for row in self._open_rows())

    @property
    def history(self) -> pd.DataFrame:
        """One row a draw, in order; of an open batch, what has been answered. Missing numbers are NaN.

        Columns: round, id, architecture, tokens, accuracy, cost, reward, status, source, kind, seed, log_prob, origin, canonical,
            reason, fidelity, device_seconds, metrics, artifacts, initialisation, value, uncertainty; see `Row`.
        """
        return to_frame(self.rows)

    @property
    def rows(self) -> list[Row]:
        """The history as `Row` objects."""
        return [*self._history.rows, *self._open_rows()]

    def suggest(self) -> list[Candidate]:
        """Candidates to evaluate: the unanswered ones of the open batch, or else a new batch. Never empty.

        A batch whose architectures are all known is learnt from at once, and another is drawn, up to `max_known_batches` times.

        Raises:
            SearchExhausted: nothing unknown was drawn.
            SpaceError: the policy draws no valid architecture.
        """
        for _ in range(self._config.max_known_batches + 1):
            if self._batch is None:
                self._open()
            if self.open_batch:
                return list(self.open_batch)
            self._close()
        raise SearchExhausted(
            f"{self._config.max_known_batches + 1} batches in a row held known architectures only ({self._history.num_known} are known): stop here, "
            f"or search a larger space, or raise ppo.entropy or max_known_batches"
        )

    def update(self, results: Iterable[Result]) -> None:
        """Take results, in any order and any split. All are checked before the first is taken.

        Raises:
            ResultError: a result is of an unknown id, contradicts an earlier one, or cannot be rewarded. Nothing is taken, then.
        """
        if isinstance(results, Result):
            results = [results]
        fresh: dict[str, Answer] = {}
        for result in results:
            result = checked(result, self._config.reward)
            earlier = fresh.get(result.id) or self._earlier(result.id)
            if earlier is None:
                fresh[result.id] = Answer(result.status, result)
            elif not same(earlier, result.status, result):
                now = _shown(Answer(result.status, result))
                raise ResultError(f"candidate {result.id!r} has another result already: first {_shown(earlier)}; now {now}: the first stands, drop the second")
        if fresh:
            assert self._batch is not None
            self._batch.answers.update(fresh)
            self._close_if_answered()

    def abandon(self, identity: str) -> None:
        """Give a candidate up: nothing is learnt of it, and the batch does not wait for it. Twice is as good as once.

        Raises:
            ResultError: the id is unknown, or has a result.
        """
        earlier = self._earlier(identity)
        if earlier is None:
            assert self._batch is not None
            self._batch.answers[identity] = Answer("abandoned", Result(identity, reason="abandoned"))
            self._close_if_answered()
        elif earlier.status != "abandoned":
            raise ResultError(f"candidate {identity!r} has a result already ({_shown(earlier)}): it cannot be abandoned")

    def best(self) -> Row:
        """The activated row of highest reward, the first of equals; with a hard reward, of those within the target cost.

        Raises:
            NotFound: no child has been trained with success.
            BudgetError: some have, and every one costs more than a hard reward's target.
        """
        trained = list(activated_ok(self.rows))
        if not trained:
            raise NotFound("no child has been trained with success yet: update() with an ok result first")
        feasible = [row for row in trained if is_within_budget(row.cost, self._config.reward)]
        if not feasible:
            cheapest, target = min(row.cost for row in trained if row.cost is not None), self._config.reward.target
            raise BudgetError(
                f"none of {len(trained)} trained children costs at most the target {target:g}; the cheapest costs {cheapest:g}: "
                f"search on, or raise reward.target"
            )
        return max(feasible, key=lambda row: row.reward if row.reward is not None else float("-inf"))

    def pareto(self, objectives: Sequence[str] = ("accuracy", "cost")) -> list[Row]:
        """Activated rows that none other beats in one objective without losing in another, best in the first objective first.

        Args:
            objectives: `accuracy` and `reward` are maximised, `cost` and `device_seconds` minimised; another name is a key of the
                results' metrics, maximised, or minimised where it is written with a leading "-".

        Raises:
            UserError: no objective is given.
        """
        return pareto_front(activated_ok(self.rows), objectives)

    def knowledge(self, task: str = "") -> Knowledge:
        """What this search learnt, for another one to start from: its trained samples, those of its prior (unless the critic gave it up),
        and the critic's weights.

        Args:
            task: label of this search's samples; rewards of unlike tasks are not compared.

        Raises:
            ConfigError: neither this search's samples nor those of its prior have a label, so that two tasks could not be told apart.
        """
        state = self._agent_state_now() if self._config.agent in CRITIC_AGENTS else AgentState()
        rows = activated_ok(self._history.rows)
        own = [KnownSample(row.canonical.tokens, row.accuracy, row.cost, row.fidelity, task, row.initialisation) for row in rows if row.accuracy is not None]
        keeps_prior = self._prior is not None and state.values["critic"]["has_prior"]
        earlier = self._prior.samples if self._prior is not None and keeps_prior else ()
        if not task and any(not sample.task for sample in earlier):
            raise ConfigError(
                "task: neither this search's samples nor those of its prior have a label, and their rewards may not compare; give knowledge(task=...)"
            )
        return Knowledge(self._space.to_json(), (*earlier, *own), critic_weights(state))

    def digest(self) -> str:
        """Sha256 (hex) over the whole state: history, open batch, weights, generators. Durations, reasons and artifacts' places are left
        out."""
        state = self._agent_state_now()
        value = {
            "space": self._space.digest,
            "config": self._config.model_dump(mode="json"),
            "seed": self._seed,
            "round": self._round,
            "history": self._history.digest,
            "batch": None if self._batch is None else self._batch.to_json(digested=True),
            "agent": dict(state.values),
            "arrays": arrays_digest(state.arrays),
        }
        if self._prior is not None:
            value["prior"] = self._prior.samples_only().digest()
        return hashlib.sha256(canonical_json(value).encode()).hexdigest()

    def save(self, directory: Path | str) -> None:
        """Write the state into a folder: the same bytes for the same state.

        Raises:
            StorageFull: there is no room; an earlier state there is untouched.
            AccessDenied: the folder may not be written.
        """
        state = self._agent_state_now()
        values = {
            "space": self._space.to_json(),
            "space_has_code": self._space_has_code,
            "config": self._config.model_dump(mode="json"),
            "seed": self._seed,
            "round": self._round,
            "batch": None if self._batch is None else self._batch.to_json(),
            "agent": dict(state.values),
            "metrics": self._metrics,
        }
        prior = None if self._prior is None else canonical_json(self._prior.samples_only().to_json())
        write_state(Path(directory), SavedState(values, state.arrays, self._history.lines, prior))

    @classmethod
    def load(cls, directory: Path | str, space: Space | None = None) -> Search:
        """Go on exactly where `save` was called.

        Args:
            directory: what `save` wrote.
            space: needed where the space has a rule or a canonical form, which are code and are not saved; None: a tabular space of the
                saved decisions.

        Raises:
            NotFound: there is no state.
            StateVersionError: a newer kfnas wrote it.
            CorruptError: it is not what was written.
            SpaceError: the space is needed and not given, or is another one.
        """
        saved = read_state(Path(directory))
        try:
            known = Space.from_json(saved.values["space"])
            if space is None and saved.values["space_has_code"]:
                raise SpaceError(
                    f"{directory}: space {known.name!r} has a rule or a canonical form, which no state holds; give the space, as load(directory, space=...)"
                )
            if space is not None and space.digest != known.digest:
                raise SpaceError(
                    f"{directory}: saved for space {known.name!r} (digest {known.digest[:12]}), given {space.name!r} ({space.digest[:12]}); "
                    f"give the space it was saved for"
                )
            search = cls.__new__(cls)
            config = saved.values["config"]
            if "experience" in config:  # states from before there was a choice
                config = {**config, "experience": {"correction": "priority", **config["experience"]}}
            search._begin(space or known, parse(SearchConfig, config, source=str(directory)), saved.values["seed"])
            search._restore(saved)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError(f"{directory}: state lacks or garbles a field ({error!r}); take an intact copy of the folder") from error
        return search

    def _begin(self, space: Space, config: SearchConfig, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
            raise ConfigError(f"seed: {seed!r} is not usable; give an integer of 0 or more, below 2**63")
        self._space, self._config, self._seed = space, config, int(seed)
        self._prior: Knowledge | None = None
        self._round = 0
        self._batch: Batch | None = None
        self._history = History()
        self._metrics: dict[str, float] = {}
        # Made when first needed: what only reads a saved search never imports torch.
        self._agent: Agent | None = None
        self._agent_state: AgentState | None = None

    def _take(self, prior: Knowledge) -> None:
        if self._config.agent not in CRITIC_AGENTS:
            raise ConfigError(
                f"prior: agent {self._config.agent!r} has no critic to start from earlier knowledge; leave prior out, or choose {' or '.join(CRITIC_AGENTS)}"
            )
        if not isinstance(prior, Knowledge):
            raise ConfigError(f"prior: {type(prior).__name__} is not knowledge; give what Search.knowledge() or Knowledge.load() returned")
        prior.check_space(self._space)
        prior_samples(prior.samples, self._config.reward)
        self._prior = prior

    def _restore(self, saved: SavedState) -> None:
        values = saved.values
        if saved.prior is not None:
            self._prior = Knowledge.from_json(json.loads(saved.prior))
        self._round = int(values["round"])
        self._metrics = dict(values["metrics"])
        self._agent_state = AgentState(values["agent"], saved.arrays)
        for line in saved.lines:
            self._history.append(Row.from_json(json.loads(line), self._space.name), line)
        if values["batch"] is not None:
            self._batch = Batch.from_json(values["batch"], self._space, self._seed)

    @property
    def _space_has_code(self) -> bool:
        return self._space.has_rule or self._space.has_canonical

    def _live_agent(self) -> Agent:
        if self._agent is None:
            self._agent = make_agent(self._space, self._config, self._seed, self._prior)
            if self._agent_state is not None:
                self._agent.restore(self._agent_state)
                self._agent_state = None
        return self._agent

    def _agent_state_now(self) -> AgentState:
        return self._agent_state if self._agent_state is not None else self._live_agent().state()

    def _is_known(self, canonical: Tokens) -> bool:
        return self._history.answer(canonical) is not None

    def _open(self) -> None:
        if self._history.num_known >= self._space.size:
            raise SearchExhausted(f"all {self._space.size} architectures of space {self._space.name!r} are known: the search is over")
        agent = self._live_agent()  # imports what it needs, before threads are counted
        with one_thread():
            draws = agent.propose(self._config.batch_size, self._is_known)
        self._batch = Batch.of_draws(self._round, draws, self._space, self._history, self._seed)

    def _close_if_answered(self) -> None:
        if self._batch is not None and not self._batch.waiting:
            self._close()

    def _close(self) -> None:
        assert self._batch is not None
        rows = self._batch.closed_rows(self._history, self._config.reward)
        horizon = self._config.horizon
        progress = 0.0 if horizon is None else min(1.0, (len(self._history) + len(rows)) / horizon)
        agent = self._live_agent()
        with one_thread():
            self._metrics = agent.learn(scored(rows, self._history.last_initialisation), progress)
        for row in rows:  # last: a batch whose learning was interrupted is closed again, and no row may be there twice
            self._history.append(row)
        self._round += 1
        self._batch = None
        logger.debug("round %d closed: %d draws, %d activated in all", self._round, len(rows), self._history.num_activated)

    def _open_rows(self) -> list[Row]:
        return [] if self._batch is None else self._batch.answered_rows(self._config.reward)

    def _earlier(self, identity: str) -> Answer | Row | None:
        """What an id was answered with; None where its answer is awaited."""
        slot = None if self._batch is None else self._batch.slot(identity)
        row = self._history.find(identity)
        if (slot is None or not slot.needs_result) and (row is None or row.source not in ACTIVATED_SOURCES):
            raise ResultError(f"candidate {identity!r} was never handed out by this search; give the id of a candidate of suggest()")
        if row is not None:
            return row
        assert self._batch is not None
        return self._batch.answers.get(identity)


def make_agent(space: Space, config: SearchConfig, seed: int, prior: Knowledge | None = None) -> Agent:
    """The agent that a configuration names, at its start; `prior` is what its critic starts from."""
    if config.agent == "mnas":
        from kfnas.controller.ppo import PPOAgent

        return PPOAgent(space, config, seed)
    if config.agent in POLICY_AGENTS:
        from kfnas.controller.fnas import FNASAgent

        return FNASAgent(space, config, seed, prior)
    rng = np.random.default_rng(seed)
    if config.agent == "random":
        return RandomAgent(space, rng)
    if config.agent == "evolution":
        return EvolutionAgent(space, config.evolution, rng)
    return LocalSearchAgent(space, rng)


def _shown(item: Any) -> str:
    fields = item.result if isinstance(item, Answer) else item
    return f"status {item.status}, accuracy {fields.accuracy}, cost {fields.cost}"
