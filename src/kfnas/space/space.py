"""What an architecture is: an ordered list of decisions, grouped into blocks, and one choice for each.

A `Space` is plain data (the decisions) and three optional functions: a rule of validity, a canonical form, and a builder of layer
specifications. A tabular space has the decisions alone. Tokens are the indices of the choices, in the order of the decisions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.config import digest_of
from kfnas.errors import SpaceError
from kfnas.space.layers import NetworkArguments, NetworkSpec

Choice = str | int | float | bool
Rule = Callable[[Mapping[str, Choice]], bool]
Canonical = Callable[[tuple[int, ...]], tuple[int, ...]]
NetworkBuilder = Callable[[Mapping[str, Choice], NetworkArguments], NetworkSpec]

MAX_DRAWS = 20_000
"""Draws that `Space.random` makes before it calls a rule unsatisfiable."""


@dataclass(frozen=True)
class Decision:
    """One thing to choose, and its distinct choices in order. `block0/op` belongs to block `block0`; a name without "/" is a block of its own."""

    name: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or self.name != self.name.strip() or not all(self.name.split("/")):
            raise SpaceError(f"decision name {self.name!r} is not usable; give a non-empty text such as 'block0/op'")
        if isinstance(self.choices, str) or not isinstance(self.choices, Iterable):
            raise SpaceError(f"decision {self.name!r}: choices are {self.choices!r}; give a list of them")
        choices = tuple(_choice(self.name, choice) for choice in self.choices)
        if not choices:
            raise SpaceError(f"decision {self.name!r} has no choices; give at least one, or leave the decision out")
        if len(set(choices)) != len(choices):
            raise SpaceError(f"decision {self.name!r} names a choice twice: {list(choices)}; keep one of them (True equals 1, and 1 equals 1.0)")
        object.__setattr__(self, "choices", choices)

    @property
    def block(self) -> str:
        """Name of the block that the decision belongs to."""
        return self.name.rsplit("/", 1)[0]


class Block(NamedTuple):
    """Consecutive decisions `start:stop` that build one stage of the network."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Architecture:
    """One choice for each decision of the space named `space`. Printed and parsed as `mnas_small:0-1-2`."""

    space: str
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _tokens(self.tokens))

    def __str__(self) -> str:
        return f"{self.space}:{'-'.join(map(str, self.tokens))}"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """The architecture that `str()` printed as `text`.

        Raises:
            SpaceError: the text is not `<space>:<token>-<token>-...`.
        """
        space, colon, tokens = text.strip().rpartition(":")
        parts = tokens.split("-")
        if not colon or not space or not all(part.isascii() and part.isdigit() for part in parts):
            raise SpaceError(f"{text!r} is not an architecture; write <space>:<token>-<token>-..., such as mnas_small:0-1-2")
        return cls(space, tuple(int(part) for part in parts))


