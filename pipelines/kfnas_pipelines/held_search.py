"""The driver's hold on a search: who holds it, where it stands, and the heartbeat that keeps its lease."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from types import TracebackType
from typing import Protocol, Self

from kfnas.config import canonical_json
from kfnas.errors import ConflictError, KfnasError, SearchBusy, StaleFence
from kfnas.steps.config import RunConfig
from kfnas.steps.context import open_run
from kfnas.steps.preflight import preflight
from kfnas.steps.status import Progress, ProgressReader, release_lease, renew_lease
from kfnas.storage import Owner

logger = logging.getLogger(__name__)


class Handle(Protocol):
    """What the driver asks of a search's store."""

    run_id: str
    """What pipelines are given as `run_id`."""

    def check(self, *, take_over: bool = False) -> None:
        """Refuse at once what a run would refuse later: ConfigMismatch, or SearchBusy unless the search is taken over; for one that does not
        exist yet, whatever is known to fail (`kfnas.steps.preflight`)."""

    def poll(self) -> Progress:
        """Where the search stands."""

    def renew(self) -> None:
        """Keep the hold on the search; StaleFence when another run has it."""

    def release(self) -> None:
        """Give the hold up."""


class StoredSearch:
    """A search in its store, held in the name of this process."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self._digest = config.text, config.digest
        self._owner = Owner.of_process(f"local-{uuid.uuid4().hex}")
        self._reader = ProgressReader(config.text)
        self.run_id = canonical_json(self._owner)

    def check(self, *, take_over: bool = False) -> None:
        """Refuse another configuration than the search's own, and a search that another live run holds.

        Taking over ends that run's lease; the next claim raises the fence, and the other run can commit no more.
        """
        run = open_run(self._config)
        searches = run.searches
        head = searches.head()
        if head is None:
            preflight(run)
            return
        head.check_config(self._digest, self._config)
        if take_over and head.owner is not None:
            searches.release(head.owner.run_id)
        else:
            head.check_free(time.time())

    def poll(self) -> Progress:
        """Where the search stands."""
        return self._reader.poll()

    def renew(self) -> None:
        """Keep the hold on the search."""
        renew_lease(self._config, self._owner.run_id)

    def release(self) -> None:
        """Give the hold up."""
        release_lease(self._config, self._owner.run_id)


class Heartbeat:
    """Renews the search's lease from a thread, four times a lease. `lost` is set when another run has taken the search over."""

    def __init__(self, search: Handle, lease_seconds: float) -> None:
        self.lost: ConflictError | None = None
        self._search, self._interval = search, lease_seconds / 4
        self._stopped = threading.Event()
        self._held = False
        self._thread = threading.Thread(target=self._beat, name="kfnas-heartbeat", daemon=True)

    def stop(self) -> None:
        """No further renewal."""
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _beat(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._search.renew()
                self._held = True
            except (StaleFence, SearchBusy) as error:
                if self._held:  # before the first run has claimed the search, its last owner still has the lease
                    self.lost = error
                    return
            except KfnasError as error:
                logger.warning("the search's lease was not renewed: %s", error)
