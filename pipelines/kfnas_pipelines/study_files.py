"""Where a study's page, figures and tables are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kfnas.steps.config import RunConfig


def put_files(files: Mapping[str, bytes], config: RunConfig, kind: str, output: Path | None) -> Path:
    """Write a study's files, by relative path; the path of its page.

    Args:
        files: `report.html` among them.
        config: of the search that the study is named after.
        kind: of the study.
        output: folder; None: among the reports of a local store, in the working folder when the store is elsewhere.
    """
    name = f"{config.name}-{kind}"
    folder = output or (Path(name) if "://" in config.store else Path(config.store) / "reports" / name)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder / "report.html"
