"""Component: train one finalist from scratch."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def retrain(config: str, data: Input[Dataset], finalist: str, model: Output[Model]) -> None:
    """Train one finalist from scratch."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("retrain"):
        from kfnas.steps.retrain import retrain as step

        step(config, Path(data.path), finalist, Path(model.path))
