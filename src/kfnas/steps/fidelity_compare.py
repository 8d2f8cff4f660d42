"""Step: the figures of a fidelity study, out of its ledger."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kfnas.errors import NotFound
from kfnas.report.study_page import study_files
from kfnas.steps.context import architecture_text, code_version, write_json
from kfnas.steps.fidelity_children import FidelityPlan, PlannedChild, Study, open_study, read_plan
from kfnas.steps.fidelity_plan import plan_of
from kfnas.steps.fidelity_pool import PoolUse, pool_use, with_pool_children
from kfnas.steps.fidelity_report import Spent, fidelity_report
from kfnas.steps.study_tracking import track_study
from kfnas.studies.fidelity import Accuracies, Fidelity, Proxy, fidelity_of
from kfnas.tracking import StudyView

logger = logging.getLogger(__name__)
_BOOTSTRAP = 7


def fidelity_compare(config: str, pooled: Path, metrics: Path, page: Path) -> None:
    """Write the study's figures to `metrics` and its report to `page`, and show both to the tracker.

    Raises:
        NotFound: a training is missing: a shard did not run.
        UserError: too few trainings succeeded.
    """
    study, planned = open_study(config), read_plan(pooled)
    outcome = _outcome(study, planned)
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(outcome.files["report.html"])
    view = StudyView(
        study_id=study.config.name,
        kind="fidelity",
        metrics=outcome.numbers,
        config=study.config.model_dump(mode="json"),
        num_finished=len(planned.children),
        state="finished",
        code_version=code_version(),
    )
    tracked = track_study(study.any_run, view, outcome.files)
    failings = outcome.figures.failings
    logger.info("study %s: %s", study.config.name, "; ".join(failings) or "passes")
    write_json(metrics, {"metrics": outcome.numbers, "failings": failings, "tracked": tracked})


def write_fidelity_report(config: str, page: Path) -> Fidelity:
    """Write the report of a study whose trainings are done, from its store alone; its figures.

    Raises:
        NotFound: a training is missing.
        UserError: too few trainings succeeded.
    """
    study = open_study(config)
    used = _pool_use(study)  # first of all: a report begins no study
    study.require_own()
    outcome = _outcome(study, with_pool_children(study, plan_of(study), used))
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(outcome.files["report.html"])
    page.with_suffix(".csv").write_bytes(outcome.files["children.csv"])
    return outcome.figures


class _Outcome(NamedTuple):
    figures: Fidelity
    numbers: dict[str, float]
    files: dict[str, bytes]


def _outcome(study: Study, planned: FidelityPlan) -> _Outcome:
    used = _pool_use(study)
    records = {child.id: study.record_of(child) for child in planned.children}
    figures = fidelity_of(
        accuracies_of(study, planned, records), study.config.criterion.criterion(), rng=np.random.default_rng([study.config.seed, _BOOTSTRAP])
    )
    spent = Spent.of(records.values())
    numbers = numbers_of(figures, used) | {"study/device_seconds": spent.device_seconds, "study/num_epochs": float(spent.num_epochs)}
    files = study_files(fidelity_report(study, planned, figures, used, spent))
    files["children.csv"] = _children_table(study, planned.children, records)
    return _Outcome(figures, numbers, files)


def _pool_use(study: Study) -> PoolUse:
    used = pool_use(study)
    if used is None:
        raise NotFound(f"study {study.config.name!r}: its pool was not filled; run the study again")
    return used


def accuracies_of(study: Study, planned: FidelityPlan, records: dict[str, dict[str, Any]]) -> Accuracies:
    """What the ledger holds, as arrays; NaN where a training failed."""

    def accuracy(child: PlannedChild) -> float:
        value = records[child.id]["accuracy"]
        return float("nan") if value is None else float(value)

    num = study.config.architectures
    truth = np.full((num, study.config.truth.seeds), np.nan)
    for child in planned.of("truth"):
        truth[child.index, child.replicate] = accuracy(child)
    proxies: dict[Proxy, np.ndarray] = {}
    for child in (*planned.of("random"), *planned.of("pool")):
        proxy = Proxy("pool" if child.role == "pool" else "random", child.epochs)
        proxies.setdefault(proxy, np.full(num, np.nan))[child.index] = accuracy(child)
    return Accuracies(truth, proxies)


def numbers_of(figures: Fidelity, used: PoolUse) -> dict[str, float]:
    """The figures as metrics, `group/name_unit`; each correlation with its interval."""
    numbers = {
        "fidelity/num_architectures": float(figures.num_architectures),
        "fidelity/num_dropped": float(figures.num_dropped),
        "fidelity/truth_agreement": figures.mean_agreement,
        "fidelity/truth_spread": figures.spread[0],
        "fidelity/seed_spread": figures.spread[1],
        "fidelity/difference": figures.difference.mid,
        "fidelity/difference_low": figures.difference.low,
        "fidelity/difference_high": figures.difference.high,
        "fidelity/passes": float(figures.passes),
        "pool/match_ratio": used.match_ratio,
        "pool/hit_ratio": used.hits / used.queried,
        "pool/similarity": used.similarity,
        "pool/entries": float(used.entries),
        "pool/problems": float(len(used.problems)),
    }
    if figures.equivalent_epoch is not None:
        numbers["fidelity/equivalent_epoch"] = figures.equivalent_epoch
    for ranked in figures.proxies:
        name = f"{ranked.proxy.initialisation}_epoch_{ranked.proxy.epochs}"
        for kind, value in (("spearman", ranked.spearman), ("kendall", ranked.kendall)):
            numbers |= {f"fidelity/{kind}_{name}": value.value, f"fidelity/{kind}_{name}_low": value.low, f"fidelity/{kind}_{name}_high": value.high}
        numbers[f"fidelity/accuracy_{name}"] = ranked.accuracy
    return numbers


def _children_table(study: Study, children: tuple[PlannedChild, ...], records: dict[str, dict[str, Any]]) -> bytes:
    """Every training as CSV, to compute other statistics from."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "role", "architecture", "epochs", "replicate", "seed", "status", "accuracy", "device_seconds", "child_key"])
    space = study.any_run.space
    for child in children:
        record = records[child.id]
        writer.writerow(
            [
                child.id,
                child.role,
                architecture_text(space, child.tokens),
                child.epochs,
                child.replicate,
                child.seed,
                record["status"],
                record["accuracy"],
                f"{record['device_seconds']:.3f}",
                child.key,
            ]
        )
    return out.getvalue().encode()
