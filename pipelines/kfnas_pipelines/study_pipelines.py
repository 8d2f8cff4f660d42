"""A study as pipelines: the rounds of several searches side by side, then their ends, each followed by the comparison.

A study has more rounds than one run may unroll, so it is cut into parts: each takes some searches a few rounds further and compares, and is run again until
its searches are done. The configuration of each search stands in the compiled pipeline once, as the default of a parameter, so that another store or tracker
can be given without compiling again. Nothing orders the searches of one part; a cluster runs them at the same time.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl import PipelineTask, base_component

from kfnas.steps.config import RunConfig
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import StudyConfig
from kfnas_components.compare_study import compare_study
from kfnas_pipelines.environment import LOCAL, Environment
from kfnas_pipelines.finish_search import build_finish_search
from kfnas_pipelines.search_rounds import build_search_rounds
from kfnas_pipelines.supernet_rounds import DESCRIPTIONS, build_supernet_rounds

MAX_UNROLLED = 20
MAX_UNROLLED_WIDE = 8
WIDE_SHARDS = 16
"""About what one workflow holds: 20 rounds of up to 16 shards, or 8 of up to 64."""
OPENING_AND_END = 1
"""Tasks around the rounds of one search, in rounds."""


def build_compare_study(environment: Environment = LOCAL) -> base_component.BaseComponent:
    """The pipeline `compare_study(study)`."""

    @dsl.pipeline(name="kfnas-compare-study", description="What the searches of a study have come to, side by side.")
    def compare(study: str) -> None:
        environment.place(compare_study(study=study), "control")

    return compare


def build_study_rounds(
    study: StudyConfig, searches: Sequence[RunConfig], num_rounds: int, parallelism: int = 0, environment: Environment = LOCAL
) -> base_component.BaseComponent:
    """The pipeline that takes searches of a study `num_rounds` further, each on its own, and then compares.

    Raises:
        ConfigError: a number is out of range.
    """
    kinds = sorted({_kind(config) for config in searches})
    rounds = {kind: _rounds_of(kind, num_rounds, parallelism, environment) for kind in kinds}
    return _side_by_side(
        f"kfnas-study-{study.kind}-rounds",
        "Some rounds of each of a study's searches; the next run goes on where this one ends.",
        study,
        searches,
        lambda config: rounds[_kind(config)],
        environment,
    )


def _kind(config: RunConfig) -> str:
    """Which pipeline makes a search's rounds: an algorithm on one supernet, `pooled` or `plain`."""
    return config.algorithm or ("pooled" if config.pool is not None else "plain")


def _rounds_of(kind: str, num_rounds: int, parallelism: int, environment: Environment) -> base_component.BaseComponent:
    if kind in DESCRIPTIONS:
        return build_supernet_rounds(kind, 1 if kind == "oneshot" else num_rounds, parallelism, environment)
    return build_search_rounds(num_rounds, parallelism, environment, pooled=kind == "pooled")


def build_study_finish(
    study: StudyConfig, searches: Sequence[RunConfig], parallelism: int = 0, environment: Environment = LOCAL
) -> base_component.BaseComponent:
    """The pipeline that ends searches of a study whose rounds are done, and then compares."""
    finish = build_finish_search(parallelism, environment)
    return _side_by_side(
        f"kfnas-study-{study.kind}-finish",
        "The best architectures of each of a study's searches, trained from scratch; then the comparison.",
        study,
        searches,
        lambda config: finish,
        environment,
    )


def compile_compare_study(path: Path, environment: Environment = LOCAL) -> Path:
    """Write `compare_study` to `path`."""
    return _compile(build_compare_study(environment), path)


def compile_study(folder: Path, study: StudyConfig, environment: Environment, *, num_rounds: int = 3, parallelism: int = 0) -> list[Path]:
    """Write every pipeline of a study into a folder; return the files in the order in which they are to be run.

    Those of the donor come first: its rounds must be done before any other search begins.

    Raises:
        ConfigError: the study is wrong, or a number out of range.
    """
    plan = plan_study(study)
    files = []
    if plan.donor is not None:
        files.append(_compile(build_study_rounds(study, [plan.donor], num_rounds, parallelism, environment), folder / f"{study.name}-donor-rounds.yaml"))
    # Searches that take the weights of others come when those are done.
    first, later = ([variant.config for variant in plan.variants if (variant.row.weights is not None) == takes] for takes in (False, True))
    parts = [*_parts(first, num_rounds), *_parts(later, num_rounds)]
    for number, searches in enumerate(parts, start=1):
        files.append(_compile(build_study_rounds(study, searches, num_rounds, parallelism, environment), folder / f"{study.name}-rounds-{number}.yaml"))
    ends = [*([[plan.donor]] if plan.donor is not None else []), *parts]
    for number, searches in enumerate(ends, start=1):
        files.append(_compile(build_study_finish(study, searches, parallelism, environment), folder / f"{study.name}-finish-{number}.yaml"))
    return files


def _parts(searches: Sequence[RunConfig], num_rounds: int) -> list[list[RunConfig]]:
    """Searches in the order of the plan, as many together as one workflow holds."""
    wide = any(config.execution.shards > WIDE_SHARDS for config in searches)
    together = max(1, (MAX_UNROLLED_WIDE if wide else MAX_UNROLLED) // (num_rounds + OPENING_AND_END))
    return [list(searches[start : start + together]) for start in range(0, len(searches), together)]


def _side_by_side(
    name: str,
    description: str,
    study: StudyConfig,
    searches: Sequence[RunConfig],
    pipeline_of: Callable[[RunConfig], base_component.BaseComponent],
    environment: Environment,
) -> base_component.BaseComponent:
    def side_by_side(study: str, run_id: str, *configs: str) -> None:
        tasks: list[PipelineTask] = []
        for search, config in zip(searches, configs, strict=True):
            tasks.append(pipeline_of(search)(config=config, run_id=run_id).set_display_name(search.name))
        environment.place(compare_study(study=study), "control").after(*tasks)

    side_by_side.__signature__ = _signature(study, searches)  # type: ignore[attr-defined]
    return dsl.pipeline(name=name, description=description)(side_by_side)


def _signature(study: StudyConfig, searches: Sequence[RunConfig]) -> inspect.Signature:
    """Parameters `study`, `run_id` and one for each search, each with its default: kfp reads them off the function."""
    defaults = {"study": study.text, "run_id": "", **{f"config_{number}": config.text for number, config in enumerate(searches, start=1)}}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind, default=default, annotation=str) for name, default in defaults.items()])


def _compile(pipeline: base_component.BaseComponent, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))
    return path
