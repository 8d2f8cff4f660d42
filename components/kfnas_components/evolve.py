"""Component: evolution on shared weights."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def evolve(config: str, data: Input[Dataset], state: Input[Artifact], next_state: Output[Artifact]) -> None:
    """Evolution on shared weights."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("evolve"):
        from kfnas.steps.evolve import evolve as step

        step(config, Path(data.path), Path(state.path), Path(next_state.path))
