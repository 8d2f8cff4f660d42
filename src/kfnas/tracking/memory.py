"""A tracker that keeps everything in memory: the double that steps and tests use where no MLflow is wanted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from kfnas.tracking.port import FinalModel, Projection, RegisteredModel, registry_name
from kfnas.tracking.redaction import redacted
from kfnas.tracking.study import StudyView
from kfnas.tracking.view import Point, SearchView, finite, search_points


@dataclass
class MemoryRun:
    """One tracked search."""

    view: SearchView
    children: list[str] = field(default_factory=list)
    points: dict[tuple[str, int], Point] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class MemoryStudy:
    """One tracked study."""

    view: StudyView
    points: dict[tuple[str, int], float] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class MemoryTracker:
    """A Tracker without a server: `runs` by search id, `studies` by study id, `models` by registered name in order of version, `aliases` by (name, alias)."""

    def __init__(self, *, max_children: int = 500) -> None:
        self.max_children = max_children
        self.runs: dict[str, MemoryRun] = {}
        self.studies: dict[str, MemoryStudy] = {}
        self.models: dict[str, list[FinalModel]] = {}
        self.aliases: dict[tuple[str, str], int] = {}

    @property
    def uri(self) -> str:
        """Where this tracker writes."""
        return "memory:"

    def project(self, view: SearchView, files: Mapping[str, bytes] | None = None) -> Projection:
        """See `Tracker.project`."""
        view = dataclasses.replace(view, config=redacted(view.config))
        run = self.runs.setdefault(view.search_id, MemoryRun(dataclasses.replace(view, rows=(), state="running")))
        first = len(run.view.rows)
        if len(view.rows) < first:
            return Projection(view.search_id, 0, 0, 0)
        run.points.update({(point.name, point.step): point for point in search_points(view, first_row=first)})
        new = [row.id for row in view.rows if row.activated][: self.max_children][len(run.children) :]
        run.children.extend(new)
        changed = {path: data for path, data in (files or {}).items() if run.files.get(path) != data}
        run.files.update(changed)
        run.view = view
        return Projection(view.search_id, len(view.rows) - first, len(new), len(changed))

    def compare(self, view: StudyView, files: Mapping[str, bytes] | None = None) -> Projection:
        """See `Tracker.compare`."""
        view = dataclasses.replace(view, config=redacted(view.config))
        study = self.studies.setdefault(view.study_id, MemoryStudy(view))
        study.view = view
        study.points.update({(name, view.num_finished): value for name, value in finite(view.metrics).items()})
        changed = {path: data for path, data in (files or {}).items() if study.files.get(path) != data}
        study.files.update(changed)
        return Projection(view.study_id, 0, 0, len(changed))

    def register(self, model: FinalModel) -> RegisteredModel:
        """See `Tracker.register`."""
        name = registry_name(model.name)
        versions = self.models.setdefault(name, [])
        digests = [version.digest for version in versions]
        created = model.digest not in digests
        if created:
            versions.append(model)
        number = len(versions) if created else digests.index(model.digest) + 1
        if model.alias is not None:
            self.aliases[name, model.alias] = number
        return RegisteredModel(name, number, model.digest, created)
