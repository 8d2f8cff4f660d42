"""Component: what each operator costs, from a latency table of this machine or counted."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def operator_costs(config: str, data: Input[Dataset], state: Input[Artifact], costs: Output[Artifact], metrics: Output[Metrics]) -> None:
    """What each operator costs, from a latency table of this machine or counted."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary, numbers_of

    with boundary("operator_costs"):
        from kfnas.steps.operator_costs import operator_costs as step

        step(config, Path(data.path), Path(state.path), Path(costs.path))
        for name, number in numbers_of(Path(costs.path)).items():
            metrics.log_metric(name, number)
