"""Comparisons end to end on a small table: parallel, resumed, repeatable, judged by the truth; and the command."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kfnas.controller import Search
from kfnas.errors import AccessDenied, ConfigError, ConflictError, KfnasError, RetryableError, SpaceError, UserError
from kfnas.space import Space
from kfnas.studies import search_bench
from kfnas.studies.bench_runs import Run, donor_knowledge, read_run, search_once
from kfnas.studies.bench_summary import as_json, as_markdown, judged, judging, summarise
from kfnas.studies.entrants import Donor, parse_entrants
from kfnas.studies.objectives import Objective, TableSource
from kfnas.studies.search_bench import Bench, plan, run, write_results
from kfnas_pipelines.bench_commands import bench as bench_group

TABLES = """
import os
import numpy as np
from typing import NamedTuple

class Table(NamedTuple):
    choices: list
    score: object
    observe: object

WEIGHTS = np.random.default_rng(1).normal(size=(6, 3))

def toy(noise=0.3, sign=1):
    def score(tokens):
        return sign * WEIGHTS[np.arange(6), np.asarray(tokens)].sum(1)
    def observe(tokens, seed):
        values = score(tokens)
        drawn = [np.random.default_rng([seed, *row]).standard_normal() for row in np.asarray(tokens).tolist()]
        return values + noise * np.array(drawn)
    return Table([3] * 6, score, observe)

def deadly():
    table = toy()
    def observe(tokens, seed):
        if len(tokens) > 3:
            os._exit(1)
        return table.observe(tokens, seed)
    return table._replace(observe=observe)
