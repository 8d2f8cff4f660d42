"""Component: how the children of a batch start, from the pool's blocks or at random."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def pull_pool(config: str, data: Input[Dataset], state: Input[Artifact], plan: Input[Artifact], pooled: Output[Artifact]) -> None:
    """How the children of a batch start, from the pool's blocks or at random."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("pull_pool"):
        from kfnas.steps.pull_pool import pull_pool as step

        step(config, Path(data.path), Path(state.path), Path(plan.path), Path(pooled.path))
