"""Component: bring the pool of one store and its copy in another together."""

from kfp import dsl
from kfp.dsl import Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def sync_pool(config: str, other: str, direction: str, metrics: Output[Metrics]) -> None:
    """Bring the pool of one store and its copy in another together."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("sync_pool"):
        from kfnas.steps.sync_pool import sync_pool as step

        step(config, other, direction, Path(metrics.path))
        for name, number in numbers_of(Path(metrics.path)).items():
            metrics.log_metric(name, number)
