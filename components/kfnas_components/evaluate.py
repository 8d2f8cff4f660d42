"""Component: evaluate a trained finalist on the test set."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def evaluate(config: str, data: Input[Dataset], model: Input[Model], metrics: Output[Metrics]) -> None:
    """Evaluate a trained finalist on the test set."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("evaluate"):
        from kfnas.steps.evaluate import evaluate as step

        step(config, Path(data.path), Path(model.path), Path(metrics.path))
        for name, number in numbers_of(Path(metrics.path)).items():
            metrics.log_metric(name, number)
