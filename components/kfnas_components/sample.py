"""Component: the controller draws a batch of candidates."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def sample(config: str, state: Input[Artifact], batch: Output[Artifact], next_state: Output[Artifact]) -> None:
    """The controller draws a batch of candidates."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("sample"):
        from kfnas.steps.sample import sample as step

        step(config, Path(state.path), Path(batch.path), Path(next_state.path))
