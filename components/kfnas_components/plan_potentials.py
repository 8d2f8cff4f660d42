"""Component: which partial models are compared next, and which shard scores them."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def plan_potentials(config: str, data: Input[Dataset], state: Input[Artifact], plan: Output[Artifact]) -> list[str]:
    """Which partial models are compared next, and which shard scores them."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("plan_potentials"):
        from kfnas.steps.plan_potentials import plan_potentials as step

        return step(config, Path(data.path), Path(state.path), Path(plan.path))
