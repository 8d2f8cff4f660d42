"""A search's head: the one blob that changes. It says which snapshot is current, who holds the search and until when.

It moves by compare-and-swap only. The fence grows whenever another run takes the search over, the sequence with every commit.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from kfnas.config import Config, parse_document
from kfnas.errors import ConfigMismatch, SearchBusy
from kfnas.storage.owner import Owner

FORMAT = 1


class Pointer(Config):
    """Names one committed state of a search: what the state artifacts of pipeline steps hold, as JSON.

    Attributes:
        search_id: the search.
        fence: number of the claim under which the pointer was made; an older one cannot commit any more.
        sequence: number of commits before this state; 0 is the initial one.
        round: rounds that are closed in this state.
        digest: digest of its snapshot.
    """

    search_id: str
    fence: int
    sequence: int
    round: int
    digest: str


class Head(Config):
    """Contents of the head.

    Attributes:
        format: version of this format.
        search_id: the search.
        config_digest: digest of the configuration that it was started with.
        config: that configuration as JSON text, for messages; may be empty.
        fence: number of the latest claim, from 1.
        sequence: number of commits.
        round: rounds that are closed.
        digest: digest of the current snapshot.
        owner: the run that holds the search; None while no run does.
        claimed_at: when it claimed it, seconds since the epoch.
        lease_expires: until when it holds it unless it renews, seconds since the epoch.
        finished: the search came to its end.
    """

    format: int = FORMAT
    search_id: str
    config_digest: str
    config: str = ""
    fence: int
    sequence: int
    round: int
    digest: str
    owner: Owner | None
    claimed_at: float
    lease_expires: float
    finished: bool = False

    def pointer(self) -> Pointer:
        """Pointer to the current state under the current fence."""
        return Pointer(search_id=self.search_id, fence=self.fence, sequence=self.sequence, round=self.round, digest=self.digest)

    def is_held(self, now: float) -> bool:
        """Whether a run holds the search: its lease lasts, and its process is not known to be gone."""
        return self.owner is not None and now < self.lease_expires and not self.owner.is_gone()

    def check_config(self, digest: str, config: str) -> None:
        """Refuse another configuration than the search was started with.

        Raises:
            ConfigMismatch: with both digests, and the fields that differ where both texts are known.
        """
        if digest == self.config_digest:
            return
        raise ConfigMismatch(
            f"search {self.search_id!r} was started with configuration {self.config_digest}, and this one is {digest}{_differences(self.config, config)}; "
            "go on with the first one, or give the new one another search name"
        )

    def check_free(self, now: float) -> None:
        """Refuse a search that another run holds.

        Raises:
            SearchBusy: with the holder and the way to take over.
        """
        if self.is_held(now):
            raise SearchBusy(
                f"search {self.search_id!r} is held by {self.owner} since {_time(self.claimed_at)}, lease until {_time(self.lease_expires)}; "
                "wait for it, stop it, or take the search over (take_over=True, `kfnas resume --take-over`): the other run then cannot commit any more"
            )


def parse_head(text: bytes, where: str) -> Head:
    """The head that the bytes hold.

    Raises:
        CorruptError: they hold none.
        StateVersionError: a newer kfnas wrote them.
    """
    return parse_document(Head, text, newest=FORMAT, where=where, what="a search's head", remedy="restore it from a copy")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _differences(old: str, new: str) -> str:
    """The fields in which two JSON texts differ, at most eight; "" where a text is not known."""
    try:
        before, after = dict(_fields(json.loads(old))), dict(_fields(json.loads(new)))
    except ValueError:
        return ""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    shown = [f"{name}: {before.get(name, 'absent')} then, {after.get(name, 'absent')} now" for name in changed[:8]]
    more = [f"and {len(changed) - 8} more"] if len(changed) > 8 else []
    return f" ({'; '.join(shown + more)})" if shown else ""


def _fields(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, each in value.items() for pair in _fields(each, f"{name}.{key}" if name else key)]
    return [(name or "(all)", json.dumps(value)[:80])]
