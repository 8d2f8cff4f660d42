"""Objectives from functions, from a tables.py and from CSV files, and what is refused."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from kfnas.errors import ConfigError, DataError, KfnasError
from kfnas.space import Space
from kfnas.studies.objectives import CsvSource, Objective, TableSource, shuffled

TABLES = """
import numpy as np
from typing import NamedTuple

class Table(NamedTuple):
    choices: list
    score: object
    observe: object

def toy(scale=1, noise=0.0):
    def score(tokens):
        return scale * np.asarray(tokens).sum(1)
    def observe(tokens, seed):
        return score(tokens) + noise * np.random.default_rng(seed).standard_normal(len(tokens))
    return Table([3, 2], score, observe)

def named():
    table = toy()
    class Named:
        decisions = {"stem/op": ["conv", "sep"], "stem/width": [8, 16, 32]}
        score, observe = staticmethod(table.score), staticmethod(table.observe)
    return Named

def broken():
    raise OSError("no such data")

def not_a_table():
    return 3

def array():
    table = toy()
    return Table(np.array([3, 2]), table.score, table.observe)

def no_counts():
    return Table(["a", "b"], lambda tokens: np.zeros(len(tokens)), lambda tokens, seed: np.zeros(len(tokens)))

def wrong_shape():
    return Table([3, 2], lambda tokens: 1.0, lambda tokens, seed: np.zeros(len(tokens)))

def fails_when_asked():
    return Table([3, 2], lambda tokens: tokens["x"], lambda tokens, seed: np.zeros(len(tokens)))

