"""Component: the latency of every operator of the space on this machine."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def latency_table(config: str, data: Input[Dataset], table: Output[Artifact], metrics: Output[Metrics]) -> None:
    """The latency of every operator of the space on this machine."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("latency_table"):
        from kfnas.steps.latency_table import latency_table as step

        step(config, Path(data.path), Path(table.path))
        for name, number in numbers_of(Path(table.path)).items():
            metrics.log_metric(name, number)