class Space:
    """An ordered list of decisions, and what may be built of their choices.

    Args:
        decisions: in the order in which an agent decides; those of one block stand together.
        name: goes into printed architectures; does not identify the space (its `digest` does).
        is_valid: whether choices, by decision name, are allowed; None allows all. Must be pure.
        canonical: maps valid tokens to the valid tokens that stand for every architecture of the same network; None means that no two are
            the same. Must be pure and idempotent.
        network: builds the layer specifications; None for a tabular space.
        reference: tokens of the hand-made architecture that the space was made around, or None.

    Raises:
        SpaceError: a decision, a block or the reference does not fit.
    """

    def __init__(
        self,
        decisions: Iterable[Decision],
        *,
        name: str = "custom",
        is_valid: Rule | None = None,
        canonical: Canonical | None = None,
        network: NetworkBuilder | None = None,
        reference: Sequence[int] | None = None,
    ) -> None:
        if not name or name != "".join(name.split()) or ":" in name:
            raise SpaceError(f"space name {name!r} is not usable; give a text without spaces and colons")
        self.name = name
        self.decisions = tuple(decisions)
        self.blocks = _blocks(self.decisions)
        self.num_choices = tuple(len(decision.choices) for decision in self.decisions)
        self.digest: str = digest_of([[decision.name, list(decision.choices)] for decision in self.decisions])
        self._rule = is_valid
        self._canonical = canonical
        self._network = network
        self._offsets = np.cumsum([0, *self.num_choices])
        self.reference: Architecture | None = None
        if reference is not None:
            self.reference = self.architecture(reference)

    @classmethod
    def from_decisions(
        cls,
        decisions: Mapping[str, Sequence[Choice]],
        *,
        is_valid: Rule | None = None,
        name: str = "custom",
        canonical: Canonical | None = None,
        network: NetworkBuilder | None = None,
        reference: Sequence[int] | None = None,
    ) -> Space:
        """A space from `{"block0/op": ["conv", "mb3"], ...}`; the other arguments are the constructor's."""
        if not isinstance(decisions, Mapping):
            raise SpaceError(f"decisions are {type(decisions).__name__}; give a mapping of decision names to lists of choices")
        listed = [Decision(key, choices if isinstance(choices, str) else tuple(choices)) for key, choices in decisions.items()]  # type: ignore[arg-type]
        return cls(listed, name=name, is_valid=is_valid, canonical=canonical, network=network, reference=reference)

    def __repr__(self) -> str:
        return f"Space({self.name!r}, {len(self.decisions)} decisions, {len(self.blocks)} blocks, {self.size} architectures, digest {self.digest[:12]})"

    @property
    def size(self) -> int:
        """Number of token tuples, valid or not, canonical or not."""
        return math.prod(self.num_choices)

    @property
    def has_rule(self) -> bool:
        """Whether some token tuples may be invalid."""
        return self._rule is not None

    @property
    def has_canonical(self) -> bool:
        """Whether some architectures may stand for the same network."""
        return self._canonical is not None

    @property
    def has_networks(self) -> bool:
        """Whether `network` builds anything."""
        return self._network is not None

    def architecture(self, tokens: Sequence[int]) -> Architecture:
        """The architecture of `tokens`, checked.

        Raises:
            SpaceError: a token too many or too few, out of range, or a combination that the space's rule refuses.
        """
        tokens = _tokens(tokens)
        self._check_range(tokens)
        if not self._allows(tokens):
            raise SpaceError(f"{Architecture(self.name, tokens)}: the space's rule refuses {self._choices(tokens)}; change one of these choices")
        return Architecture(self.name, tokens)

    def choices_of(self, architecture: Architecture) -> dict[str, Choice]:
        """Choice of each decision, by its name, in order."""
        return self._choices(self._checked(architecture))

    def is_valid(self, tokens: Sequence[int]) -> bool:
        """Whether `tokens` are one in-range index a decision that the space's rule allows."""
        try:
            self.architecture(tokens)
        except SpaceError:
            return False
        return True

    def random(self, rng: np.random.Generator) -> Architecture:
        """An architecture, uniform over the valid ones.

        Raises:
            SpaceError: no valid one in `MAX_DRAWS` draws.
        """
        for _ in range(MAX_DRAWS if self.has_rule else 1):
            tokens = tuple(rng.integers(0, self.num_choices).tolist())
            if self._allows(tokens):
                return Architecture(self.name, tokens)
        raise SpaceError(f"space {self.name!r}: {MAX_DRAWS} random architectures broke its rule; loosen is_valid, or drop impossible choices")

    def neighbors(self, architecture: Architecture) -> Iterator[Architecture]:
        """Canonical forms of all valid changes of one decision, lazily, in the order of decisions and choices.

        Each comes once, and the canonical form of `architecture` itself does not come.

        Raises:
            SpaceError: `architecture` is of another space (at the first step of the iteration).
        """
        tokens = self._checked(architecture)
        seen = {self.canonical(architecture)}
        for position, count in enumerate(self.num_choices):
            for token in range(count):
                changed = (*tokens[:position], token, *tokens[position + 1 :])
                if token == tokens[position] or not self._allows(changed):
                    continue
                neighbor = self.canonical(Architecture(self.name, changed))
                if neighbor not in seen:
                    seen.add(neighbor)
                    yield neighbor

    def canonical(self, architecture: Architecture) -> Architecture:
        """The one architecture that stands for all that build the same network as `architecture`.

        Raises:
            SpaceError: `architecture` is of another space, or the space's own function leaves the space.
        """
        tokens = self._checked(architecture)
        if self._canonical is None:
            return Architecture(self.name, tokens)
        try:
            return self.architecture(self._canonical(tokens))
        except SpaceError as error:
            raise SpaceError(f"space {self.name!r}: canonical({architecture}) is no architecture of the space: {error}") from error

    def embed(self, architecture: Architecture) -> npt.NDArray[np.float32]:
        """Expand embedding: concatenated one-hot encodings of the tokens, float32 [sum(num_choices)]."""
        tokens = self._checked(architecture)
        embedding = np.zeros(int(self._offsets[-1]), dtype=np.float32)
        embedding[self._offsets[:-1] + np.asarray(tokens)] = 1.0
        return embedding

    def embed_block(self, architecture: Architecture, block: int | str) -> npt.NDArray[np.float32]:
        """Expand embedding of one block, by index or name: the slice of `embed` that its decisions fill.

        Raises:
            SpaceError: no such block.
        """
        found = self.block(block)
        return self.embed(architecture)[self._offsets[found.start] : self._offsets[found.stop]].copy()

    def block(self, block: int | str) -> Block:
        """A block by its index (0 or more) or name.

        Raises:
            SpaceError: no such block.
        """
        for index, candidate in enumerate(self.blocks):
            if block in (index, candidate.name):
                return candidate
        raise SpaceError(f"space {self.name!r} has no block {block!r}; it has {', '.join(item.name for item in self.blocks)}")

    def network(self, architecture: Architecture, arguments: NetworkArguments) -> NetworkSpec:
        """Layer specifications of the architecture's canonical form, so that equal networks have equal specifications, names included.

        Raises:
            SpaceError: the space builds no networks, or the builder refuses the arguments.
        """
        if self._network is None:
            raise SpaceError(f"space {self.name!r} builds no networks; pass network= to it, or choose a space that does, such as mnas_small")
        return self._network(self._choices(self.canonical(architecture).tokens), arguments)

    def to_json(self) -> dict[str, Any]:
        """Name and decisions as JSON values; the rule, the canonical form and the networks are code, and are not carried."""
        return {"name": self.name, "decisions": [[decision.name, list(decision.choices)] for decision in self.decisions]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | str) -> Space:
        """A tabular space from what `to_json` gave, as a mapping or as JSON text.

        Raises:
            SpaceError: the value holds no decisions.
        """
        try:
            loaded = json.loads(value) if isinstance(value, str) else value
            name, decisions = loaded["name"], [(key, tuple(choices)) for key, choices in loaded["decisions"]]
        except (KeyError, TypeError, ValueError) as error:
            raise SpaceError(f"{str(value)[:80]!r} is not a space ({error}); give what Space.to_json() returned") from None
        return cls([Decision(key, choices) for key, choices in decisions], name=name)

    def _checked(self, architecture: Architecture) -> tuple[int, ...]:
        if architecture.space != self.name:
            raise SpaceError(f"{architecture} is of space {architecture.space!r}, not {self.name!r}; use an architecture of this space")
        self._check_range(architecture.tokens)
        return architecture.tokens

    def _check_range(self, tokens: tuple[int, ...]) -> None:
        if len(tokens) != len(self.decisions):
            raise SpaceError(f"space {self.name!r}: {len(tokens)} tokens; give {len(self.decisions)}, one a decision")
        for decision, count, token in zip(self.decisions, self.num_choices, tokens, strict=True):
            if token >= count:
                raise SpaceError(f"space {self.name!r}: token {token} of decision {decision.name!r} is out of range; give 0 to {count - 1}")

    def _allows(self, tokens: tuple[int, ...]) -> bool:
        return self._rule is None or bool(self._rule(self._choices(tokens)))

    def _choices(self, tokens: tuple[int, ...]) -> dict[str, Choice]:
        return {decision.name: decision.choices[token] for decision, token in zip(self.decisions, tokens, strict=True)}


