"""Rows of a study, and the searches that they stand for: one configuration, changed in what a row says and in nothing else.

The rows are those of FNAS's Table 4 (each module alone, and all of them) and Table 5 (modules that start from another task's search), and the baselines that
a reader expects beside them. Everything here works on plain JSON values, so that a study can be planned without opening a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue

from kfnas.config import Config
from kfnas.errors import ConfigError

PoolUse = Literal["none", "own", "donor", "base"]
WHOLE_FIELDS = frozenset({"task"})
"""Fields that a change replaces as a whole: what belongs to one task means nothing to another."""
ONLY_FILLED = {"read": False}
"""Fields of a pool that no child starts from."""
NOT_PASSED_ON = ("version", "push")
"""Fields of the base's pool that mean nothing for the pool of a row: it has other versions, and nothing else would fill it."""


class Row(Config):
    """One row of a study's table."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,15}$", description="stands in the table, and in the names of the row's searches")
    agent: str | None = Field(None, description="search.agent of the row; None: the base's")
    pool: PoolUse = Field(
        "none", description="none; own: one of the search's own, empty at first; donor: the donor's, read and not written; base: own where the base has a pool"
    )
    prior: bool = Field(False, description="whether the critic starts from what the donor's search learnt")
    weights: str | None = Field(None, description="with algorithm oneshot: name of the row of the same study whose search's shared weights the evolution is on")
    set: dict[str, JsonValue] = Field(default_factory=dict, description="other fields of the base that the row changes, nested as in a run's configuration")

    @property
    def needs_donor(self) -> bool:
        """Whether the row starts from another search."""
        return self.prior or self.pool == "donor"


ABLATION_ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(name="none", agent="mnas"),
        Row(name="akp", agent="mnas", pool="own"),
        Row(name="uac", agent="mnas+uac"),
        Row(name="aeb", agent="mnas+aeb"),
        Row(name="uac-aeb", agent="fnas"),
        Row(name="all", agent="fnas", pool="own"),
        Row(name="random", agent="random"),
        Row(name="evolution", agent="evolution"),
        Row(name="local-search", agent="local_search"),
        # PC-NAS's Table 3: {its own, one-shot} training x {its own search, evolution}; and BetaNAS beside the update that its figure 5 compares with.
        Row(name="pcnas", set={"algorithm": "pcnas"}),
        Row(name="pcnas-evolved", set={"algorithm": "oneshot"}, weights="pcnas"),
        Row(name="pcnas-uniform", set={"algorithm": "pcnas", "oneshot": {"pcnas": {"training": "uniform"}}}),
        Row(name="oneshot", set={"algorithm": "oneshot"}),
        Row(name="betanas", set={"algorithm": "betanas"}),
        Row(name="proxylessnas", set={"algorithm": "betanas", "oneshot": {"betanas": {"gates": "two", "training_paths": "importance", "drop_factor": 0.0}}}),
    )
}
TRANSFER_ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(name="fresh", agent="fnas", pool="base"),
        Row(name="uac", agent="fnas", pool="base", prior=True),
        Row(name="akp", agent="fnas", pool="donor"),
        Row(name="both", agent="fnas", pool="donor", prior=True),
        Row(name="none", agent="mnas"),
        Row(name="random", agent="random"),
    )
}


def search_name(study: str, row: str, seed: int) -> str:
    """Name of a row's search with one seed."""
    return f"{study}-{row}-s{seed}"


def donor_name(study: str) -> str:
    """Name of the search that a study runs first, for its rows to start from."""
    return f"{study}-donor"


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `change`: mappings are merged, everything else replaced; a task is replaced as a whole. Neither is changed."""
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        merges = key not in WHOLE_FIELDS and isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(dict(old or {}), value) if merges else value
    return result


def derived(base: Mapping[str, Any], row: Row, *, study: str, seed: int, donor_search: str | None = None, donor_pool: str | None = None) -> dict[str, Any]:
    """Fields of the run that stands for a row with one seed. What belongs to no row (pool, prior) is left out rather than set to nothing.

    Args:
        base: fields that all rows share.
        row: what this one changes.
        study: the study's name.
        seed: of search, split and finalists.
        donor_search: id of the search whose knowledge a `prior` row starts from.
        donor_pool: name of the pool that it filled.

    Raises:
        ConfigError: the row needs a donor's search or pool, and there is none.
    """
    for missing, wanted, what in ((donor_search, row.prior, "search"), (donor_pool, row.pool == "donor", "pool")):
        if wanted and missing is None:
            raise ConfigError(f"row {row.name!r} starts from a donor's {what}, and the study names none; give `donor.{what}`, or `donor.set` to have one run")
    name = search_name(study, row.name, seed)
    value = merged({key: item for key, item in base.items() if key not in ("pool", "prior")}, row.set)
    value |= {"name": name, "seed": seed}
    if row.agent is not None:
        value["search"] = merged(value.get("search") or {}, {"agent": row.agent})
    if row.weights is not None:
        value["oneshot"] = merged(value.get("oneshot") or {}, {"weights_of": search_name(study, row.weights, seed)})
    pool = _pool(base.get("pool"), row, name, donor_pool)
    if pool is not None:
        value["pool"] = merged(pool, value.get("pool") or {})
    if row.prior:
        value["prior"] = donor_search
    return value


def derived_donor(base: Mapping[str, Any], change: Mapping[str, Any], *, study: str, seed: int) -> dict[str, Any]:
    """Fields of the run that the rows start from: all modules; one network is trained at its end, since nobody waits for its models.

    It fills a pool and, unless `change` says otherwise, starts none of its own children from it: so the pool grows with every child, and the critic has seen
    children of one kind.
    """
    name = donor_name(study)
    kept = {key: item for key, item in base.items() if key not in ("prior", "top_k", "comparisons")}
    value = merged({**kept, "top_k": 1, "comparisons": False}, change)
    value |= {"name": name, "seed": seed}
    agent = (change.get("search") or {}).get("agent", "fnas")
    value["search"] = {**(value.get("search") or {}), "agent": agent}
    value["pool"] = {**_without(base.get("pool"), *NOT_PASSED_ON), **ONLY_FILLED, **dict(change.get("pool") or {}), "name": name}
    return value


def _pool(template: Any, row: Row, name: str, donor_pool: str | None) -> dict[str, Any] | None:
    """A pool of its own is named after its search, so that no row and no seed gets another's weights."""
    kept = _without(template, *NOT_PASSED_ON)
    if row.pool == "donor":
        return {**_without(kept, "read"), "name": donor_pool, "push": False}
    if row.pool == "own":
        return {**_without(kept, "read"), "name": name}
    if row.pool == "base" and template:
        return {**kept, "name": name}
    return None


def _without(pool: dict[str, Any] | None, *fields: str) -> dict[str, Any]:
    return {key: item for key, item in (pool or {}).items() if key not in fields}
