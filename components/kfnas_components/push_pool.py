"""Component: put the blocks of a batch's trained children into the pool."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def push_pool(config: str, data: Input[Dataset], state: Input[Artifact], plan: Input[Artifact], metrics: Output[Metrics]) -> None:
    """Put the blocks of a batch's trained children into the pool."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("push_pool"):
        from kfnas.steps.push_pool import push_pool as step

        step(config, Path(data.path), Path(state.path), Path(plan.path), Path(metrics.path))
        for name, number in numbers_of(Path(metrics.path)).items():
            metrics.log_metric(name, number)
