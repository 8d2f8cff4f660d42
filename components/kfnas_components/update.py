"""Component: give the controller the results of a batch."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def update(config: str, state: Input[Artifact], plan: Input[Artifact], next_state: Output[Artifact]) -> None:
    """Give the controller the results of a batch."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("update"):
        from kfnas.steps.update import update as step

        step(config, Path(state.path), Path(plan.path), Path(next_state.path))