def _choice(name: str, value: Any) -> Choice:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise SpaceError(f"decision {name!r}: choice {value!r} cannot be written down; give texts, finite numbers or booleans")
    return value


def _tokens(tokens: Sequence[int]) -> tuple[int, ...]:
    """Tokens as a tuple of int >= 0; numpy integers are taken, floats and booleans are not."""
    if type(tokens) is tuple and all(type(token) is int and token >= 0 for token in tokens):
        return tokens
    listed = list(tokens)
    for token in listed:
        if isinstance(token, bool) or not isinstance(token, int | np.integer) or token < 0:
            raise SpaceError(f"token {token!r} is not an index; give integers of 0 or more")
    return tuple(int(token) for token in listed)


def _blocks(decisions: tuple[Decision, ...]) -> tuple[Block, ...]:
    """Runs of decisions with the same block name."""
    if not decisions:
        raise SpaceError("a space has no decisions; give at least one")
    names = [decision.name for decision in decisions]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SpaceError(f"decisions {twice} are named twice; give each its own name")
    starts = [index for index in range(len(decisions)) if index == 0 or decisions[index].block != decisions[index - 1].block]
    blocks = tuple(Block(decisions[start].block, start, stop) for start, stop in pairwise([*starts, len(decisions)]))
    parts = [block.name for block in blocks]
    if len(set(parts)) != len(parts):
        apart = sorted({part for part in parts if parts.count(part) > 1})
        raise SpaceError(f"decisions of blocks {apart} do not stand together; list a block's decisions one after another")
    for block in blocks:
        if block.stop - block.start > 1 and block.name in names:
            raise SpaceError(f"decision {block.name!r} is a block of its own, and {block.name}/... is another of that name; rename one")
    return blocks
