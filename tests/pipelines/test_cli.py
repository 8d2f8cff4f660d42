import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from kfnas_pipelines import cli
from kfnas_pipelines.cli import main

COMMANDS = (
    *("run", "resume", "try", "status", "report", "sync", "compile", "config schema", "config show", "records export", "records import"),
    *("pool inspect", "pool verify", "pool compact", "pool prune", "pool sync", "bench search"),
    *("prove ablation", "prove transfer", "prove knowledge", "prove fidelity"),
)
HEAVY = ("torch", "torchvision", "mlflow", "kfp", "onnx", "onnxruntime", "matplotlib", "sklearn")


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "flowers.yaml"
    path.write_text(yaml.safe_dump({"name": "flowers", "store": "store", "proxy": {"epochs": 1}, "retrain": {"epochs": 1}, "tracking": {"enabled": False}}))
    return path


def failed(capsys, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines of stderr of a command that must say nothing else."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return status, captured.err.splitlines()


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command.split()[0]}" in text for command in COMMANDS)
    assert "kfnas try flowers.yaml" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_an_example(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"kfnas {command}" in text
    assert "--debug" in text


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("Usage: kfnas")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serach"], "kfnas: error: No such command 'serach'"),
        (["run"], "kfnas: error: Missing argument 'CONFIG.yaml'; see `kfnas run --help`"),
        (["run", "missing.yaml"], "kfnas: error: missing.yaml: no such file; give the path of a search's YAML configuration"),
        (["status", "x.yaml", "--loud"], "kfnas: error: No such option"),
        (["compile"], "kfnas: error: Missing option '--output' / '-o'; see `kfnas compile --help`"),
        (["compile", "-o", "out", "--rounds", "99"], "kfnas: error: rounds of one pipeline run must be 1 to 20, not 99"),
        (["compile", "-o", "out", "--environment", "cluster.yaml"], "kfnas: error: cluster.yaml: no such file"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(arguments, line, config, capsys):
    status, lines = failed(capsys, *arguments)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(line)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("name: flowers\nrouns: 3\nproxy: {epochs: 1}\nretrain: {epochs: 1}", ["rouns"]),
        ("name: Flowers!\nrounds: -1\nproxy: {epochs: 1}\nretrain: {epochs: 1}", ["name", "rounds"]),
        ("name: [unclosed", ["not valid YAML"]),
        ("- a list", ["not a mapping"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "status"])
def test_a_wrong_configuration_is_a_line_a_field_before_anything_runs(text, fields, command, config, capsys):
    config.write_text(text)
    status, lines = failed(capsys, command, config)
    assert status == 2
    assert len(lines) == len(fields)
    assert all(field in line and line.startswith("kfnas: error: ") for field, line in zip(fields, lines, strict=True))
    assert [path.name for path in config.parent.iterdir()] == [config.name]


def test_a_wrong_override_is_refused(config, capsys):
    assert failed(capsys, "run", config, "--set", "rounds")[0] == 2
    status, (line,) = failed(capsys, "run", config, "--set", "rounds=many")
    assert status == 2
    assert "rounds" in line


def test_resuming_what_does_not_exist_is_the_user_s_error(config, capsys):
    status, (line,) = failed(capsys, "resume", config)
    assert status == 2
    assert line.startswith("kfnas: error: no search 'flowers' in ")


def test_the_status_of_what_does_not_exist_is_an_error(config, capsys):
    status, (line,) = failed(capsys, "status", config)
    assert status != 0
    assert "flowers" in line


def test_an_unforeseen_error_asks_for_debug_and_debug_shows_the_traceback(config, capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("the unforeseen")

    monkeypatch.setattr(cli, "_load", broken)
    status, lines = failed(capsys, "status", config)
    assert status == 1
    assert lines == ["kfnas: error: RuntimeError: the unforeseen; this is a fault of kfnas or of a plug-in: run again with --debug for the traceback"]
    assert main(["status", str(config), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_keyboard_stops_a_command_without_a_traceback(config, capsys, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load", interrupted)
    assert failed(capsys, "status", config) == (1, ["kfnas: error: stopped"])


@pytest.mark.parametrize(("command", "resume"), [("run", False), ("resume", True), ("try", None)])
def test_a_search_ends_with_where_it_stands_and_its_report(command, resume, config, capsys, monkeypatch):
    driven = []
    monkeypatch.setattr("kfnas_pipelines.driver.drive", lambda config, *, resume, take_over: driven.append((config.name, resume)))
    monkeypatch.setattr("kfnas.steps.status.describe", lambda text: f"state of {json.loads(text)['name']}")
    monkeypatch.setattr("kfnas.steps.report.write_report", lambda text, path: path)
    assert main([command, str(config)]) == 0
    ((name, given),) = driven
    assert name.startswith("flowers-try") if command == "try" else name == "flowers"
    assert given is resume
    assert capsys.readouterr().out.splitlines() == [f"state of {name}", f"report     {config.parent / 'store' / 'reports' / name}.html"]


def test_a_report_goes_where_it_is_told(config, capsys, monkeypatch):
    monkeypatch.setattr("kfnas.steps.report.write_report", lambda text, path: path)
    assert main(["report", str(config), "--output", "page.html"]) == 0
    assert capsys.readouterr().out == "report     page.html\n"


def test_the_report_of_a_remote_search_is_written_here(config, capsys, monkeypatch):
    monkeypatch.setattr("kfnas.steps.report.write_report", lambda text, path: path)
    assert main(["report", str(config), "--set", "store=s3://bucket/prefix"]) == 0
    assert capsys.readouterr().out == "report     flowers-report.html\n"


def test_compile_puts_the_image_on_every_pipeline(config, capsys):
    (config.parent / "cluster.yaml").write_text("secrets: [{name: kfnas-s3}]\ntrain: {cpu: 4, memory: 16Gi}\n")
    assert main(["compile", "--output", "out", "--image", "r.example/kfnas:1", "--environment", "cluster.yaml", "--rounds", "1"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    rounds = ["search_rounds.yaml", "finish_search.yaml", "search_rounds_pooled.yaml"]
    supernets = ["pcnas_search.yaml", "betanas_search.yaml", "oneshot_search.yaml"]
    assert [path.name for path in paths] == [*rounds, "sync_pool.yaml", "operator_table.yaml", *supernets]
    for path in paths:
        text = path.read_text()
        assert text.count("image: r.example/kfnas:1") == text.count("image:")
        assert "secretName: kfnas-s3" in text


@pytest.mark.parametrize("environment", ["gpus: 1", "variables: {AWS_SECRET_ACCESS_KEY: abc}", "train: {cpu: 0}", "- 1"])
def test_a_wrong_environment_is_one_line_naming_its_file(environment, config, capsys):
    (config.parent / "cluster.yaml").write_text(environment)
    status, (line,) = failed(capsys, "compile", "--output", "out", "--environment", "cluster.yaml")
    assert status == 2
    assert line.startswith("kfnas: error: cluster.yaml: ")


def test_the_schema_is_json_schema_of_a_run(capsys):
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"name", "task", "space", "search", "rounds", "store"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_a_shown_configuration_is_one_line_that_steps_take(config, capsys):
    from kfnas.steps.config import load_run_config, run_config

    assert main(["config", "show", str(config), "--set", "seed=7"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert run_config(line) == load_run_config(config, ("seed=7",))
    assert main(["config", "show", str(config), "--yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "flowers"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "schema"], ["run", "bad.yaml"], ["status", "missing.yaml"], ["compile"]])
def test_what_needs_no_work_loads_nothing_heavy(arguments, tmp_path):
    (tmp_path / "bad.yaml").write_text("name: x\nrounds: -1\nproxy: {epochs: 1}\nretrain: {epochs: 1}\n")
    program = (
        f"import sys\nfrom kfnas_pipelines.cli import main\nmain({arguments!r})\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_commands_are_documented_in_their_own_words():
    context = click.Context(cli.cli)
    for name in cli.cli.list_commands(context):
        command = cli.cli.get_command(context, name)
        assert command is not None
        assert not command.get_short_help_str(limit=62).endswith("..."), name
