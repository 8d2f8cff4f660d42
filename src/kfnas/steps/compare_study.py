"""Step: what the searches of a study have come to, side by side: table, figures, page, and the study's run in the tracker."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from kfnas.errors import NotFound, SpaceError
from kfnas.report.study_page import StudyReport, study_files
from kfnas.steps.config import RunConfig, run_config
from kfnas.steps.context import Run, code_version, open_run, write_json
from kfnas.steps.study import StudyPlan, plan_study
from kfnas.steps.study_config import StudyConfig, study_config
from kfnas.steps.study_knowledge import compare_knowledge, knowledge_metrics, knowledge_report, operator_records
from kfnas.steps.study_report import study_report
from kfnas.steps.study_results import RowResult, SearchResult, require_search, row_results, search_result
from kfnas.steps.study_tables import as_csv, study_metrics, summaries, table_records
from kfnas.steps.study_tracking import track_study
from kfnas.tracking import StudyView

logger = logging.getLogger(__name__)
PAGE = "report.html"


def study_blob(study: StudyConfig, path: str) -> str:
    """Key of a study's file in the store of its searches: the newest comparison, for whoever cannot read a pipeline's artifacts."""
    return f"studies/{study.name}-{study.kind}/{path}"


def compare_study(study: str, metrics: Path, page: Path) -> None:
    """Write the study's metrics to `metrics`, a JSON mapping of names to numbers, and its page to `page`; both, with tables and figures, to the store and the
    tracker too.

    Searches that are not finished, or do not exist yet, are shown as such: a study may be compared at any time.

    Raises:
        NotFound: the donor's search, which the configuration says exists, does not.
        ConfigMismatch: a search was started with another configuration than the study has now.
    """
    config = study_config(study)
    plan = plan_study(config)
    rows = row_results(plan)
    donor = _donor(config, plan)
    values, tables, report = _compared(config, plan, rows, donor)
    files = {**study_files(report), **tables, "study.json": json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True).encode()}
    searches = [search for row in rows for search in row.searches]
    view = StudyView(
        study_id=f"{config.name}-{config.kind}",
        kind=config.kind,
        metrics=values,
        config=config.model_dump(mode="json"),
        searches=tuple(search.name for search in ([donor] if donor is not None else []) + searches if search.view is not None),
        num_finished=sum(search.state == "finished" for search in searches),
        state=report.state,
        code_version=code_version(),
    )
    run = open_run(plan.variants[0].config.text)
    for name, data in files.items():
        run.store.put(study_blob(config, name), data)
    tracked = track_study(run, view, files)
    logger.info("study %s: %d of %d searches finished%s", config.name, view.num_finished, len(searches), "" if tracked else ", not tracked")
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(files[PAGE])
    write_json(metrics, {"num_finished": view.num_finished, "num_searches": len(searches), "tracked": tracked, "metrics": values})


def _compared(
    config: StudyConfig, plan: StudyPlan, rows: list[RowResult], donor: SearchResult | None
) -> tuple[dict[str, float], dict[str, bytes], StudyReport]:
    if config.kind == "knowledge":
        assert donor is not None
        space = open_run(plan.variants[0].config.text).space
        if config.donor.search is not None:
            theirs = _existing(plan.variants[0].config, config.donor.search).space
            if theirs.digest != space.digest:
                raise SpaceError(
                    f"donor.search: {config.donor.search} searched {theirs.name!r}, and the rows search {space.name!r}; operators compare in one space alone"
                )
        found = compare_knowledge(config, space, donor, rows)
        return knowledge_metrics(found), _tables("operators", operator_records(found)), knowledge_report(config, rows, donor, found)
    table = summaries(rows, config.reference)
    return study_metrics(table), _tables("rows", table_records(table)), study_report(config, rows, table, donor)


def _tables(name: str, records: list[dict[str, Any]]) -> dict[str, bytes]:
    return {f"tables/{name}.csv": as_csv(records), f"tables/{name}.json": json.dumps(records, indent=2).encode()}


def _donor(config: StudyConfig, plan: StudyPlan) -> SearchResult | None:
    """The search that rows start from: the study's own, begun or not, or the one that it names."""
    if plan.donor is not None:
        return search_result(open_run(plan.donor.text))
    if config.donor.search is None:
        return None
    return require_search(_existing(plan.variants[0].config, config.donor.search))


def _existing(base: RunConfig, name: str) -> Run:
    """A search of the same store by its name, with the configuration that it was started with."""
    run = open_run(base.model_copy(update={"name": name}).text)
    head = run.searches.head()
    if head is None:
        raise NotFound(f"donor.search: no search {name!r} in {run.store.uri}; run it first, or leave donor.search out to have the study run one")
    return Run(run_config(head.config).model_copy(update={"name": name, "store": base.store}), run.store)
