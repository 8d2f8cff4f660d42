"""Step: take the operator latency table of a run's space, data and device, or find it in the store.

A table is measured once and kept under the digest of all that it depends on. Every few measurements are a record of their own: a step that was killed takes up
the round where it was, and asks for what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfnas.config import parse
from kfnas.errors import NotFound
from kfnas.measure import Device, OperatorTable, ReplayDevice, TableConfig, TablePlan, TableQuestion, Taken, next_of, plan_table, table_of_rounds, take
from kfnas.space import NetworkArguments, Space
from kfnas.steps.context import DataPointer, Run, open_run, read_data, write_json
from kfnas.steps.costs import open_device
from kfnas.steps.prepare_data import data_of

logger = logging.getLogger(__name__)
TABLES = "latency_tables"
ROUNDS = "latency_rounds"
RECORD_SIZE = 32
"""Measurements of one record: what a kill loses at most, and what levels are taken from."""


def latency_table(config: str, data: Path, table: Path) -> None:
    """Write to `table` the operator latency table for the run's space, data and device, and as `metrics` how good it is.

    Raises:
        MeasurementError: too much could not be measured.
        SpaceError: the space is none that a table serves.
        NotFound: latencies are replayed, and the store has no table of the device that they were taken on.
    """
    run = open_run(config)
    prepared = read_data(data)
    taken = take_table(run, prepared, space=run.final_space, arguments=run.final_arguments(prepared))
    write_json(table, {"key": taken.question.key, "metrics": metrics_of(taken), "table": taken.model_dump(mode="json")})


def table_of_config(config: str, tell: Callable[[str], None] | None = None) -> OperatorTable:
    """The table of a configuration, whose data are prepared first if they are not yet.

    Args:
        config: canonical JSON of a RunConfig; without `table`, the defaults'.
        tell: is given a line of progress now and then.

    Raises:
        As `latency_table`, and DataError: the data set is missing, unreadable or unfit for the task.
    """
    run = open_run(config)
    data = data_of(run)
    return take_table(run, data, space=run.final_space, arguments=run.final_arguments(data), tell=tell)


def take_table(
    run: Run,
    data: DataPointer,
    *,
    space: Space | None = None,
    arguments: NetworkArguments | None = None,
    alive: Callable[[], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> OperatorTable:
    """The table from the store; one that is not there is measured first.

    Args:
        run: the run.
        data: its prepared data, which resolution, channels and outputs come from.
        space: whose networks the table foretells; None: the run's, as searched.
        arguments: of these networks; None: those of the search.
        alive: called after every record, to say that the run lives.
        tell: is given a line of progress after every record.

    Raises:
        As `latency_table`.
    """
    device, settings = open_device(run), run.config.table or TableConfig()
    space, arguments = space or run.space, arguments or run.arguments(data)
    question = TableQuestion.of(space, arguments, device.fingerprint(), run.config.latency, settings)
    known = run.searches.record(TABLES, question.key)
    if known is None:
        if isinstance(device, ReplayDevice):
            raise NotFound(
                f"{run.store.uri} has no table of operators for space {run.space.name}, width {arguments.width:g}, {arguments.resolution} pixels on "
                f"{question.device}, and device.replay measures nothing; run `kfnas table` on that device with this store, or leave `table` out"
            )
        plan = plan_table(space, arguments, settings, run.config.latency.batch)
        _measure(run, device, plan, question, lambda line: _told(line, alive, tell))
        made = table_of_rounds(question, plan, [taken_in(run, question, number) for number in range(settings.rounds)])
        run.searches.put_record(TABLES, question.key, made.model_dump(mode="json"))
        known = run.searches.record(TABLES, question.key)
    table = parse(OperatorTable, known, source=f"operator table {question.key}")
    table.require(question)
    return table


def taken_in(run: Run, question: TableQuestion, round: int) -> list[Taken]:
    """What the store has of one round of a table, in the order in which it was taken."""
    found: list[Taken] = []
    while (record := run.searches.record(ROUNDS, _key(question, round, len(found)))) is not None:
        found.append(parse(Taken, record, source=f"round {round} of operator table {question.key}"))
    return found


def metrics_of(table: OperatorTable) -> dict[str, Any]:
    """Numbers that say how good a table is: shares, but for the counts."""
    errors = table.errors()
    named = {} if errors is None else {name: value for name, value in errors._asdict().items() if value is not None}
    return {"num_operators": len(table.entries), "num_unmeasured": len(table.unmeasured), "spread": table.spread, **named}


def _measure(run: Run, device: Device, plan: TablePlan, question: TableQuestion, told: Callable[[str], None]) -> None:
    settings = question.settings
    for number in range(settings.rounds):
        earlier = taken_in(run, question, number)
        while asked := next_of(plan, earlier, settings.seed, number, RECORD_SIZE):
            taken = take(device, plan, asked, run.config.latency, earlier)
            written = run.searches.put_record(ROUNDS, _key(question, number, len(earlier)), taken.model_dump(mode="json"))
            # Another process that takes the same table may have been faster: then its record counts.
            earlier = [*earlier, taken] if written else taken_in(run, question, number)
            done = sum(len(each.latencies) for each in earlier)
            told(f"operator table: round {number + 1} of {settings.rounds}, {done} of {len(plan.digests)} measured")


def _told(line: str, alive: Callable[[], None] | None, tell: Callable[[str], None] | None) -> None:
    logger.info("%s", line)
    if alive is not None:
        alive()
    if tell is not None:
        tell(line)


def _key(question: TableQuestion, round: int, number: int) -> str:
    return f"{question.key}.{round:03d}.{number:05d}"
