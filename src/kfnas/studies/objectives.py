"""Objectives with known answers: a space, what one training run would show of an architecture, and what the architecture is really worth.

A search sees `observe` alone, noise included; it is judged by `score`. Objectives cross process boundaries as sources: small picklable callables that
build the objective where it is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from kfnas.config import digest_of
from kfnas.errors import ConfigError, DataError, KfnasError
from kfnas.space import Decision, Space

Tokens = tuple[int, ...]
TokenArray = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PERCENT = 100.0
LEAST_COVERED = 1e-3
"""Smallest share of all combinations that a table must hold: searches draw at random and would hardly ever meet a row of a sparser one."""
FINGERPRINTED = 32


@dataclass(frozen=True)
class Objective:
    """A search problem with known answers; higher is better.

    Attributes:
        name: for people.
        space: what is searched.
        observe: tokens [n, decisions] and a seed -> what one training run of each would show, [n]; NaN for one that fails. Equal arguments give equal
            values, so that a search is repeatable and all searches of one seed see the same world.
        score: tokens [n, decisions] -> what each is really worth, [n].
        size: number of valid architectures.
        content: digest of the file that the answers come from, where they come from one.
        unit: what kfnas's own agents see as an accuracy of 1: 100 where the answers are percentages, else 1.
    """

    name: str
    space: Space
    observe: Callable[[TokenArray, int], Floats]
    score: Callable[[TokenArray], Floats]
    size: int
    content: str = ""
    unit: float = 1.0

    @classmethod
    def of_functions(
        cls,
        name: str,
        space: Space,
        observe: Callable[[Tokens, int], float],
        score: Callable[[Tokens], float] | None = None,
        *,
        size: int | None = None,
        unit: float = 1.0,
    ) -> Objective:
        """An objective from functions of one architecture's tokens. Without `score`, what is observed with seed 0 is the truth."""
        worth = score if score is not None else lambda tokens: observe(tokens, 0)

        def observe_all(tokens: TokenArray, seed: int) -> Floats:
            return np.array([observe(tuple(row), seed) for row in tokens.tolist()], dtype=np.float64)

        def score_all(tokens: TokenArray) -> Floats:
            return np.array([worth(tuple(row)) for row in tokens.tolist()], dtype=np.float64)

        return cls(name, space, observe_all, score_all, space.size if size is None else size, unit=unit)

    def with_unit(self) -> Objective:
        """The same, its unit told from the worth of some architectures: percentages lie from 0 to 100, and some above 1."""
        rng = np.random.default_rng(0)
        tokens = np.array([self.space.random(rng).tokens for _ in range(FINGERPRINTED)])
        values = np.asarray(self.score(tokens), dtype=np.float64)
        known = values[~np.isnan(values)]
        is_percent = known.size > 0 and known.min() >= 0 and 1 < known.max() <= PERCENT
        return replace(self, unit=PERCENT if is_percent else 1.0)

    def fingerprint(self) -> str:
        """Digest (hex) of the space and of the answers for some architectures: another table, noise or function has another.

        Where the answers come from a file, it counts as a whole; data that a `tables.py` reads counts by those answers alone.
        """
        rng = np.random.default_rng(0)
        tokens = np.array([self.space.random(rng).tokens for _ in range(FINGERPRINTED)])
        answers = [self.score(tokens), self.observe(tokens, 0), self.observe(tokens, 1)]
        shown = [[f"{value:.6g}" for value in answer] for answer in answers]
        return digest_of({"space": self.space.digest, "size": self.size, "answers": shown, "content": self.content, "unit": self.unit})


Source = Callable[[], Objective]


def shuffled(objective: Objective, seed: int) -> Objective:
    """The same space and the same scores, each given to an architecture that has nothing to do with it: what a misleading donor is taught on.

    Every architecture answers with the values of another one, drawn at random by its tokens and the seed.
    """

    def others(tokens: TokenArray) -> TokenArray:
        drawn = [objective.space.random(np.random.default_rng([seed, *row])).tokens for row in tokens.tolist()]
        return np.array(drawn, dtype=np.int64).reshape(tokens.shape)

    return replace(
        objective,
        name=f"{objective.name}, shuffled",
        observe=lambda tokens, run: objective.observe(others(tokens), run),
        score=lambda tokens: objective.score(others(tokens)),
    )


