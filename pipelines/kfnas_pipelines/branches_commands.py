"""`kfnas prove branches`: what sharing weights among more branches does to networks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kfnas_pipelines.command_line import CONFIG_ARGUMENT, SET_OPTION, command


@click.group()
def _commands() -> None:
    """The study's command, for the group `prove` to take over."""


@command(_commands)
@CONFIG_ARGUMENT
@SET_OPTION
@click.option("--networks", default=4, show_default=True, type=click.IntRange(min=2), metavar="N", help="Networks that are compared.")
@click.option("--branches", default="1,2,4", show_default=True, metavar="B,..", help="Networks that share a supernet; 1 among them.")
@click.option("--epochs", default=30, show_default=True, type=click.IntRange(min=1), metavar="N", help="Of a network alone; B branches take B times as many.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), metavar="N", help="Trainings of each.")
@click.option("--output", "-o", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where page, figure and table go; else to the reports.")
def branches(config: Path, overrides: tuple[str, ...], networks: int, branches: str, epochs: int, seeds: int, output: Path | None) -> None:
    """Accuracy and rank of networks that share weights: BetaNAS's Fig. 6.

    Random networks of the space are trained alone, and with others in supernets of two and of four branches a block, each weight for about as many steps, by
    the configuration's `oneshot.training`. Killed, it goes on where it stands when it is given again.

    \b
    Examples:
        kfnas prove branches flowers-betanas.yaml
        kfnas prove branches flowers-betanas.yaml --epochs 10 --seeds 5
    """
    from kfnas.errors import ConfigError
    from kfnas.steps.branches import prove_branches
    from kfnas.steps.branches_report import branches_files, branches_headline
    from kfnas.steps.config import load_run_config
    from kfnas_pipelines.study_files import put_files

    try:
        counts = sorted({int(number) for number in branches.split(",")})
    except ValueError:
        raise ConfigError(f"--branches {branches}: not numbers with commas between them; give for instance 1,2,4") from None
    loaded = load_run_config(config, overrides)
    figures = prove_branches(
        loaded.text, num_networks=networks, branches=counts, epochs=epochs, seeds=seeds, tell=lambda line: click.echo(line, file=sys.stderr)
    )
    page = put_files(branches_files(figures, loaded, epochs), loaded, "branches", output)
    click.echo(branches_headline(figures))
    click.echo(f"report     {page}")
