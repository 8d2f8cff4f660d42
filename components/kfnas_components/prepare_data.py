"""Component: read, check and split a data set, and keep it in the store."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def prepare_data(config: str, data: Output[Dataset]) -> None:
    """Read, check and split a data set, and keep it in the store."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("prepare_data"):
        from kfnas.steps.prepare_data import prepare_data as step

        step(config, Path(data.path))
