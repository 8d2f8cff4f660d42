"""Component: register the final models and sum the search up."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def register(config: str, state: Input[Artifact], summary: Output[Artifact], page: Output[HTML]) -> None:
    """Register the final models and sum the search up."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("register"):
        from kfnas.steps.register import register as step

        step(config, Path(state.path), Path(summary.path), Path(page.path))
