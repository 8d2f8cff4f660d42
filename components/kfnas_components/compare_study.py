"""Component: the searches of a study side by side: table, figures, page."""

from kfp import dsl
from kfp.dsl import HTML, Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def compare_study(study: str, metrics: Output[Metrics], page: Output[HTML]) -> None:
    """The searches of a study side by side: table, figures, page."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("compare_study"):
        from kfnas.steps.compare_study import compare_study as step

        step(study, Path(metrics.path), Path(page.path))
        for name, number in numbers_of(Path(metrics.path)).items():
            metrics.log_metric(name, number)
