"""Which searches a study consists of, planned from its configuration alone.

A study keeps no state of its own: its searches are found by their names, and each refuses another configuration than its own. So a study that was stopped
goes on where it stands, and one that is given another row or seed keeps what it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from kfnas.config import parse
from kfnas.errors import ConfigError
from kfnas.steps.config import RunConfig, complete
from kfnas.steps.study_config import StudyConfig
from kfnas.studies.variants import Row, derived, derived_donor, donor_name


@dataclass(frozen=True)
class Variant:
    """A row with one seed: a search of its own."""

    row: Row
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class StudyPlan:
    """The searches of a study.

    Attributes:
        donor: the search that must be done before the variants begin; None where none is needed, or it exists already.
        variants: for each seed in turn every row, so that a study that is cut short has whole seeds.
    """

    donor: RunConfig | None
    variants: tuple[Variant, ...]

    @property
    def searches(self) -> tuple[RunConfig, ...]:
        """All of them in the order in which they run."""
        return (*([self.donor] if self.donor is not None else []), *(variant.config for variant in self.variants))


def plan_study(study: StudyConfig) -> StudyPlan:
    """The searches of a study, each checked as `kfnas run` checks it.

    Raises:
        ConfigError: a row makes a configuration that is wrong, or needs a donor that the study does not name, or one that the donor's search cannot serve.
    """
    donor = None
    search, pool = study.donor.search, study.donor.pool
    if search is None and _needs_donor(study):
        donor = _run(derived_donor(study.base, study.donor.set, study=study.name, seed=study.donor.seed), f"study {study.name}, donor")
        search, pool = donor_name(study.name), pool or donor_name(study.name)
    variants = tuple(
        Variant(
            row,
            seed,
            _run(
                derived(study.base, row, study=study.name, seed=seed, donor_search=search, donor_pool=pool),
                f"study {study.name}, row {row.name}",
            ),
        )
        for seed in study.seeds
        for row in study.rows
    )
    if donor is not None:
        _check_donor(donor, variants)
    return StudyPlan(donor, variants)


def _needs_donor(study: StudyConfig) -> bool:
    return study.kind == "knowledge" or any(row.needs_donor for row in study.rows)


def _check_donor(donor: RunConfig, variants: tuple[Variant, ...]) -> None:
    for variant in variants:
        config = variant.config
        if variant.row.needs_donor and donor.space != config.space:
            raise ConfigError(
                f"donor.set: space is {donor.space.model_dump(mode='json')}, and row {variant.row.name} searches {config.space.model_dump(mode='json')}; "
                f"critics and pools are of one space: give both the same"
            )


def _run(fields: dict[str, object], source: str) -> RunConfig:
    return complete(parse(RunConfig, fields, source=source), source=source)
