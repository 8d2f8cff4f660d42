"""Who takes part in a comparison of searches: kfnas's agents and outside peers, each with its settings and under a label of its own."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

import kfnas.controller
import kfnas.space.space
from kfnas.config import Config, parse
from kfnas.controller.config import BUFFER_AGENTS, CRITIC_AGENTS, AgentName, SearchConfig
from kfnas.errors import ConfigError
from kfnas.space import Space
from kfnas.studies import peers
from kfnas.studies.objectives import Source

PEERS: Mapping[str, type[Config]] = {"ridge": peers.RidgeConfig, "tpe": peers.TPEConfig}
AGENTS: tuple[str, ...] = (*get_args(AgentName), *PEERS)


@dataclass(frozen=True)
class Donor:
    """An earlier search of the same agent on another objective of the same space, whose knowledge a search starts from.

    Attributes:
        source: builds the donor's objective.
        samples: activated samples of the donor's search.
        shuffled: whether its scores are given to the wrong architectures.
    """

    source: Source
    samples: int
    shuffled: bool = False


@dataclass(frozen=True)
class Entrant:
    """One agent with its configuration, and where it starts from."""

    label: str
    agent: str
    config: Config
    donor: Donor | None = None

    @property
    def has_critic(self) -> bool:
        """Whether it can start from a donor."""
        return self.agent in CRITIC_AGENTS

    def annealed(self, samples: int) -> Entrant:
        """With a horizon where it has an experience buffer and names none: what its search will draw for so many activated samples."""
        config = self.config
        if not isinstance(config, SearchConfig) or self.agent not in BUFFER_AGENTS or config.horizon is not None:
            return self
        trained = 1 - config.experience.max_share
        if self.agent in CRITIC_AGENTS:
            trained *= 1 - config.critic.max_trusted_share
        return replace(self, config=config.model_copy(update={"horizon": math.ceil(samples / trained)}))

    def settings(self) -> dict[str, Any]:
        """JSON value of all that decides its searches beside objective, seed and samples; the label does not."""
        value: dict[str, Any] = {"agent": self.agent, "config": self.config.model_dump(mode="json")}
        if self.agent == "tpe":
            value["optuna"] = _version("optuna")
        if self.donor is not None:
            value["donor"] = {"objective": self.donor.source().fingerprint(), "samples": self.donor.samples, "shuffled": self.donor.shuffled}
        return value

    def code(self) -> str:
        """Digest (hex) of the code that the searches run, comments and docstrings apart: finished runs of other code are not taken for these."""
        return _code(self.agent in PEERS)


def parse_entrants(texts: Iterable[str]) -> tuple[Entrant, ...]:
    """Entrants from texts `[LABEL=]AGENT[:SETTING=VALUE...]`, several in one text where they are parted by commas.

    Settings are fields of the agent's configuration, nested by dots; values are YAML: `fnas:preset=paper`, `wide=fnas:critic.threshold.quantile=0.7`.

    Raises:
        ConfigError: an unknown agent or field, a wrong value, or a label that occurs twice.
    """
    entrants = [_entrant(part.strip()) for text in texts for part in text.split(",") if part.strip()]
    if not entrants:
        raise ConfigError(f"agents: none is given; choose of {', '.join(AGENTS)}")
    labels = [entrant.label for entrant in entrants]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"agents: {twice[0]!r} is given twice; give one of them a label of its own, as in `other={twice[0]}`")
    return tuple(entrants)


def with_donors(entrants: Sequence[Entrant], donor: Donor, *, also_shuffled: bool, space: Space) -> tuple[Entrant, ...]:
    """The entrants, and each that has a critic once more with the donor behind it (and once with a misleading one).

    Raises:
        ConfigError: no entrant has a critic, or the donor's space is another one.
    """
    other = donor.source()
    if other.space.digest != space.digest:
        raise ConfigError(
            f"donor {other.name!r} has another space ({len(other.space.decisions)} decisions, digest {other.space.digest[:12]}) than the objective "
            f"({len(space.decisions)}, {space.digest[:12]}); knowledge passes between tasks of one space only"
        )
    if not 1 <= donor.samples <= other.size:
        raise ConfigError(f"donor {other.name!r}: {donor.samples} samples; give 1 to {other.size}, the size of its space")
    if not any(entrant.has_critic for entrant in entrants):
        raise ConfigError(f"agents: none of {', '.join(item.label for item in entrants)} has a critic to start from a donor; add {' or '.join(CRITIC_AGENTS)}")
    found: list[Entrant] = []
    for entrant in entrants:
        found.append(entrant)
        if entrant.has_critic:
            found.append(replace(entrant, label=f"{entrant.label} + donor", donor=donor))
            if also_shuffled:
                found.append(replace(entrant, label=f"{entrant.label} + shuffled donor", donor=replace(donor, shuffled=True)))
    return tuple(found)


def code_digest(paths: Iterable[Path]) -> str:
    """Sha256 (hex) of Python files without comments, docstrings and layout."""
    digest = hashlib.sha256()
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = [item for item in node.body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
        digest.update(f"{path.name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


@cache
def _code(is_peer: bool) -> str:
    """Of the files as they were when this process first asked, which is what it runs."""
    own = [Path(peers.__file__)] if is_peer else sorted(Path(kfnas.controller.__file__).parent.glob("*.py"))
    return code_digest([*own, Path(kfnas.space.space.__file__)])


def _entrant(text: str) -> Entrant:
    head, *settings = text.split(":")
    label, equals, agent = head.rpartition("=")
    if equals and not label.strip():
        raise ConfigError(f"agents: {text!r} has an empty label; write LABEL=AGENT, or AGENT alone")
    if agent not in AGENTS:
        raise ConfigError(f"agents: unknown agent {agent!r} in {text!r}; choose of {', '.join(AGENTS)}")
    fields: dict[str, Any] = {}
    for setting in settings:
        key, given, value = setting.partition("=")
        if not given or not key:
            raise ConfigError(f"agents: {setting!r} in {text!r} is no setting; write FIELD=VALUE, such as critic.threshold.quantile=0.7")
        try:
            _set(fields, key.split("."), yaml.safe_load(value), text)
        except yaml.YAMLError as error:
            raise ConfigError(f"agents: {setting!r} in {text!r} has no YAML as its value ({' '.join(str(error).split())}); write a number or a word") from None
    return Entrant(label.strip() or text, agent, _config(agent, fields, text))


def _set(fields: dict[str, Any], path: Sequence[str], value: Any, text: str) -> None:
    for part in path[:-1]:
        fields = fields.setdefault(part, {})
        if not isinstance(fields, dict):
            raise ConfigError(f"agents: {'.'.join(path)} in {text!r} is set twice, once as a whole and once in part; keep one of them")
    fields[path[-1]] = value


def _config(agent: str, fields: dict[str, Any], text: str) -> Config:
    if agent in PEERS:
        return parse(PEERS[agent], fields, source=f"agents: {text}")
    config = parse(SearchConfig, {**fields, "agent": agent}, source=f"agents: {text}")
    if config.reward.target is not None:
        raise ConfigError(f"agents: {text!r} sets reward.target ({config.reward.target:g}); a comparison is of scores alone: remove it")
    return config


def _version(package: Literal["optuna"]) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
