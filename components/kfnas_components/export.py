"""Component: a trained finalist as an ONNX model."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def export(config: str, data: Input[Dataset], model: Input[Model], onnx: Output[Model]) -> None:
    """A trained finalist as an ONNX model."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("export"):
        from kfnas.steps.export import export as step

        step(config, Path(data.path), Path(model.path), Path(onnx.path))
