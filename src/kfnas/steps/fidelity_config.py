"""The configuration of a fidelity study: what is trained long for the truth, what shortly as proxies, and what fills the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, JsonValue, model_validator

from kfnas.config import Config, canonical_json, digest_of, load_yaml, parse
from kfnas.steps.config import LOCATION_FIELDS, RunConfig, apply_override, complete
from kfnas.steps.study_config import with_absolute_store
from kfnas.studies.fidelity import Criterion

GIVEN_FIELDS = ("name", "seed", "pool", "prior")


class TruthConfig(Config):
    """The long training, from random weights, whose mean over seeds counts as the truth."""

    epochs: int = Field(10, ge=1)
    seeds: int = Field(3, ge=2)


class DonorsConfig(Config):
    """What fills the pool: other architectures, trained from random weights on images that no other child of the study is trained or scored on."""

    architectures: int = Field(60, ge=1)
    epochs: int = Field(10, ge=1)
    floor: float = Field(0.6, ge=0, le=1, description="cosine similarity of two blocks' one-hot decisions from which on a match counts")
    min_match: float = Field(0.99, gt=0, le=1, description="share of all blocks that must match for a search to start from the pool at all; less is reported")
    fixed_parts: bool = Field(True, description="whether stem and head come from the pool too; the classifier never does")


class CriterionConfig(Config):
    """When the pool is good enough: see `kfnas.studies.fidelity.Criterion`."""

    pool_epoch: int = Field(1, ge=1)
    random_epoch: int = Field(2, ge=1)
    tolerance: float = Field(0.1, ge=0, le=2)
    min_agreement: float = Field(0.7, ge=-1, le=1)

    def criterion(self) -> Criterion:
        """The same for the statistics."""
        return Criterion(self.pool_epoch, self.random_epoch, self.tolerance, self.min_agreement)


class FidelityConfig(Config):
    """A study of how well short trainings rank architectures, from random weights and from a pool's. `kfnas prove fidelity` runs it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$", description="the study's id: its folder in the store, its pool and its run")
    seed: int = Field(0, ge=0, lt=2**31, description="of the choice of architectures, the split and every training")
    base: dict[str, JsonValue] = Field(
        description="a run's configuration, of which task, space, proxy (without epochs), store, tracking and execution (shards, workers) are used"
    )
    architectures: int = Field(60, ge=3, description="children that are ranked, drawn at random from the space")
    epochs: tuple[int, ...] = Field((1, 2, 3, 4), min_length=1, description="lengths of the short trainings, each with a learning-rate schedule of its own")
    truth: TruthConfig = TruthConfig()
    donors: DonorsConfig = DonorsConfig()
    criterion: CriterionConfig = CriterionConfig()

    @model_validator(mode="after")
    def _is_consistent(self) -> FidelityConfig:
        for field in GIVEN_FIELDS:
            if field in self.base:
                raise ValueError(f"base.{field}: the study gives it; remove it")
        proxy = self.base.get("proxy", {})
        for field in ("epochs", "steps"):
            if isinstance(proxy, dict) and field in proxy:
                raise ValueError(f"base.proxy.{field}: the study gives it (epochs, truth.epochs, donors.epochs); remove it")
        if len(set(self.epochs)) < len(self.epochs) or min(self.epochs) < 1:
            raise ValueError(f"epochs: {list(self.epochs)} are not different whole numbers from 1; give each once")
        for field, value in (("pool_epoch", self.criterion.pool_epoch), ("random_epoch", self.criterion.random_epoch)):
            if value not in self.epochs:
                raise ValueError(f"criterion.{field}: {value} is none of epochs {list(self.epochs)}; add it there")
        return self

    def run(self, epochs: int) -> RunConfig:
        """A run of this study's data and space whose children are trained for so many epochs.

        Raises:
            ConfigError: one line a wrong field of `base`.
        """
        proxy = self.base.get("proxy") or {}
        fields = {**self.base, "proxy": {**proxy, "epochs": epochs} if isinstance(proxy, dict) else proxy}
        return complete(parse(RunConfig, {**fields, "name": self.name, "seed": self.seed}, source="base"), source="base")

    @property
    def text(self) -> str:
        """Canonical JSON: what steps are given."""
        return canonical_json(self)

    @property
    def digest(self) -> str:
        """Digest of what determines the result: all but where state is kept, where it is tracked and how work is cut up."""
        value = self.model_dump(mode="json")
        value["base"] = {field: item for field, item in value["base"].items() if field not in LOCATION_FIELDS}
        return digest_of(value)


def fidelity_config(text: str) -> FidelityConfig:
    """The configuration that a step was given as canonical JSON."""
    return parse(FidelityConfig, yaml.safe_load(text), source="study")


def load_fidelity_config(path: Path, overrides: tuple[str, ...] = ()) -> FidelityConfig:
    """Read a study's YAML, apply `key.path=value` overrides, and check everything that can be checked without data. A relative store is taken from the
    current folder.

    Raises:
        ConfigError: one line a wrong field.
    """
    value: dict[str, Any] = load_yaml(path)
    for override in overrides:
        apply_override(value, override)
    study = parse(FidelityConfig, value, source=str(path))
    study = study.model_copy(update={"base": with_absolute_store(study.base)})
    study.run(study.truth.epochs)
    return study