"""


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "tables.py").write_text(TABLES)
    return folder


@pytest.fixture
def bench(tables: Path) -> Bench:
    return Bench(TableSource(tables, "toy"), parse_entrants(["random,evolution,ridge"]), (0, 1, 2), 40)


def contents(output: Path) -> dict[str, object]:
    """What the run files hold, but for durations."""
    found = {path.name: json.loads(path.read_text()) for path in sorted((output / "runs").iterdir())}
    for value in found.values():
        del value["cpu_seconds"]
    return found


def test_processes_give_what_one_process_gives(bench: Bench, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(bench, tmp_path / "two", jobs=2, on_progress=lambda done, total: told.append((done, total)))
    run(bench, tmp_path / "none", jobs=0)
    assert contents(tmp_path / "two") == contents(tmp_path / "none")
    assert len(contents(tmp_path / "two")) == 9
    assert told == [(done, 9) for done in range(10)]


def test_a_finished_run_is_never_run_again(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(bench, tmp_path, jobs=0)
    files = list((tmp_path / "runs").iterdir())
    before = {path: path.stat().st_mtime_ns for path in files}
    files[0].unlink()
    files[1].write_text('{"settings": {}}')
    again = run(bench, tmp_path, jobs=0)
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == files[:2]
    for label, group in first.items():
        assert [one.observed.tolist() for one in group] == [one.observed.tolist() for one in again[label]]
    monkeypatch.setattr(search_bench, "work", lambda job: pytest.fail(f"{job.path} was run again"))
    run(replace(bench, entrants=parse_entrants(["other=ridge"])), tmp_path, jobs=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda bench, tables: replace(bench, samples=39),
        lambda bench, tables: replace(bench, source=TableSource(tables, "toy/0.2")),
        lambda bench, tables: replace(bench, entrants=parse_entrants(["random:batch_size=8,evolution:evolution.sample=3,ridge:start=3"])),
        lambda bench, tables: replace(bench, seeds=(3, 4, 5)),
    ],
)
def test_other_settings_are_other_runs(bench: Bench, tables: Path, tmp_path: Path, change: Callable[[Bench, Path], Bench]) -> None:
    ours = {job.path for job in plan(bench, tmp_path)}
    assert not ours & {job.path for job in plan(change(bench, tables), tmp_path)}


def test_runs_of_other_code_are_made_again_unless_they_are_trusted(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(bench, tmp_path, jobs=0)
    path = next((tmp_path / "runs").glob("ridge-*"))
    value = json.loads(path.read_text()) | {"code": "older"}
    path.write_text(json.dumps(value))
    trusted = run(bench, tmp_path, jobs=0, trust_code=True)
    assert "older" in {one.code for one in trusted["ridge"]}
    rules = judging(list(trusted), 40)
    text = as_markdown(summarise(trusted, objective="toy", seeds=bench.seeds, samples=40, rules=rules))
    assert "several versions of the code are mixed: ridge" in text
    codes = {entrant.label: entrant.code() for entrant in bench.entrants}
    summary = summarise(trusted, objective="toy", seeds=bench.seeds, samples=40, rules=rules, codes=codes)
    assert summary.outdated == ("ridge",)
    assert "other code than the present, so that agents may not compare: ridge." in as_markdown(summary)
    assert "several versions of the code" not in as_markdown(summary), "one word is enough"
    assert as_json(summary)["outdated"] == ["ridge"]
    run(bench, tmp_path, jobs=0)
    assert json.loads(path.read_text())["code"] != "older"


def test_kfnas_s_agents_are_shown_fractions_of_a_table_in_percent_and_judged_in_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(5)})
    percent = Objective.of_functions(
        "percent", space, lambda tokens, seed: 50.0 + sum(tokens) + 0.1 * (seed % 7), lambda tokens: 50.0 + sum(tokens), unit=100.0
    )
    fractions = Objective.of_functions("fractions", space, lambda tokens, seed: (50.0 + sum(tokens) + 0.1 * (seed % 7)) / 100).with_unit()
    assert (percent.unit, fractions.unit) == (100.0, 1.0)
    told: list[float] = []
    update = Search.update
    monkeypatch.setattr(Search, "update", lambda self, results: (kept := list(results), told.extend(one.accuracy for one in kept), update(self, kept))[2])
    (entrant,) = parse_entrants(["paper=fnas:preset=paper:policy.hidden_units=8:critic.hidden_units=8:critic.threshold_draws=32"])
    run_in_percent, run_in_fractions = search_once(percent, entrant, 3, 60), search_once(fractions, entrant, 3, 60)
    assert min(told) >= 0.5 and max(told) <= 0.61
    assert run_in_percent.tokens == run_in_fractions.tokens, "a search does not hang on the unit of its table"
    expected = [percent.observe(np.array([tokens]), 3)[0] for tokens in run_in_percent.tokens]
    assert run_in_percent.observed.tolist() == expected
    assert run_in_percent.score.max() > 50


def test_code_that_changes_under_way_is_noticed(bench: Bench, tmp_path: Path) -> None:
    job = plan(bench, tmp_path)[0]
    with pytest.raises(ConflictError, match="changed after the comparison was started"):
        search_bench.work(job._replace(code="older"))


def test_a_dead_worker_is_one_clear_error(tables: Path, tmp_path: Path) -> None:
    deadly = Bench(TableSource(tables, "deadly"), parse_entrants(["random"]), (0, 1), 20)
    # The parent's own look at the objective is at most 3 architectures; its fingerprint is taken of more.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kfnas.studies.objectives.FINGERPRINTED", 3)
        with pytest.raises(RetryableError, match="a worker process died"):
            run(deadly, tmp_path, jobs=1)
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 730}, "samples is 730; objective 'toy' has 729 architectures"),
        ({"samples": 0}, "samples is 0"),
        ({"seeds": (0,)}, "give at least 2 different ones"),
        ({"seeds": (1, 1)}, "give at least 2 different ones"),
        ({"seeds": (-1, 0)}, "of 0 or more"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(bench: Bench, tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(replace(bench, **change), tmp_path, jobs=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="jobs is -1"):
        run(bench, tmp_path, jobs=-1)


@pytest.mark.parametrize("agent", ["random", "evolution", "local_search", "ridge"])
def test_a_search_sees_what_is_observed_and_is_judged_by_the_score(tables: Path, agent: str) -> None:
    objective = TableSource(tables, "toy")()
    found = search_once(objective, parse_entrants([agent])[0], 3, 40)
    tokens = np.array(found.tokens)
    assert len(set(found.tokens)) == 40
    assert found.observed == pytest.approx(objective.observe(tokens, 3))
    assert found.score == pytest.approx(objective.score(tokens))
    assert judged(found, 40)[-1] == found.score[np.argmax(found.observed)]


def test_failed_trainings_are_samples_and_never_incumbents() -> None:
    space = Space.from_decisions({f"d{index}": [0, 1, 2] for index in range(4)})
    objective = Objective.of_functions(
        "failing", space, lambda tokens, seed: math.nan if tokens[0] == 2 else float(sum(tokens)), lambda tokens: float(sum(tokens))
    )
    for agent in ("random", "evolution", "ridge"):
        found = search_once(objective, parse_entrants([agent])[0], 0, 60)
        assert len(found.tokens) == 60
        assert np.isnan(found.observed).sum() == sum(tokens[0] == 2 for tokens in found.tokens) > 0
        assert judged(found, 60)[-1] == 7.0


def test_a_search_that_uses_its_space_up_keeps_its_last_value() -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1]})
    objective = Objective.of_functions("tiny", space, lambda tokens, seed: float(sum(tokens)))
    found = search_once(objective, parse_entrants(["ridge"])[0], 0, 10)
    assert len(found.tokens) == 6
    assert judged(found, 10)[5:].tolist() == [3.0] * 5


def test_draws_are_counted_with_repeats_and_samples_without() -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1]})
    objective = Objective.of_functions("tiny", space, lambda tokens, seed: float(sum(tokens)))
    found = search_once(objective, parse_entrants(["mnas:batch_size=8:policy.redraws=0:max_known_batches=1"])[0], 0, 6)
    assert found.distinct == len(set(found.tokens)) == len(found.tokens) <= 6
    assert found.draws >= 8 > found.distinct == found.distinct_last


def hand_made(curve: list[float], code: str = "c", draws: int = 4, distinct: int = 3) -> Run:
    values = np.array(curve)
    return Run(values, values, tuple((index,) for index in range(len(curve))), draws, distinct, 2, 1.5, {}, code)


def test_a_summary_holds_the_figures_of_hand_made_runs() -> None:
    slow = [hand_made([0.0, 1.0, 2.0, 4.0]), hand_made([0.0, 1.0, 2.0, 6.0])]
    fast = [hand_made([3.0, 5.0, 7.0, 8.0]), hand_made([3.0, 5.0, 6.0, 7.0])]
    rules = judging(["mnas", "fast|er"], 4, checkpoints=[2, 4])
    summary = summarise({"mnas": slow, "fast|er": fast}, objective="toy", seeds=[0, 1], samples=4, rules=rules)
    value = as_json(summary)
    assert value["entrants"]["fast|er"]["hit"]["samples"] == 2
    assert value["entrants"]["fast|er"]["hit"]["threshold"] == 5.0
    assert value["entrants"]["mnas"]["hit"]["samples"] == 4
    assert value["entrants"]["fast|er"]["hit"]["ratio"]["mid"] == 0.5
    assert value["entrants"]["mnas"]["scores"]["4"]["mid"] == 5.0
    assert value["entrants"]["mnas"]["distinct_per_hundred"] == 75.0
    assert value["comparisons"][0] | {"difference": None} == {
        "samples": 2, "first": "mnas", "second": "fast|er", "difference": None, "wins": 0, "losses": 2, "ties": 0, "p_value": 0.5,
    }  # fmt: skip
    assert value["comparisons"][0]["difference"] == {"low": -4.0, "mid": -4.0, "high": -4.0}
    assert "fast\\|er" in as_markdown(summary)


def test_focus_compares_one_with_each_other() -> None:
    assert judging(["a", "b", "c"], 10, focus="b", checkpoints=[5]).pairs == (("b", "a"), ("b", "c"))
    assert judging(["a", "b", "c"], 60).checkpoints == (50, 60)
    assert judging(["a", "mnas"], 60).reference == "mnas"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "z"}, "reference: 'z' takes no part"),
        ({"focus": "z"}, "focus: 'z'"),
        ({"checkpoints": [11]}, "from 1 to the 10 samples"),
        ({"checkpoints": [0]}, "from 1"),
    ],
)
def test_rules_that_fit_no_entrant_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judging(["a", "b"], 10, **options)  # type: ignore[arg-type]


def test_files_are_the_same_for_the_same_runs(bench: Bench, tmp_path: Path) -> None:
    runs = run(bench, tmp_path, jobs=0)
    runs = {label: [one._replace(cpu_seconds=0.1) for one in group] for label, group in runs.items()}
    summary = summarise(runs, objective="toy", seeds=bench.seeds, samples=40, rules=judging(list(runs), 40))
    files = {}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_results(summary, tmp_path / folder)
        files[folder] = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
    assert files["one"] == files["two"]
    assert set(files["one"]) == {"table.md", "curves.csv", "results.json", "figure.png", "figure.svg"}
    assert files["one"]["figure.png"].startswith(b"\x89PNG")
    rows = list(csv.DictReader(files["one"]["curves.csv"].decode().splitlines()))
    assert len(rows) == 3 * 40
    assert float(rows[39]["mean"]) == pytest.approx(np.mean([judged(one, 40)[-1] for one in runs["random"]]))


def test_a_folder_that_may_not_be_written_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(AccessDenied, match="give another --output"):
        search_bench.write_atomically(tmp_path / "table.md", b"")


def test_a_file_where_the_results_should_go_is_told(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="a file is in the way"):
        run(Bench(TableSource(tables, "toy/0.1"), tuple(parse_entrants(["random"])), (0, 1), 8), tmp_path / "file" / "sub", jobs=0)


def test_a_donor_hands_over_what_its_own_search_saw_and_a_misleading_one_what_belongs_elsewhere(tables: Path) -> None:
    light = parse_entrants(["fnas:critic.fit_steps=1:critic.threshold_draws=16:ppo.epochs=1:batch_size=8"])[0]
    donor = Donor(TableSource(tables, "toy/0.1"), 24)
    objective = donor.source()
    known = donor_knowledge(replace(light, donor=donor), 0)
    misleading = donor_knowledge(replace(light, donor=replace(donor, shuffled=True)), 0)
    assert len(known.samples) >= 24
    # Noise of deviation 0.1: six of them.
    assert [sample.accuracy for sample in known.samples] == pytest.approx(objective.score(np.array([sample.tokens for sample in known.samples])), abs=0.6)
    worth = objective.score(np.array([sample.tokens for sample in misleading.samples]))
    assert np.abs(np.array([sample.accuracy for sample in misleading.samples]) - worth).mean() > 1


def test_a_donors_knowledge_reaches_the_search(tables: Path) -> None:
    light = parse_entrants(["fnas:critic.fit_steps=1:critic.threshold_draws=16:ppo.epochs=1:batch_size=4"])[0]
    other = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1]})
    foreign = Donor(lambda: Objective.of_functions("other", other, lambda tokens, seed: float(sum(tokens))), 2)
    with pytest.raises(SpaceError):
        search_once(TableSource(tables, "toy")(), replace(light, donor=foreign), 0, 4)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(bench_group, ["search", *map(str, arguments)])


def test_the_command_compares_and_writes_its_files(tables: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    common = ("--objective", "toy", "--tables", tables, "--agents", "random,ridge", "--seeds", 2, "--samples", 30, "--jobs", 0, "--output", output)
    result = invoke(*common)
    assert result.exit_code == 0, result.output
    assert "4 of 4 runs done" in result.output
    assert "| ridge |" in result.output
    assert (output / "table.md").read_text() in result.output
    assert len(list((output / "runs").iterdir())) == 4
    assert read_run(next((output / "runs").iterdir())).observed.shape == (30,)


def test_the_command_takes_a_table_of_ones_own(tmp_path: Path) -> None:
    rows = [f"{a},{b},{c},{a * 1.5 + b - c}" for a in range(4) for b in range(3) for c in range(3)]
    (tmp_path / "mine.csv").write_text("a,b,c,score\n" + "\n".join(rows) + "\n")
    result = invoke(
        "--csv", tmp_path / "mine.csv", "--target", "score", "-a", "random,evolution", "--seeds", 2, "--samples", 20, "-j", 0, "-o", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["objective"] == "mine.csv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --objective NAME with --tables DIR, or --csv FILE"),
        (["--objective", "toy", "--csv", "x.csv"], "either --objective"),
        (["--objective", "toy", "--target", "y"], "--target belongs to --csv"),
        (["--csv", "x.csv"], "--target is missing"),
        (["--objective", "toy", "--tables", "nowhere"], "nowhere: no such folder"),
        (["--objective", "toy", "--seeds", "1"], "at least 2 seeds"),
        (["--objective", "toy", "--checkpoints", "a"], "not a list of numbers"),
        (["--objective", "toy", "--checkpoints", "900"], "from 1 to the 30 samples"),
        (["--objective", "toy", "--reference", "mnas"], "reference: 'mnas' takes no part"),
        (["--objective", "toy", "--shuffle-donor"], "needs a donor"),
        (["--objective", "toy", "--prior-from", "toy:x"], "no number of samples"),
        (["--objective", "toy", "--prior-from", "toy:30"], "none of random has a critic"),
        (["--objective", "toy", "--samples", "1000"], "samples is 1000; objective 'toy' has 729"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.setenv("KFNAS_TABLES", str(tables))
    samples = [] if "--samples" in arguments else ["--samples", "30"]
    result = invoke("--agents", "random", "--output", tmp_path / "out", "--jobs", 0, *samples, *arguments)
    assert isinstance(result.exception, KfnasError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_help_teaches() -> None:
    text = invoke("--help").output
    assert "kfnas bench search --csv mine.csv --target accuracy" in text
    assert "mnas+uac" in text and "ridge" in text and "results.json" in text
