"""Component: the figures of a fidelity study."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def fidelity_compare(config: str, pooled: Input[Artifact], metrics: Output[Metrics], page: Output[HTML]) -> None:
    """The figures of a fidelity study."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("fidelity_compare"):
        from kfnas.steps.fidelity_compare import fidelity_compare as step

        step(config, Path(pooled.path), Path(metrics.path), Path(page.path))
        for name, number in numbers_of(Path(metrics.path)).items():
            metrics.log_metric(name, number)
