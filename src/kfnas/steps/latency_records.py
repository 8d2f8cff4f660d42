"""Latency records in and out of a store: what one machine measured, another can replay."""

from __future__ import annotations

from pathlib import Path

from kfnas.config import parse
from kfnas.errors import NotFound, UserError
from kfnas.measure import LatencyRecord, export_records, load_records
from kfnas.steps.context import open_run

KIND = "latency"


def export_latencies(config: str, path: Path) -> int:
    """Write every latency record of the run's store to `path`, as JSON lines; their number.

    Raises:
        NotFound: the store holds none.
        UserError: the file cannot be written.
    """
    run = open_run(config)
    found = {key: run.searches.record(KIND, key) for key in run.searches.records(KIND)}
    records = [parse(LatencyRecord, value, source=f"latency record {key}") for key, value in found.items() if value is not None]
    if not records:
        raise NotFound(f"no latency records in {run.store.uri}; run a search with `cost: latency_ms` there first, or check `store`")
    try:
        Path(path).write_bytes(export_records(records))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give a file in a folder that exists") from None
    return len(records)


def import_latencies(config: str, path: Path) -> int:
    """Put the records of a file into the run's store; the number of those that it lacked. A record that is there already stays as it is.

    Raises:
        UserError: the file cannot be read, or a line of it is no record.
    """
    try:
        records = load_records(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a file that `kfnas records export` wrote") from None
    run = open_run(config)
    return sum(run.searches.put_record(KIND, record.key, record.model_dump(mode="json")) for record in records)