@dataclass(frozen=True)
class TableSource:
    """An objective of a `tables.py`: `NAME` is a function in it, `NAME/argument/...` calls it with arguments (numbers where they read as such).

    The function returns an object with `choices` (number of options of each decision, or `decisions`: names and choices), `observe(tokens, seed)` and
    `score(tokens)`, both over arrays of tokens [n, decisions].
    """

    folder: Path
    name: str

    def __call__(self) -> Objective:
        """The objective.

        Raises:
            ConfigError: the folder has no tables.py, or that no such function.
            DataError: the function fails, or what it returns is no table.
        """
        function, *arguments = self.name.split("/")
        module = _tables_module(Path(self.folder))
        found = getattr(module, function, None)
        if not callable(found) or function.startswith("_"):
            known = sorted(name for name, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__)
            shown = ", ".join(name for name in known if name.islower() and not name.startswith("_"))
            raise ConfigError(f"objective {self.name!r}: {self.folder}/tables.py has no function {function!r}; it has {shown or 'none'}")
        try:
            table = found(*map(_argument, arguments))
        except Exception as error:  # a user's own code
            raise DataError(
                f"objective {self.name!r}: {function}{tuple(arguments)} of {self.folder}/tables.py failed ({error!r}); mend it or its data"
            ) from error
        return _checked(replace(_table_objective(self.name, table), content=_content(Path(self.folder) / "tables.py")))


@dataclass(frozen=True)
class CsvSource:
    """An objective from a file with one row a training run: columns of choices, and the column that the run ended with.

    Several rows of one architecture are several runs: a search sees one of them, chosen by its seed, and is judged by their mean.

    Attributes:
        path: CSV file with a header, plain or compressed.
        target: column of the score, higher is better; an empty cell is a run that failed.
        columns: columns of the choices, in the order of the decisions; empty for all others.
        observed: column that the search sees in place of the target, such as an early epoch's score; None: the target itself.
        noise: standard deviation of normal noise that is added to what a search sees.
    """

    path: Path
    target: str
    columns: tuple[str, ...] = ()
    observed: str | None = None
    noise: float = 0.0

    def __call__(self) -> Objective:
        """The objective.

        Raises:
            ConfigError: a column is missing or the noise is negative.
            DataError: the file cannot be read, or its rows are no table.
        """
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ConfigError(f"noise is {self.noise}; give a standard deviation of 0 or more, in the unit of column {self.target!r}")
        frame = _read_csv(self.path)
        names = [*self.columns, self.target, *([self.observed] if self.observed else [])]
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise ConfigError(f"{self.path}: has no column {missing[0]!r}; it has {', '.join(map(repr, frame.columns))}")
        chosen = self.columns or tuple(name for name in frame.columns if name not in (self.target, self.observed))
        if not chosen or self.target in chosen or self.observed in chosen:
            raise ConfigError(f"{self.path}: columns of choices are {list(chosen)}; name at least one, and neither the target nor the observed one")
        space, tokens = _decisions(self.path, frame, chosen)
        truth = _numbers(self.path, frame, self.target)
        seen = truth if self.observed is None else _numbers(self.path, frame, self.observed)
        objective = _rows_objective(str(Path(self.path).name), space, tokens, truth, seen, self.noise)
        return _checked(replace(objective, content=_content(Path(self.path))))


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tables_module(folder: Path) -> ModuleType:
    path = folder / "tables.py"
    if not path.is_file():
        raise ConfigError(f"{folder}: {'no such folder' if not folder.is_dir() else 'holds no tables.py'}; give --tables DIR (or set KFNAS_TABLES)")
    name = f"kfnas_tables_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's own code
        raise DataError(f"{path}: cannot be imported ({error!r}); mend it") from error
    return module


