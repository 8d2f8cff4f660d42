"""What a tracker is shown of a study: one run for the comparison, and which searches it compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfnas.tracking.view import check_identity


@dataclass(frozen=True)
class StudyView:
    """A study as far as it has come.

    `metrics` are named `group/name_unit`; `num_finished` of its parts are done, and metrics that changed are written with that as their step, or the
    last one if it is later, so that a study that is compared again shows how they came about, and its newest values. Parameters are those of its first
    writing. `searches` are the ids of searches whose runs belong under the study's. `state` is `running | finished | failed`.
    """

    study_id: str
    kind: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    searches: tuple[str, ...] = ()
    num_finished: int = 0
    state: str = "running"
    code_version: str = ""

    def __post_init__(self) -> None:
        check_identity("study", self.study_id, self.state)
