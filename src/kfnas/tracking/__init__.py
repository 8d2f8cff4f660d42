"""Tracking: the Tracker port, its MLflow adapter and its in-memory double.

A tracker shows a search to people; it is never where a search lives. It projects what the store holds, so that nothing is lost while no tracker answers.
MLflow itself is imported by `open_tracker` and by `kfnas.tracking.mlflow` only.
"""

from kfnas.tracking.memory import MemoryTracker
from kfnas.tracking.port import CANDIDATE, FinalModel, Projection, RegisteredModel, Tracker, check_address, open_tracker
from kfnas.tracking.redaction import redacted
from kfnas.tracking.study import StudyView
from kfnas.tracking.view import Final, RoundMetrics, SearchRow, SearchView

__all__ = [
    "CANDIDATE",
    "Final",
    "FinalModel",
    "MemoryTracker",
    "Projection",
    "RegisteredModel",
    "RoundMetrics",
    "SearchRow",
    "SearchView",
    "StudyView",
    "Tracker",
    "check_address",
    "open_tracker",
    "redacted",
]
