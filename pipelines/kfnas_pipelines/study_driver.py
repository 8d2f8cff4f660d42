"""A study on one machine: its searches one after another, each held and driven like any other, then the comparison.

Kill it anywhere and run it again: what is finished is not run again, and a search that was under way goes on where it stands.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kfnas.errors import BudgetError, ConfigError
from kfnas.steps.compare_study import PAGE, study_blob
from kfnas.steps.config import RunConfig, run_config
from kfnas.steps.context import open_run
from kfnas.steps.pool_rounds import open_pool
from kfnas.steps.status import progress
from kfnas.steps.study import StudyPlan, plan_study
from kfnas.steps.study_config import StudyConfig
from kfnas.storage import SearchStore
from kfnas_pipelines.driver import default_log_folder, drive
from kfnas_pipelines.pipeline_process import PipelineProcess
from kfnas_pipelines.study_pipelines import compile_compare_study

logger = logging.getLogger(__name__)
Drive = Callable[[RunConfig], object]
Tell = Callable[[str], None]
WAIT_SECONDS = 0.5


def prove(study: StudyConfig, *, tell: Tell, drive_search: Drive | None = None) -> Path:
    """Run a study to its end and write its page; the page's path.

    A search that finds no architecture within the budget is a result, and the study goes on.

    Args:
        study: its configuration.
        tell: is given a line for each search that begins, or is finished already.
        drive_search: runs a search to its end, going on where it stands; the local driver when not given.

    Raises:
        ConfigError: the donor that it names is not there, or its rounds are not done: rows would start from different states of it.
        ConfigMismatch: a search of that name was started with another configuration.
        SearchBusy: another live run holds one of the searches.
        RunInterrupted: SIGINT, SIGTERM or SIGHUP; run the same command again to go on.
        KfnasError: what a step raised.
    """
    plan = plan_study(study)
    _check_donor(study, plan)
    driven = drive_search or _drive
    for number, config in enumerate(plan.searches, start=1):
        tell(f"study {study.name}: search {number} of {len(plan.searches)}, {config.name}")
        try:
            driven(config)
        except BudgetError as error:
            if not progress(config.text).searching_done:
                raise
            tell(f"{config.name} ends without a network: {error}")
    return compare(study, plan)


def compare(study: StudyConfig, plan: StudyPlan | None = None) -> Path:
    """Run the pipeline `compare_study` on what there is, finished or not, and write the page where a search's report would stand; its path."""
    base = (plan or plan_study(study)).variants[0].config
    log = default_log_folder(base.model_copy(update={"name": study.name})) / f"{time.strftime('%Y%m%d-%H%M%S')}-compare_study.log"
    with tempfile.TemporaryDirectory(prefix="kfnas-ir-") as folder:
        _run(compile_compare_study(Path(folder) / "compare-study.yaml"), {"study": study.text}, log)
    path = page_path(study, base)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(open_run(base.text).store.get(study_blob(study, PAGE)))
    return path


def page_path(study: StudyConfig, base: RunConfig) -> Path:
    """`reports/STUDY-KIND.html` in a local store; in the working folder when the store is elsewhere."""
    name = f"{study.name}-{study.kind}"
    return Path(f"{name}-report.html") if "://" in base.store else Path(base.store) / "reports" / f"{name}.html"


def _check_donor(study: StudyConfig, plan: StudyPlan) -> None:
    """That an existing donor is there to start from, before hours of rows that do not need it."""
    filled_first = None if plan.donor is None or plan.donor.pool is None else plan.donor.pool.name
    for variant in plan.variants:
        if variant.row.pool != "donor" or variant.config.pool is None or variant.config.pool.name == filled_first:
            continue
        pool = open_pool(open_run(variant.config.text))
        if pool.head().number == 0:
            raise ConfigError(f"donor.pool: pool {variant.config.pool.name!r} in {pool.access.where} holds nothing; fill it first, or leave donor.pool out")
    base = plan.variants[0].config
    store, name = open_run(base.text).store, study.donor.search
    if name is None or not any(variant.config.prior is not None for variant in plan.variants):
        return
    head = SearchStore(store, name).head()
    if head is None:
        raise ConfigError(f"donor.search: no search {name!r} in {store.uri}; give one that is there, or `donor.set` to have one run")
    donor = run_config(head.config).model_copy(update={"store": base.store})  # where it is now, and not where it was made
    if not (state := progress(donor.text)).searching_done:
        raise ConfigError(f"donor.search: {name!r} has done {state.rounds_done} of its {state.rounds_total} rounds; let it end first, or give another")


def _drive(config: RunConfig) -> None:
    drive(config, resume=None)


def _run(pipeline: Path, arguments: Mapping[str, str], log: Path) -> None:
    """One pipeline run, to its end."""
    with PipelineProcess(pipeline, arguments, log) as process:
        while (status := process.wait(WAIT_SECONDS)) is None:
            pass
    if status != 0:
        raise process.failure()
