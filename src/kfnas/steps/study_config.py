"""The configuration of a study: one run's configuration, the rows that change it, and the seeds that each row is run with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, JsonValue, model_validator

from kfnas.config import Config, canonical_json, load_yaml, parse
from kfnas.controller.config import CRITIC_AGENTS
from kfnas.errors import ConfigError
from kfnas.steps.config import NAME, RunConfig, absolute, apply_override
from kfnas.studies.variants import ABLATION_ROWS, TRANSFER_ROWS, Row

Kind = Literal["ablation", "transfer", "knowledge"]
KNOWN_ROWS: dict[str, dict[str, Row]] = {"ablation": ABLATION_ROWS, "transfer": TRANSFER_ROWS, "knowledge": TRANSFER_ROWS}
DEFAULT_ROWS: dict[str, tuple[str, ...]] = {
    "ablation": ("none", "akp", "uac", "aeb", "all"),
    "transfer": ("fresh", "uac", "akp", "both"),
    "knowledge": ("fresh", "uac"),
}

SECTIONS = {"search": "{agent: fnas}", "pool": "{name: mine}", "oneshot": "{training: {batch_size: 64}}"}
"""Fields of a run that rows and donors change in part, each with an example."""


class DonorConfig(Config):
    """The search that rows start from: one that exists in the base's store, or one that the study runs first."""

    search: str | None = Field(None, pattern=NAME, description="an existing search's name; none: the study runs one, of the base changed by `set`")
    pool: str | None = Field(None, pattern=NAME, description="the pool that it filled; none: the one of the search that the study runs")
    set: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="fields of the base that the donor's search changes, such as its task: with the rows' own, its pool has seen images they are scored on",
    )
    seed: int = Field(1000, ge=0, lt=2**31, description="of the search that the study runs; another than the rows', or both begin with the same draws")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> DonorConfig:
        if self.search is not None and self.set:
            raise ValueError("an existing search cannot be changed: give `search`, or `set` to have the study run one")
        return self


class StudyConfig(Config):
    """Several searches that differ in what their rows say, with the same seeds and the same number of drawn architectures."""

    kind: Kind = Field("ablation", description="ablation: FNAS's Table 4; transfer: Table 5; knowledge: Fig. 2 and Fig. 3a")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$", description="the study's id: the beginning of its searches' names")
    base: dict[str, JsonValue] = Field(description="a run's configuration without `name` and `seed`")
    rows: tuple[Row, ...] = Field(
        (), min_length=1, description="rows of the table: names of known ones, or rows of one's own with all their fields; none: those of the paper's table"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    baseline: str | None = Field(None, description="name of the row that the others are compared with; none: the first")
    donor: DonorConfig = DonorConfig()
    best: int = Field(100, ge=1, description="knowledge: architectures of either search whose operators are compared")

    @model_validator(mode="before")
    @classmethod
    def _write_known_rows_in_full(cls, value: Any) -> Any:
        kind = value.get("kind", "ablation") if isinstance(value, dict) else None
        if kind not in KNOWN_ROWS:
            return value
        rows = value.get("rows", DEFAULT_ROWS[kind])
        if not isinstance(rows, list | tuple):
            return value
        return {**value, "rows": [_known(kind, row) if isinstance(row, str) else row for row in rows]}

    @model_validator(mode="after")
    def _is_consistent(self) -> StudyConfig:
        for field in ("name", "seed"):
            if field in self.base:
                raise ValueError(f"base.{field}: rows and seeds give it; remove it")
        changes = {"base": self.base, "donor.set": self.donor.set} | {f"rows: {row.name}: set": row.set for row in self.rows}
        for place, fields in changes.items():
            for field in SECTIONS:
                if not isinstance(fields.get(field), Mapping | None):
                    raise ValueError(f"{place}.{field}: {fields[field]!r} is no mapping of fields; write its fields, such as {SECTIONS[field]}")
        if self.kind != "ablation" and self.donor.search is None and self.donor.seed in self.seeds:
            raise ValueError(f"donor.seed: {self.donor.seed} is one of the rows' seeds, and both would begin with the same draws; give another")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one of {list(self.seeds)} is there twice; keep one of them")
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"rows: one of {names} is there twice; give the second another name")
        for row in self.rows:
            before = names[: names.index(row.name)]
            if row.weights is not None and row.weights not in before:
                raise ValueError(f"rows: {row.name} evolves on the weights of row {row.weights}, which is none of the rows before it {before}; put it there")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: {self.baseline} is none of the rows {names}")
        return self

    @property
    def reference(self) -> str:
        """Name of the row that the others are compared with."""
        return self.baseline or self.rows[0].name

    @property
    def text(self) -> str:
        """Canonical JSON: what steps are given."""
        return canonical_json(self)


def study_config(text: str) -> StudyConfig:
    """The configuration that a step was given as canonical JSON."""
    return parse(StudyConfig, yaml.safe_load(text), source="study")


def load_study_config(path: Path, kind: Kind, overrides: tuple[str, ...] = ()) -> StudyConfig:
    """Read a study's YAML as one of a kind, and apply `key.path=value` overrides.

    A transfer's file serves for `knowledge` too: of its rows, those that it shows are taken.

    Raises:
        ConfigError: one line a wrong field; or the file says that it is of another kind.
    """
    value = load_yaml(path)
    for text in overrides:
        apply_override(value, text)
    written = value.get("kind", kind)
    if written != kind and (written, kind) != ("transfer", "knowledge"):
        raise ConfigError(f"{path}: kind: {written}, so `kfnas prove {kind}` is not for it; use `kfnas prove {written}`, or remove the line")
    if kind == "knowledge" and "rows" in value:
        value = {**value, "rows": _shown(parse(StudyConfig, {**value, "kind": "transfer"}, source=str(path))), "baseline": None}
    study = parse(StudyConfig, {**value, "kind": kind}, source=str(path))
    return study.model_copy(update={"base": with_absolute_store(study.base)})


def with_absolute_store(base: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The fields of a run whose store, if it is a relative folder, is taken from the current folder; what is no text is left for the run to refuse."""
    store = base.get("store", RunConfig.model_fields["store"].default)
    return {**base, "store": absolute(store) if isinstance(store, str) else store}


def _known(kind: str, name: str) -> dict[str, Any]:
    if name not in KNOWN_ROWS[kind]:
        raise ValueError(f"rows: {name} is not known; give its fields too (name, agent, pool, prior, set), or one of {', '.join(KNOWN_ROWS[kind])}")
    return KNOWN_ROWS[kind][name].model_dump(mode="json")


def _shown(transfer: StudyConfig) -> list[dict[str, Any]]:
    """Of a transfer's rows, one with a critic that starts from nothing and one whose critic, and nothing else if possible, starts from the donor's."""
    fresh = [row for row in transfer.rows if not row.needs_donor and row.agent in CRITIC_AGENTS][:1]
    given = sorted((row for row in transfer.rows if row.prior), key=lambda row: row.pool == "donor")[:1]
    if not fresh or not given:
        raise ConfigError(
            "rows: knowledge compares a row with a critic of its own and one with `prior: true`; name both, such as fresh and uac, or no rows at all"
        )
    return [row.model_dump(mode="json") for row in (*fresh, *given)]
