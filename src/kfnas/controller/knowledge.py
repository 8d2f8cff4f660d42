"""What one search learnt that another in the same space may start from: its activated samples, and its critic where it has one.

Tokens, accuracy, cost, fidelity, task and initialisation are kept rather than rewards, so that a search with another target can score
them anew. A folder holds

    knowledge.json          the samples, and the critic file's digest
    critic.safetensors      weights of V and U, and the mean and deviation of the rewards they were fitted to; where there is a critic
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from kfnas.config import canonical_json
from kfnas.controller.agents import AgentState
from kfnas.controller.candidates import RANDOM
from kfnas.errors import CorruptError, NotFound, SpaceError, StateVersionError
from kfnas.space import Space

FORMAT = 2
NETWORKS = ("v", "u")
STACKED, PAIRWISE = "critic.networks.", "critic.pairwise."
FILE, CRITIC_FILE = "knowledge.json", "critic.safetensors"


class KnownSample(NamedTuple):
    """One trained child: canonical tokens, accuracy, cost (None where it was not taken), training budget, the task it was trained on, and
    what its training started from."""

    tokens: tuple[int, ...]
    accuracy: float
    cost: float | None
    fidelity: str | float | None
    task: str = ""
    initialisation: str = RANDOM


@dataclass(frozen=True)
class Knowledge:
    """Activated samples of searches in one space, and the critic that was fitted to them.

    Attributes:
        space: name and decisions, as `Space.to_json` gives them.
        samples: in the order in which they were trained.
        critic: weights by name; empty where the search had no critic, or it had learnt nothing. Two with unlike weights alone are equal;
            their digests differ.
    """

    space: Mapping[str, Any]
    samples: tuple[KnownSample, ...]
    critic: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)

    def digest(self) -> str:
        """Sha256 (hex) over space, samples and weights."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()

    def samples_only(self) -> Knowledge:
        """The same without the critic: what a search keeps of its prior once its own critic has taken the weights over."""
        return replace(self, critic={})

    def check_space(self, space: Space) -> None:
        """That the knowledge is of this space.

        Raises:
            SpaceError: it is of another.
        """
        known = Space.from_json(self.space)
        if known.digest != space.digest:
            raise SpaceError(
                f"prior: knowledge of space {known.name!r} (digest {known.digest[:12]}), given to a search of {space.name!r} ({space.digest[:12]}); "
                f"give knowledge of a search in the same space"
            )

    def to_json(self) -> dict[str, Any]:
        """What `knowledge.json` holds; the weights by their digest."""
        weights = {} if not self.critic else {"critic": hashlib.sha256(self._critic_bytes()).hexdigest()}
        return {"format": FORMAT, "space": dict(self.space), "samples": [list(sample) for sample in self.samples], **weights}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], critic: Mapping[str, np.ndarray] | None = None) -> Knowledge:
        """The knowledge that `to_json` wrote, and the weights that are kept beside it."""
        return cls(value["space"], tuple(KnownSample(tuple(tokens), *fields) for tokens, *fields in value["samples"]), critic or {})

    def save(self, directory: Path | str) -> None:
        """Write the knowledge into a folder, which is made where it is missing."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        if self.critic:
            (path / CRITIC_FILE).write_bytes(self._critic_bytes())
        else:
            (path / CRITIC_FILE).unlink(missing_ok=True)
        (path / FILE).write_text(canonical_json(self.to_json()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path | str) -> Knowledge:
        """Read what `save` wrote; also what versions before 2 did, whose samples have no task and were initialised at random.

        Raises:
            NotFound: the folder holds no knowledge.
            StateVersionError: a newer kfnas wrote it.
            CorruptError: a file is missing, or is not what `save` writes.
        """
        path = Path(directory) / FILE
        try:
            value = json.loads(path.read_bytes())
            version = value["format"]
            if not isinstance(version, int) or version > FORMAT:
                raise StateVersionError(f"{path}: format {version}, this kfnas reads up to {FORMAT}; install a newer kfnas")
            critic = _read_critic(path.parent / CRITIC_FILE, value["critic"]) if "critic" in value else {}
            return cls.from_json(value, critic)
        except FileNotFoundError:
            raise NotFound(f"{path}: no such file; give a folder that Knowledge.save wrote") from None
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptError(f"{path}: not a search's knowledge ({error}); take an intact copy") from None

    def _critic_bytes(self) -> bytes:
        return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in self.critic.items()})


def critic_weights(state: AgentState) -> dict[str, np.ndarray]:
    """Weights of V and U by network, layer and kind (`v.0.weights`), and the mean and deviation of the rewards that V was fitted to
    (`scale`), of an agent's state; empty where it has no critic, or one that has learnt nothing."""
    critic = state.values.get("critic")
    rewards = state.arrays.get("critic.own.rewards")
    if critic is None or critic["num_fits"] == 0 or rewards is None:
        return {}
    weights = {"scale": np.array([rewards.mean(), rewards.std()])}
    for name, stacked in state.arrays.items():
        if name.startswith(PAIRWISE):
            weights[name.removeprefix("critic.")] = stacked.copy()
        if name.startswith(STACKED):
            kind, layer = name.removeprefix(STACKED).split(".")
            weights |= {f"{network}.{layer}.{kind}": array.copy() for network, array in zip(NETWORKS, stacked, strict=True)}
    return weights


def stacked_weights(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `critic_weights` took apart: `<kind>.<layer>`, one network after the other along the first axis."""
    names = [name.split(".") for name in weights if name.startswith(f"{NETWORKS[0]}.")]
    return {f"{kind}.{layer}": np.stack([weights[f"{network}.{layer}.{kind}"] for network in NETWORKS]) for _, layer, kind in names}


def _read_critic(path: Path, digest: str) -> dict[str, np.ndarray]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptError(f"{path}: missing, though {FILE} names it; take an intact copy of the folder") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise CorruptError(f"{path}: sha256 is {found[:12]}, {FILE} says {digest[:12]}; take an intact copy of the folder")
    try:
        return dict(safetensors.numpy.load(data))
    except SafetensorError as error:
        raise CorruptError(f"{path}: not safetensors ({error}); take an intact copy of the folder") from None
