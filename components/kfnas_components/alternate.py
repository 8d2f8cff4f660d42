"""Component: one round of alternating weight and importance steps."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def alternate(config: str, data: Input[Dataset], state: Input[Artifact], next_state: Output[Artifact]) -> None:
    """One round of alternating weight and importance steps."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("alternate"):
        from kfnas.steps.alternate import alternate as step

        step(config, Path(data.path), Path(state.path), Path(next_state.path))
