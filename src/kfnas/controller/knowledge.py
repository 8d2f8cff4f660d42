"""What one search learnt that another may start from: its activated samples, re-scorable for any target.

Tokens, accuracy, cost and fidelity are kept rather than rewards, so that a search with another target can score them anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kfnas.config import canonical_json
from kfnas.errors import CorruptError, NotFound, StateVersionError

FORMAT = 1
FILE = "knowledge.json"


class KnownSample(NamedTuple):
    """One trained child: canonical tokens, accuracy, cost (None where it was not taken) and training budget."""

    tokens: tuple[int, ...]
    accuracy: float
    cost: float | None
    fidelity: str | float | None


@dataclass(frozen=True)
class Knowledge:
    """Activated samples of searches in one space.

    Attributes:
        space: name and decisions, as `Space.to_json` gives them.
        samples: in the order in which they were trained.
    """

    space: Mapping[str, Any]
    samples: tuple[KnownSample, ...]

    def save(self, directory: Path | str) -> None:
        """Write `knowledge.json` into a folder, which is made where it is missing."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        value = {"format": FORMAT, "space": dict(self.space), "samples": [list(sample) for sample in self.samples]}
        (path / FILE).write_text(canonical_json(value) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path | str) -> Knowledge:
        """Read what `save` wrote.

        Raises:
            NotFound: the folder holds no knowledge.
            StateVersionError: a newer kfnas wrote it.
            CorruptError: the file is not what `save` writes.
        """
        path = Path(directory) / FILE
        try:
            value = json.loads(path.read_bytes())
            version = value["format"]
            if not isinstance(version, int) or version > FORMAT:
                raise StateVersionError(f"{path}: format {version}, this kfnas reads up to {FORMAT}; install a newer kfnas")
            samples = tuple(KnownSample(tuple(tokens), accuracy, cost, fidelity) for tokens, accuracy, cost, fidelity in value["samples"])
            return cls(space=value["space"], samples=samples)
        except FileNotFoundError:
            raise NotFound(f"{path}: no such file; give a folder that Knowledge.save wrote") from None
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptError(f"{path}: not a search's knowledge ({error}); take an intact copy") from None
