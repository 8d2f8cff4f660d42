"""Component: keep the partial models of the highest potential."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def decide_mixop(config: str, state: Input[Artifact], plan: Input[Artifact], next_state: Output[Artifact]) -> None:
    """Keep the partial models of the highest potential."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("decide_mixop"):
        from kfnas.steps.decide_mixop import decide_mixop as step

        step(config, Path(state.path), Path(plan.path), Path(next_state.path))
