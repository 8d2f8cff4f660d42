"""Component: bring the tracked run up to date with the search."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def finish_round(config: str, state: Input[Artifact], metrics: Output[Metrics]) -> None:
    """Bring the tracked run up to date with the search."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("finish_round"):
        from kfnas.steps.finish_round import finish_round as step

        step(config, Path(state.path), Path(metrics.path))
        for name, number in numbers_of(Path(metrics.path)).items():
            metrics.log_metric(name, number)
