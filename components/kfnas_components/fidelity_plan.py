"""Component: what a fidelity study trains."""

from kfp import dsl
from kfp.dsl import Artifact, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def fidelity_plan(config: str, plan: Output[Artifact]) -> list[str]:
    """What a fidelity study trains."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("fidelity_plan"):
        from kfnas.steps.fidelity_plan import fidelity_plan as step

        return step(config, Path(plan.path))
