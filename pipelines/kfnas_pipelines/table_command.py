"""`kfnas table`: the latency of every operator of a space, and how well it foretells networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kfnas_pipelines.command_line import CONFIG_ARGUMENT, SET_OPTION, command

if TYPE_CHECKING:
    from kfnas.measure import OperatorTable, TableErrors


@click.group()
def _commands() -> None:
    """The command, for `kfnas` to take over."""


@command(_commands)
@CONFIG_ARGUMENT
@SET_OPTION
@click.option("--networks", type=click.IntRange(min=0), metavar="N", help="Held-out networks that the error is stated on; those of the configuration, or 30.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the whole table there, as JSON.")
def table(config: Path, overrides: tuple[str, ...], networks: int | None, output: Path | None) -> None:
    """Measure every operator of a space once.

    Operators and some whole networks are measured on the configuration's device, shuffled, in several rounds; a line fitted on networks corrects the sum of the
    operators, and other networks say how good it is. Killed, it goes on where it stands when it is given again. It is kept in the store: a search whose
    configuration has the same `table` goes by it and measures no candidate. Leave the machine to it meanwhile.

    \b
    Examples:
        kfnas table flowers.yaml
        kfnas table flowers.yaml --networks 60 --set latency.threads=2
        kfnas run flowers.yaml --set 'table={}'
    """
    from kfnas.measure import TableConfig
    from kfnas.steps.config import load_run_config
    from kfnas.steps.latency_table import table_of_config

    loaded = load_run_config(config, overrides)
    settings = loaded.table or TableConfig()
    if networks is not None:
        settings = settings.model_copy(update={"held_out": networks})
    # A table may be taken whatever the search goes by.
    loaded = loaded.model_copy(update={"cost": "latency_ms", "table": settings})
    taken = table_of_config(loaded.text, tell=lambda line: click.echo(line, err=True))
    click.echo("\n".join(described(taken, loaded.space.name)))
    click.echo(f"use it      `table: {json.dumps(settings.model_dump(exclude_defaults=True))}` in the configuration of a search")
    if output is not None:
        output.write_text(taken.model_dump_json(indent=1) + "\n", encoding="utf-8")
        click.echo(f"written     {output}")


def described(table: OperatorTable, space: str) -> list[str]:
    """A table in words: what it is of, and its errors."""
    question, settings = table.question, table.question.settings
    threads = "1 thread" if question.threads == 1 else f"{question.threads} threads"
    lines = [
        f"space       {space} ({question.space[:12]}), width {question.arguments.width:g}, {question.arguments.resolution} pixels",
        f"device      {question.device}",
        f"protocol    {table.runtime}, {question.provider}, {threads}, batch {question.batch}, {question.precision}; "
        f"windows of {question.protocol.min_runs} to {question.protocol.max_runs} runs",
        f"operators   {len(table.entries)} measured, {len(table.unmeasured)} unstable; {settings.rounds} rounds, half of them within {table.spread:.1%}",
        f"correction  {_correction(table)}, fitted on {len(table.fit)} networks",
        f"key         {question.key}",
    ]
    if not table.held_out:
        return [*lines, "errors      not known: no network was held out"]
    latencies = sorted(row.latency_ms for row in table.held_out)
    lines += [f"held out    {len(latencies)} networks of {latencies[0]:.4g} to {latencies[-1]:.4g} ms", "", _HEADER]
    for predictor, name in (("table", "table"), ("sum", "sum alone"), ("mult_adds", "mult-adds")):
        errors = table.errors(predictor)  # type: ignore[arg-type]
        assert errors is not None
        lines.append(_row(name, errors))
    return [*lines, "", f"tightening  predictions of at most {1 / (1 + _errors(table).error_95):.3f} x the limit keep to it with a probability of 95%"]


def _correction(table: OperatorTable) -> str:
    if table.ms_per_million_params:
        return f"{table.scale:.4g} x sum + {table.ms_per_million_params:.4g} ms a million parameters"
    return f"{table.offset_ms:.4g} ms + {table.scale:.4g} x sum"


_HEADER = f"{'foretold by':<12}{'mean |error|':>13}{'bias':>9}{'R2':>8}{'Spearman':>10}{'95% error':>11}"


def _errors(table: OperatorTable) -> TableErrors:
    errors = table.errors()
    assert errors is not None
    return errors


def _row(name: str, errors: TableErrors) -> str:
    r2, rank = ("-" if value is None else f"{value:.3f}" for value in (errors.r2, errors.spearman))
    return f"{name:<12}{errors.mean_absolute:>13.2%}{errors.bias:>+9.2%}{r2:>8}{rank:>10}{errors.error_95:>11.2%}"
