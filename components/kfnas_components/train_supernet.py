"""Component: train the shared weights as far as the search wants them."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def train_supernet(config: str, data: Input[Dataset], state: Input[Artifact], next_state: Output[Artifact]) -> None:
    """Train the shared weights as far as the search wants them."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("train_supernet"):
        from kfnas.steps.train_supernet import train_supernet as step

        step(config, Path(data.path), Path(state.path), Path(next_state.path))
