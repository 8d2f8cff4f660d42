"""MLflow's process-wide settings, held for as long as one call lasts and then put back.

MLflow reads timeouts, retries and its manners from environment variables at the time of a request, so a caller that wants its own sets them around the
request. What a user has set already is kept, the probe's impatience apart.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
PROBE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

_CHATTY = ("mlflow", "alembic", "sqlalchemy.engine", "urllib3.connectionpool")
_lock = threading.RLock()


@contextmanager
def environment(forced: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> Iterator[None]:
    """`forced` variables, and `defaults` where nothing is set, for the length of the block; one thread at a time."""
    with _lock:
        wanted = {**{key: value for key, value in (defaults or {}).items() if key not in os.environ}, **forced}
        before = {key: os.environ.get(key) for key in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value


@contextmanager
def hushed(level: int = logging.ERROR) -> Iterator[None]:
    """Loggers that tell users of MLflow's inner life, kept to errors for the length of the block, and the warnings of its own code left out."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(level, logger.level))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)
