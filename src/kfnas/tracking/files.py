"""The artifacts of a search's run that follow from its view alone: configuration, history, front and final table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from kfnas.tracking.redaction import redacted
from kfnas.tracking.view import SearchView


def table_files(view: SearchView) -> dict[str, bytes]:
    """JSON and CSV by relative path, without credentials; an empty table is an empty file."""
    rows, finals = row_table(view), final_table(view)
    front = [row for row in rows if row["pareto"]]
    return {
        "config.json": _json(view.config),
        "tables/history.csv": _csv(rows),
        "tables/pareto.json": _json({"cost": view.cost, "target": view.target, "rows": front}),
        "tables/finals.csv": _csv(finals),
        "tables/finals.json": _json(finals),
    }


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of each leaf of nested mappings."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item if isinstance(item, str) else json.dumps(item)


def row_table(view: SearchView) -> list[dict[str, Any]]:
    """The history as flat records."""
    front = set(view.pareto)
    return [asdict(row) | {"pareto": row.id in front} for row in view.rows]


def final_table(view: SearchView) -> list[dict[str, Any]]:
    """Finalists as flat records: one column for each metric that any of them has."""
    names = sorted({name for final in view.finals for name in final.metrics})
    return [
        {"name": final.name, "kind": final.kind, "status": final.status, "reason": final.reason, "architecture": final.architecture}
        | {name.removeprefix("final/"): final.metrics.get(name) for name in names}
        for final in view.finals
    ]


def _json(value: Any) -> bytes:
    return json.dumps(redacted(value), indent=2, sort_keys=True, default=str).encode() + b"\n"


def _csv(records: list[dict[str, Any]]) -> bytes:
    if not records:
        return b""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(records[0]))
    writer.writeheader()
    writer.writerows(redacted(records))
    return text.getvalue().encode()
