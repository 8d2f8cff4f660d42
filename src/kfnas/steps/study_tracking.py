"""A study before the tracker: one run with its metrics, its tables and figures, and the runs of its searches under it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kfnas.errors import AccessDenied, RetryableError
from kfnas.steps.context import Run
from kfnas.steps.view import tracker_of
from kfnas.tracking import StudyView

logger = logging.getLogger(__name__)


def track_study(run: Run, view: StudyView, files: Mapping[str, bytes]) -> bool:
    """Show a study to the tracker that `run` names. One that does not answer fails nothing: the same command again writes what is missing.

    Returns:
        Whether the tracker now holds it.
    """
    try:
        tracker = tracker_of(run)
        if tracker is None:
            return False
        tracker.compare(view, files)
        return True
    except (RetryableError, AccessDenied) as error:
        logger.warning("study %s is not tracked for now: %s; run the same command again when the tracker answers", view.study_id, error)
        return False
