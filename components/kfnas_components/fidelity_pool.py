"""Component: a fidelity study's donors into its pool, and initial weights out of it."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def fidelity_pool(config: str, plan: Input[Artifact], pooled: Output[Artifact]) -> list[str]:
    """A fidelity study's donors into its pool, and initial weights out of it."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("fidelity_pool"):
        from kfnas.steps.fidelity_pool import fidelity_pool as step

        return step(config, Path(plan.path), Path(pooled.path))