def _argument(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _table_objective(name: str, table: Any) -> Objective:
    missing = [part for part in ("observe", "score") if not callable(getattr(table, part, None))]
    decisions = getattr(table, "decisions", None)
    counts = getattr(table, "choices", None)
    if missing or (decisions is None and counts is None):
        raise DataError(f"objective {name!r}: what its function returned lacks {', '.join(missing) or 'choices'}; return choices, observe and score")
    try:
        if decisions is None:
            assert counts is not None
            decisions = {f"decision{index}": range(int(count)) for index, count in enumerate(counts)}
        items = decisions.items() if hasattr(decisions, "items") else decisions
        space = Space([Decision(str(key), tuple(choices)) for key, choices in items], name=name.replace(":", "_").replace(" ", "_"))
    except (TypeError, ValueError) as error:
        raise DataError(f"objective {name!r}: its choices or decisions are none ({error}); return the number of choices of each decision") from error
    return Objective(name, space, table.observe, table.score, space.size)


def _checked(objective: Objective) -> Objective:
    """The objective, once it has answered for a few architectures as it should."""
    rng = np.random.default_rng(0)
    tokens = np.array([objective.space.random(rng).tokens for _ in range(3)])
    try:
        answers = {"observe": np.asarray(objective.observe(tokens, 0), np.float64), "score": np.asarray(objective.score(tokens), np.float64)}
    except KfnasError:
        raise
    except Exception as error:  # a user's own code
        raise DataError(f"objective {objective.name!r}: fails for tokens {tokens[0].tolist()} ({error!r}); mend it") from error
    for part, values in answers.items():
        if values.shape != (3,) or np.isinf(values).any():
            raise DataError(f"objective {objective.name!r}: {part} of 3 architectures is {values.tolist()}; return one finite number (or NaN) for each")
    return objective.with_unit()


def _read_csv(path: Path) -> Any:
    import pandas as pd

    try:
        # As text, empty cells included: an operator may well be called "None" or "NA".
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a CSV file with one row a training run") from None
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({' '.join(str(error).split())}); mend it") from None
    if frame.empty:
        raise DataError(f"{path}: holds no rows; give one row a training run")
    return frame


def _numbers(path: Path, frame: Any, column: str) -> Floats:
    """A column as numbers; an empty cell is NaN."""
    values = np.full(len(frame), np.nan)
    for index, text in enumerate(frame[column]):
        try:
            values[index] = float(text) if text.strip() else math.nan
        except ValueError:
            raise DataError(f"{path}: row {index + 2}, column {column!r} is {text!r}, not a number; mend it, or leave it empty for a failed run") from None
        if math.isinf(values[index]):
            raise DataError(f"{path}: row {index + 2}, column {column!r} is {text!r}, not finite; leave it empty for a failed run")
    if np.isnan(values).all():
        raise DataError(f"{path}: column {column!r} is empty in every row; name a column with numbers")
    return values


def _decisions(path: Path, frame: Any, columns: Sequence[str]) -> tuple[Space, TokenArray]:
    """A space of the values that occur in each column, in order, and the tokens of each row; architectures without a row are not valid."""
    choices = {name: _ordered(frame[name].unique()) for name in columns}
    places = {name: {text: index for index, (text, _) in enumerate(items)} for name, items in choices.items()}
    tokens = np.stack([frame[name].map(places[name]).to_numpy(dtype=np.int64) for name in columns], axis=1)
    rows = set(map(tuple, tokens.tolist()))
    total = math.prod(len(items) for items in choices.values())
    if len(rows) < LEAST_COVERED * total:
        raise DataError(
            f"{path}: {len(rows)} architectures of {total:.3g} combinations of {', '.join(columns)} are too few to search among; "
            f"name the columns of choices with --columns, give a fuller table, or fit a function and give it as a tables.py"
        )
    decisions = [Decision(name, tuple(value for _, value in items)) for name, items in choices.items()]
    plain = Space(decisions)
    if len(rows) == total:
        return Space(decisions, name=_space_name(path)), tokens
    index = {tuple(plain.choices_of(plain.architecture(row)).items()) for row in rows}
    return Space(decisions, name=_space_name(path), is_valid=lambda values: tuple(values.items()) in index), tokens


def _space_name(path: Path) -> str:
    return Path(path).name.split(".")[0].replace(" ", "_").replace(":", "_") or "table"


def _ordered(texts: Iterable[str]) -> list[tuple[str, int | float | str]]:
    """Texts of a column and their values: numbers by size where all are numbers, else texts by the alphabet."""
    pairs = [(text, _argument(text)) for text in texts]
    numeric = all(not isinstance(value, str) and math.isfinite(value) for _, value in pairs) and len({value for _, value in pairs}) == len(pairs)
    return sorted(pairs, key=lambda pair: pair[1]) if numeric else [(text, text) for text in sorted(text for text, _ in pairs)]


def _rows_objective(name: str, space: Space, tokens: TokenArray, truth: Floats, seen: Floats, noise: float) -> Objective:
    runs: dict[Tokens, list[int]] = {}
    for row, key in enumerate(map(tuple, tokens.tolist())):
        runs.setdefault(key, []).append(row)

    def score(wanted: TokenArray) -> Floats:
        return np.array([_mean(truth[runs[tuple(key)]]) for key in wanted.tolist()])

    def observe(wanted: TokenArray, seed: int) -> Floats:
        return np.array([_one_run(tuple(key), seed) for key in wanted.tolist()])

    def _one_run(key: Tokens, seed: int) -> float:
        rng = np.random.default_rng([seed, *key])
        row = runs[key][int(rng.integers(len(runs[key])))]
        return float(seen[row] + noise * rng.standard_normal())

    return Objective(name, space, observe, score, len(runs))


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
