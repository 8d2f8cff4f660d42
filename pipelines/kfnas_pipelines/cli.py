"""The `kfnas` command.

Its own module imports little: torch, MLflow and kfp are loaded by the commands that need them, once the configuration is known to be right.
Exit status: 0 done, 2 the input must change, 1 anything else.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kfnas import __version__
from kfnas.errors import KfnasError, UserError
from kfnas_pipelines.command_line import CONFIG_ARGUMENT, SET_OPTION, LazyGroup, command

if TYPE_CHECKING:
    from kfnas.steps.config import RunConfig

EXIT_USER = 2
EXIT_OTHER = 1

LAZY = {
    "bench": "kfnas_pipelines.bench_commands:bench",
    "pool": "kfnas_pipelines.pool_commands:pool",
    "prove": "kfnas_pipelines.study_commands:prove",
    "table": "kfnas_pipelines.table_command:table",
}
"""Commands and groups of them by name, each `module:attribute` beside this module."""


@click.group(cls=LazyGroup, lazy=LAZY, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="kfnas")
def cli() -> None:
    """Find the network that is most accurate within a latency budget, on your data, for your device.

    \b
    A configuration names the data, the space, the target and the budget:
        name: flowers
        task: {name: classification, source: ./flowers}
        search: {batch_size: 8, reward: {target: 2.5}}
        rounds: 12
    \b
    Then:
        kfnas try flowers.yaml       one random architecture through every stage: the first check
        kfnas run flowers.yaml       search, train the best from scratch, export and register them
        kfnas status flowers.yaml    where the search stands, from another terminal
        kfnas resume flowers.yaml    go on after a crash, a Ctrl-C or a reboot
        kfnas report flowers.yaml    the whole search as one HTML page
    """


@command(cli)
@CONFIG_ARGUMENT
@SET_OPTION
def run(config: Path, overrides: tuple[str, ...]) -> None:
    """Run a search, from the data to the registered models.

    The search must not exist yet; `kfnas resume` goes on with one that does.

    \b
    Examples:
        kfnas run flowers.yaml
        kfnas run flowers.yaml --set name=flowers-2 --set seed=1
        kfnas run flowers.yaml --set cost=mult_adds --set search.reward.target=5e6
    """
    _drive(_load(config, overrides), resume=False)


@command(cli)
@CONFIG_ARGUMENT
@SET_OPTION
@click.option("--take-over", is_flag=True, help="Go on although another run holds the search; that run can change it no more.")
def resume(config: Path, overrides: tuple[str, ...], take_over: bool) -> None:
    """Go on with a search that was stopped or killed.

    Give it the same configuration; only `store`, `tracking` and `execution` may differ. No finished child is trained again.

    \b
    Examples:
        kfnas resume flowers.yaml
        kfnas resume flowers.yaml --set execution.shards=4
    """
    _drive(_load(config, overrides), resume=True, take_over=take_over)


@command(cli, "try")
@CONFIG_ARGUMENT
@SET_OPTION
def try_(config: Path, overrides: tuple[str, ...]) -> None:
    """Try new data: one random network through all.

    Reads the data, measures, trains, evaluates, exports and registers, as the search itself would, under a name of its own. It is the
    first thing to do with new data.

    \b
    Example:
        kfnas try flowers.yaml
    """
    from kfnas.steps.config import trial_of

    _drive(trial_of(_load(config, overrides)), resume=None)


@command(cli)
@CONFIG_ARGUMENT
@SET_OPTION
def status(config: Path, overrides: tuple[str, ...]) -> None:
    """Say where a search stands.

    \b
    Example:
        kfnas status flowers.yaml
    """
    from kfnas.steps.status import describe

    click.echo(describe(_load(config, overrides).text))


@command(cli)
@CONFIG_ARGUMENT
@SET_OPTION
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; reports/NAME.html in a local store when not given, NAME-report.html here for a remote one.",
)
def report(config: Path, overrides: tuple[str, ...], output: Path | None) -> None:
    """Write the search as one HTML page.

    Curves, Pareto front, architectures drawn block by block, final table. It may be written while the search runs.

    \b
    Examples:
        kfnas report flowers.yaml
        kfnas report flowers.yaml --output flowers.html
    """
    _report(_load(config, overrides), output)


@command(cli)
@CONFIG_ARGUMENT
@SET_OPTION
def sync(config: Path, overrides: tuple[str, ...]) -> None:
    """Bring the tracking server up to date.

    Writes what the search's store holds and the server lacks, after the server was away: a search does not stop for that.

    \b
    Example:
        MLFLOW_TRACKING_URI=http://mlflow.example:5000 kfnas sync flowers.yaml
    """
    from kfnas.steps.sync import sync as write_missing

    click.echo(write_missing(_load(config, overrides).text))


@command(cli, "compile")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the compiled pipelines.")
@click.option("--image", metavar="REF", help="Container image of every step, with this version of kfnas in it.")
@click.option("--environment", "environment_file", type=click.Path(path_type=Path), metavar="FILE.yaml", help="Resources, variables and secrets of the steps.")
@click.option("--rounds", default=3, show_default=True, metavar="N", help="Rounds of one run of search_rounds, 1 to 20.")
@click.option("--parallelism", default=0, show_default=True, metavar="N", help="Training tasks at a time; 0 for no limit.")
def compile_(output: Path, image: str | None, environment_file: Path | None, rounds: int, parallelism: int) -> None:
    """Compile the pipelines to IR YAML for a Kubeflow cluster.

    search_rounds.yaml runs some rounds of a search and is run again until all are done (search_rounds_pooled.yaml where the configuration has a `pool`;
    pcnas_search.yaml, betanas_search.yaml or oneshot_search.yaml where it names that `algorithm`);
    finish_search.yaml trains, exports and registers the best. All take `config`, as `kfnas config show` prints it, and may be given `run_id`.
    sync_pool.yaml brings a pool and its copy in another store together; operator_table.yaml takes on the cluster what `kfnas table` takes here. Nothing
    secret is in them: name a Kubernetes secret in the environment file.

    \b
    Examples:
        kfnas compile --output pipelines/ --image registry.example/kfnas/steps-python:0.1.0
        kfnas compile --output pipelines/ --image REF --environment cluster.yaml --rounds 5
    \b
    cluster.yaml:
        measure: {cpu: 2, memory: 2Gi}
        train: {cpu: 4, memory: 16Gi, accelerator: nvidia.com/gpu}
        variables: {AWS_ENDPOINT_URL: http://seaweedfs.kubeflow:8333}
        secrets: [{name: kfnas-s3}]
    """
    from kfnas_pipelines.compile import compile_all
    from kfnas_pipelines.environment import load_environment

    environment = load_environment(environment_file, image)
    for path in compile_all(output, environment, num_rounds=rounds, parallelism=parallelism):
        click.echo(str(path))


@cli.group("config")
def config_group() -> None:
    """Look at configurations."""


@command(config_group)
def schema() -> None:
    """Print the JSON schema of a configuration, for editors and for reading.

    \b
    Example:
        kfnas config schema > kfnas.schema.json
    """
    from kfnas.config import json_schema
    from kfnas.steps.config import RunConfig

    click.echo(json.dumps(json_schema(RunConfig), indent=2))


@command(config_group)
@CONFIG_ARGUMENT
@SET_OPTION
@click.option("--yaml", "as_yaml", is_flag=True, help="As YAML, to read; otherwise as the one line of JSON that the compiled pipelines take.")
def show(config: Path, overrides: tuple[str, ...], as_yaml: bool) -> None:
    """Print a checked configuration with every default filled in.

    \b
    Examples:
        kfnas config show flowers.yaml --yaml
        kfnas config show flowers.yaml > config.json      (the argument `config` of a compiled pipeline)
    """
    import yaml

    loaded = _load(config, overrides)
    click.echo(yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False).rstrip() if as_yaml else loaded.text)


@cli.group("records")
def records_group() -> None:
    """Take latencies from one machine to another."""


@command(records_group, "export")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@CONFIG_ARGUMENT
@SET_OPTION
def export_records(file: Path, config: Path, overrides: tuple[str, ...]) -> None:
    """Write every latency of a store to a file.

    A configuration with `device: {replay: FILE}` takes its latencies from that file alone, on any machine, and measures nothing.

    \b
    Example:
        kfnas records export phone.jsonl flowers.yaml
    """
    from kfnas.steps.latency_records import export_latencies

    click.echo(f"{export_latencies(_load(config, overrides).text, file)} records written to {file}")


@command(records_group, "import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@CONFIG_ARGUMENT
@SET_OPTION
def import_records(file: Path, config: Path, overrides: tuple[str, ...]) -> None:
    """Put a file's latencies into a store.

    What was measured on an equal device under an equal protocol is not measured again. A record that is there already stays as it is.

    \b
    Example:
        kfnas records import phone.jsonl flowers.yaml
    """
    from kfnas.steps.latency_records import import_latencies

    loaded = _load(config, overrides)
    click.echo(f"{import_latencies(loaded.text, file)} records of {file} are new to {loaded.store}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: run a command and return the exit status; an error is one line on stderr for each thing that is wrong."""
    meta: dict[str, Any] = {}
    try:
        with cli.make_context("kfnas", list(sys.argv[1:] if arguments is None else arguments)) as context:
            meta = context.meta
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USER
    except click.ClickException as error:
        hint = f"; see `{error.ctx.command_path} --help`" if isinstance(error, click.UsageError) and error.ctx is not None else ""
        return _complain(f"{error.format_message().rstrip('.')}{hint}", EXIT_USER, debug=False)
    except (click.Abort, KeyboardInterrupt):
        return _complain("stopped", EXIT_OTHER, debug=False)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OTHER
    except KfnasError as error:
        return _complain(str(error), EXIT_USER if isinstance(error, UserError) else EXIT_OTHER, debug=bool(meta.get("kfnas.debug")))
    except Exception as error:  # noqa: BLE001  (the outermost boundary)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f"{error.filename}: " if error.filename else ""
            return _complain(f"{where}{error.strerror}; free some room, then go on with `kfnas resume`", EXIT_OTHER, debug=bool(meta.get("kfnas.debug")))
        debug = bool(meta.get("kfnas.debug"))
        advice = "" if debug else "; this is a fault of kfnas or of a plug-in: run again with --debug for the traceback"
        return _complain(f"{type(error).__name__}: {error}{advice}", EXIT_OTHER, debug=debug)


def _complain(message: str, status: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    for line in message.splitlines() or ["(no message)"]:
        click.echo(f"kfnas: error: {line}", err=True)
    return status


def _load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    from kfnas.steps.config import load_run_config

    return load_run_config(path, overrides)


def _drive(config: RunConfig, *, resume: bool | None, take_over: bool = False) -> None:
    from kfnas.steps.status import describe
    from kfnas_pipelines.driver import drive

    drive(config, resume=resume, take_over=take_over)
    click.echo(describe(config.text))
    _report(config, None)


def _report(config: RunConfig, output: Path | None) -> None:
    from kfnas.steps.report import write_report

    click.echo(f"report     {write_report(config.text, output or _report_path(config))}")


def _report_path(config: RunConfig) -> Path:
    """Beside the search in a local store; in the working folder when the store is elsewhere."""
    path = Path(f"{config.name}-report.html") if "://" in config.store else Path(config.store) / "reports" / f"{config.name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