_hidden = toy
"""


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "tables.py").write_text(TABLES)
    return tmp_path


def tokens_of(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows)


def test_functions_of_one_architecture_make_an_objective() -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1]})
    objective = Objective.of_functions("toy", space, lambda tokens, seed: 10.0 * tokens[0] + seed, lambda tokens: 10.0 * tokens[0])
    assert objective.observe(tokens_of((2, 0), (1, 1)), 3).tolist() == [23.0, 13.0]
    assert objective.score(tokens_of((2, 0), (1, 1))).tolist() == [20.0, 10.0]
    assert objective.size == 6
    alone = Objective.of_functions("toy", space, lambda tokens, seed: 10.0 * tokens[0] + seed)
    assert alone.score(tokens_of((2, 0))).tolist() == [20.0]


def test_a_table_is_a_function_of_tables_py_with_arguments(tables: Path) -> None:
    source = TableSource(tables, "toy/10")
    objective = pickle.loads(pickle.dumps(source))()
    assert objective.name == "toy/10"
    assert objective.space.num_choices == (3, 2)
    assert objective.score(tokens_of((2, 1))).tolist() == [30]
    noisy = TableSource(tables, "toy/10/0.5")()
    assert noisy.observe(tokens_of((2, 1)), 0).tolist() != [30]


def test_a_table_may_name_its_decisions(tables: Path) -> None:
    space = TableSource(tables, "named")().space
    assert [decision.name for decision in space.decisions] == ["stem/op", "stem/width"]
    assert space.decisions[1].choices == (8, 16, 32)


def test_fingerprints_tell_objectives_apart(tables: Path) -> None:
    prints = [TableSource(tables, name)().fingerprint() for name in ("toy", "toy", "toy/2", "toy/1/0.5")]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert TableSource(tables, "array")().space.digest == TableSource(tables, "toy")().space.digest


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent", ConfigError, "no function 'absent'; it has array, broken, fails_when_asked, named, no_counts, not_a_table, toy, wrong_shape"),
        ("_hidden", ConfigError, "no function '_hidden'"),
        ("toy/1/2/3", DataError, "toy"),
        ("broken", DataError, "no such data"),
        ("not_a_table", DataError, "lacks observe, score"),
        ("no_counts", DataError, "return the number of choices of each decision"),
        ("wrong_shape", DataError, "score of 3 architectures is 1.0"),
        ("fails_when_asked", DataError, "fails for tokens"),
    ],
)
def test_what_is_no_table_is_refused(tables: Path, name: str, error: type[KfnasError], message: str) -> None:
    with pytest.raises(error, match=message):
        TableSource(tables, name)()


def test_a_missing_folder_and_a_broken_tables_py_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        TableSource(tmp_path / "nowhere", "toy")()
    with pytest.raises(ConfigError, match=r"holds no tables\.py"):
        TableSource(tmp_path, "toy")()
    (tmp_path / "tables.py").write_text("import no_such_module_at_all")
    with pytest.raises(DataError, match="no_such_module_at_all"):
        TableSource(tmp_path, "toy")()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    return path


FULL = "op,width,accuracy,early\nconv,8,0.5,0.1\nconv,16,0.6,0.2\nNone,8,0.7,0.4\nNone,16,0.8,0.3\n"


def test_a_csv_file_is_a_space_of_its_columns_and_a_score(tmp_path: Path) -> None:
    objective = CsvSource(written(tmp_path, FULL), "accuracy", columns=("op", "width"))()
    # Texts by the alphabet, an operator called "None" included; numbers by size.
    assert [decision.choices for decision in objective.space.decisions] == [("None", "conv"), (8, 16)]
    assert objective.score(tokens_of((0, 1), (1, 0))).tolist() == [0.8, 0.5]
    assert objective.observe(tokens_of((0, 1)), 7).tolist() == [0.8]
    assert not objective.space.has_rule
    assert objective.size == 4


def test_every_row_of_a_csv_file_counts_for_its_fingerprint(tmp_path: Path) -> None:
    rows = "".join(f"{a},{b},0.5\n" for a in range(60) for b in range(60))
    prints = {CsvSource(written(tmp_path, f"a,b,accuracy\n{text}"), "accuracy")().fingerprint() for text in (rows, rows.replace("41,17,0.5", "41,17,0.6"))}
    assert len(prints) == 2


def test_a_search_may_see_another_column_than_it_is_judged_by(tmp_path: Path) -> None:
    objective = CsvSource(written(tmp_path, FULL), "accuracy", observed="early")()
    assert len(objective.space.decisions) == 2
    assert objective.observe(tokens_of((0, 0)), 0).tolist() == [0.4]
    assert objective.score(tokens_of((0, 0))).tolist() == [0.7]


def test_several_rows_of_one_architecture_are_several_runs(tmp_path: Path) -> None:
    objective = CsvSource(written(tmp_path, "a,y\n0,1\n0,2\n0,6\n1,5\n1,\n"), "y")()
    assert objective.score(tokens_of((0,), (1,))).tolist() == [3.0, 5.0]
    seen = {objective.observe(tokens_of((0,)), seed)[0] for seed in range(40)}
    assert seen == {1.0, 2.0, 6.0}
    assert objective.observe(tokens_of((0,)), 4) == objective.observe(tokens_of((0,)), 4)
    # An empty cell is a run that failed.
    assert any(math.isnan(objective.observe(tokens_of((1,)), seed)[0]) for seed in range(40))


def test_noise_has_the_deviation_that_was_asked_for(tmp_path: Path) -> None:
    objective = CsvSource(written(tmp_path, "a,y\n0,1\n1,5\n"), "y", noise=0.5)()
    seen = np.array([objective.observe(tokens_of((0,), (1,)), seed) for seed in range(400)])
    # Standard errors 0.025 of the means and 0.018 of the deviations: four of them.
    assert seen.mean(0) == pytest.approx([1.0, 5.0], abs=0.1)
    assert seen.std(0) == pytest.approx([0.5, 0.5], abs=0.075)
    assert abs(np.corrcoef(seen.T)[0, 1]) < 0.2


def test_combinations_without_a_row_are_not_valid(tmp_path: Path) -> None:
    objective = CsvSource(written(tmp_path, "a,b,y\n0,x,1\n0,z,2\n1,x,3\n"), "y")()
    assert objective.size == 3
    assert not objective.space.is_valid((1, 1))
    assert objective.space.is_valid((1, 0))


@pytest.mark.parametrize(
    ("text", "changes", "error", "message"),
    [
        (FULL, {"target": "top1"}, ConfigError, "no column 'top1'; it has 'op', 'width', 'accuracy', 'early'"),
        (FULL, {"columns": ("op", "depth")}, ConfigError, "no column 'depth'"),
        (FULL, {"observed": "later"}, ConfigError, "no column 'later'"),
        (FULL, {"columns": ("op", "accuracy")}, ConfigError, "neither the target nor the observed one"),
        (FULL, {"noise": -0.1}, ConfigError, "noise is -0.1"),
        (FULL, {"target": "op", "columns": ("width",)}, DataError, "row 2, column 'op' is 'conv', not a number"),
        ("a,accuracy\n0,inf\n", {}, DataError, "not finite"),
        ("a,accuracy\n0,\n1,\n", {}, DataError, "is empty in every row"),
        ("a,accuracy\n", {}, DataError, "holds no rows"),
        ("", {}, DataError, "cannot be read as CSV"),
        ("a,b,accuracy\n" + "\n".join(f"{i},{i},1" for i in range(2000)), {}, DataError, "too few to search among"),
    ],
)
def test_what_is_no_csv_table_is_refused(tmp_path: Path, text: str, changes: dict[str, object], error: type[KfnasError], message: str) -> None:
    with pytest.raises(error, match=message):
        CsvSource(written(tmp_path, text), **{"target": "accuracy", **changes})()  # type: ignore[arg-type]


def test_a_missing_csv_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        CsvSource(tmp_path / "mine.csv", "y")()


def test_shuffled_scores_are_the_same_scores_of_unrelated_architectures() -> None:
    space = Space.from_decisions({f"d{index}": list(range(4)) for index in range(5)})
    objective = Objective.of_functions("sum", space, lambda tokens, seed: float(sum(tokens)))
    tokens = np.array([space.random(np.random.default_rng(index)).tokens for index in range(400)])
    mixed = shuffled(objective, 3)
    right, wrong = objective.score(tokens), mixed.score(tokens)
    # 400 pairs: the standard error of a correlation is 0.05; three of them.
    assert abs(np.corrcoef(right, wrong)[0, 1]) < 0.15
    assert wrong.mean() == pytest.approx(right.mean(), abs=0.5)
    assert wrong.std() == pytest.approx(right.std(), rel=0.2)
    assert mixed.score(tokens[:1]) == wrong[:1]
    assert (mixed.observe(tokens, 0) == wrong).all()
    assert (shuffled(objective, 4).score(tokens) != wrong).any()


@pytest.mark.parametrize(("scale", "unit"), [("20", 100.0), ("0.2", 1.0), ("-20", 1.0), ("60", 1.0)])
def test_percentages_are_told_by_their_range(tables: Path, scale: str, unit: float) -> None:
    # Scores go from 0 to 3 times the scale.
    assert TableSource(tables, f"toy/{scale}")().unit == unit


def test_a_csv_in_percent_is_told_too(tmp_path: Path) -> None:
    for name, values, unit in (("percent.csv", (91.5, 92.5), 100.0), ("fractions.csv", (0.915, 0.925), 1.0)):
        (tmp_path / name).write_text("a,top1\n0,{}\n1,{}\n".format(*values))
        assert CsvSource(tmp_path / name, "top1")().unit == unit
