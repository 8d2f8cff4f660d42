"""`kfnas prove`: studies that show whether the search's modules pay, on one's own data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from kfnas_pipelines.command_line import SET_OPTION, LazyGroup, command

LAZY: dict[str, str] = {
    "branches": "kfnas_pipelines.branches_commands:branches",
    "fidelity": "kfnas_pipelines.fidelity_commands:fidelity",
    "sharing": "kfnas_pipelines.sharing_commands:sharing",
}
"""Studies with a module of their own: `module:attribute` by the command's name."""

STUDY_ARGUMENT = click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")


@click.group(cls=LazyGroup, lazy=LAZY)
def prove() -> None:
    """Show whether the modules of the search pay, on your data.

    Each command runs the searches that it needs one after another, compares them, and writes a page, a table and figures, in MLflow too. Killed, it goes on
    where it stands when it is given again; what is finished is not run again.
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--parallelism", default=0, show_default=True, metavar="N", help="With --compile: training tasks at a time; 0 for no limit."),
        click.option("--rounds", default=3, show_default=True, metavar="N", help="With --compile: rounds of each search in one run, 1 to 20."),
        click.option("--environment", "environment_file", type=click.Path(path_type=Path), metavar="FILE.yaml", help="With --compile: as of `kfnas compile`."),
        click.option("--image", metavar="REF", help="With --compile: container image of every step."),
        click.option(
            "--compile", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Run nothing: write the pipelines for a cluster there."
        ),
        click.option(
            "--configs", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Run nothing: write each search's own configuration there."
        ),
        click.option("--report", "report_only", is_flag=True, help="Run no search: compare what there is, finished or not."),
        SET_OPTION,
        STUDY_ARGUMENT,
    ):
        function = option(function)
    return function


@command(prove)
@_options
def ablation(study: Path, **options: Any) -> None:
    """Each module alone, all together, and none: FNAS's Table 4.

    Every row draws as many architectures with the same seeds, on the same data, for the same target.

    \b
    ablation.yaml:
        name: flowers-ablation
        base: {task: {name: classification, source: ./flowers}, rounds: 20, search: {batch_size: 16, reward: {target: 2.5}}}
        rows: [none, akp, uac, aeb, all]      # also uac-aeb, random, evolution, local-search, or rows of your own
        seeds: [0, 1, 2]
    \b
    Examples:
        kfnas prove ablation ablation.yaml
        kfnas prove ablation ablation.yaml --report
        kfnas prove ablation ablation.yaml --compile pipelines/ --image registry.example/kfnas/steps-python:0.1.0
    """
    _prove("ablation", study, **options)


@command(prove)
@_options
def transfer(study: Path, **options: Any) -> None:
    """Critic, pool or both from another task's search: Table 5.

    The donor is a search of the same space that exists in the store, or one that is run first. All children of donor and rows must be trained for
    equally many steps, or the pool refuses them.

    \b
    transfer.yaml:
        name: flowers-transfer
        base: {task: {name: classification, source: ./flowers}, rounds: 20, proxy: {steps: 300}}
        donor: {set: {task: {name: classification, source: fashion-mnist}}}      # or {search: NAME, pool: NAME}
        rows: [fresh, uac, akp, both]
    \b
    Example:
        kfnas prove transfer transfer.yaml
    """
    _prove("transfer", study, **options)


@command(prove)
@_options
def knowledge(study: Path, **options: Any) -> None:
    """What two searches share: Fig. 2 and Fig. 3a.

    Operators of the best architectures of the donor's search and of a fresh one; error of a critic that starts from the donor's against a fresh one. It
    takes the file of `kfnas prove transfer`, and uses the searches that are there.

    \b
    Example:
        kfnas prove knowledge transfer.yaml
    """
    _prove("knowledge", study, **options)


def _prove(
    kind: Any,
    path: Path,
    *,
    overrides: tuple[str, ...],
    report_only: bool,
    configs: Path | None,
    folder: Path | None,
    image: str | None,
    environment_file: Path | None,
    rounds: int,
    parallelism: int,
) -> None:
    from kfnas.steps.study_config import load_study_config

    study = load_study_config(path, kind, overrides)
    if configs is not None:
        from kfnas.steps.study import plan_study

        configs.mkdir(parents=True, exist_ok=True)
        for config in plan_study(study).searches:
            (configs / f"{config.name}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
            click.echo(str(configs / f"{config.name}.yaml"))
        return
    if folder is not None:
        from kfnas_pipelines.environment import load_environment
        from kfnas_pipelines.study_pipelines import compile_study

        environment = load_environment(environment_file, image)
        for file in compile_study(folder, study, environment, num_rounds=rounds, parallelism=parallelism):
            click.echo(str(file))
        return
    from kfnas_pipelines.study_driver import compare
    from kfnas_pipelines.study_driver import prove as run_study

    page = compare(study) if report_only else run_study(study, tell=_tell)
    click.echo(f"report     {page}")


def _tell(line: str) -> None:
    """Progress goes to stderr, beside the searches' own."""
    click.echo(line, file=sys.stderr)
