"""`kfnas prove sharing`: how well shared weights rank networks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kfnas_pipelines.command_line import SET_OPTION, command


@click.group()
def _commands() -> None:
    """The study's command, for the group `prove` to take over."""


@command(_commands)
@click.argument("configs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="PCNAS.yaml [OTHER.yaml]...")
@SET_OPTION
@click.option("--networks", default=20, show_default=True, type=click.IntRange(min=3), metavar="N", help="Candidates that are trained alone.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), metavar="N", help="Stand-alone trainings of each, whose mean counts.")
@click.option("--output", "-o", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Where page, figure and table go; else to the reports.")
def sharing(configs: tuple[Path, ...], overrides: tuple[str, ...], networks: int, seeds: int, output: Path | None) -> None:
    """How well shared weights rank: PC-NAS's Fig. 2b.

    Takes finished searches on one supernet: PC-NAS's, and one-shot ones on the same data and space to compare it with. Candidates of PC-NAS's last updates are
    trained alone by its `proxy` recipe, and each search's shared weights are asked for their accuracies. Killed, it goes on where it stands when it is given
    again. `--set` changes all of the configurations.

    \b
    Examples:
        kfnas prove sharing flowers-pcnas.yaml flowers-oneshot.yaml --networks 30
        kfnas prove sharing flowers-pcnas.yaml flowers-oneshot.yaml --set proxy.epochs=20 --seeds 2
    """
    from kfnas.steps.config import load_run_config
    from kfnas.steps.sharing import prove_sharing
    from kfnas.steps.sharing_report import sharing_files, sharing_headline
    from kfnas_pipelines.study_files import put_files

    loaded = [load_run_config(path, overrides) for path in configs]
    figures = prove_sharing([config.text for config in loaded], num_networks=networks, seeds=seeds, tell=lambda line: click.echo(line, file=sys.stderr))
    first = loaded[0]
    page = put_files(sharing_files(figures, first), first, "sharing", output)
    click.echo(sharing_headline(figures))
    click.echo(f"report     {page}")
