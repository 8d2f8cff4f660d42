"""`kfnas prove fidelity`: how well short trainings rank architectures, with and without a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfnas_pipelines.command_line import SET_OPTION, command

if TYPE_CHECKING:
    from kfnas.studies.fidelity import Fidelity


@click.group()
def _commands() -> None:
    """The study's command, for the group `prove` to take over."""


@command(_commands)
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")
@SET_OPTION
@click.option("--report", "report_only", is_flag=True, help="Train nothing: write the report of a study whose trainings are done.")
@click.option(
    "--compile", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Run nothing: write the pipeline for a cluster there."
)
@click.option("--image", metavar="REF", help="With --compile: container image of every step.")
@click.option("--environment", "environment_file", type=click.Path(path_type=Path), metavar="FILE.yaml", help="With --compile: as of `kfnas compile`.")
@click.option("--parallelism", default=0, show_default=True, metavar="N", help="With --compile: training tasks at a time; 0 for no limit.")
def fidelity(
    study: Path,
    overrides: tuple[str, ...],
    report_only: bool,
    folder: Path | None,
    image: str | None,
    environment_file: Path | None,
    parallelism: int,
) -> None:
    """How well short trainings rank: Fig. 3b and 3c.

    Trains some architectures long with several seeds, and the same ones shortly from random weights and from a pool of other architectures' blocks; then
    compares the rankings. Killed, it goes on where it stands when it is given again; no finished training is done again.

    \b
    study.yaml:
        name: flowers-fidelity
        base: {task: {name: classification, source: ./flowers, num_train: 2000, num_val: 2000}, proxy: {batch_size: 64}}
        architectures: 60
        epochs: [1, 2, 4]
        truth: {epochs: 10, seeds: 3}
        donors: {architectures: 40, epochs: 10}
    \b
    Examples:
        kfnas prove fidelity study.yaml
        kfnas prove fidelity study.yaml --set architectures=30 --set name=half
        kfnas prove fidelity study.yaml --compile pipelines/ --image registry.example/kfnas/steps-python:0.1.0
    """
    from kfnas.steps.fidelity_config import load_fidelity_config

    config = load_fidelity_config(study, overrides)
    if folder is not None:
        from kfnas_pipelines.environment import load_environment
        from kfnas_pipelines.fidelity import FIDELITY, compile_fidelity

        click.echo(str(compile_fidelity(folder / FIDELITY, parallelism, load_environment(environment_file, image))))
        click.echo(f"its argument `config`: {config.text}")
        return
    page = _page(config.name, str(config.base["store"]))
    if report_only:
        from kfnas.steps.fidelity_compare import write_fidelity_report

        figures = write_fidelity_report(config.text, page)
    else:
        from kfnas_pipelines.fidelity_run import run_fidelity

        figures = run_fidelity(config, page)
    _tell(figures)
    click.echo(f"report     {page}")


def _tell(figures: Fidelity) -> None:
    from kfnas.steps.fidelity_report import headline

    for ranked in figures.proxies:
        rho, tau = ranked.spearman, ranked.kendall
        click.echo(
            f"{ranked.proxy.initialisation:<7}{ranked.proxy.epochs:>3} epochs   rho {rho.value:.3f} ({rho.low:.3f} to {rho.high:.3f})   "
            f"tau {tau.value:.3f} ({tau.low:.3f} to {tau.high:.3f})   accuracy {ranked.accuracy:.4f}"
        )
    between, within = (100 * deviation for deviation in figures.spread)
    click.echo(f"truth      two seeds agree at rho {figures.mean_agreement:.3f}; {between:.2f} points between architectures, {within:.2f} between seeds")
    click.echo(headline(figures))
    for failing in figures.failings:
        click.echo(f"why        {failing}")


def _page(name: str, store: str) -> Path:
    """Beside the study in a local store; in the working folder when the store is elsewhere."""
    return Path(f"{name}-report.html") if "://" in store else Path(store) / "reports" / f"{name}.html"
