"""Component: what each candidate costs, before training, and which shard trains it."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def measure_latency(config: str, data: Input[Dataset], state: Input[Artifact], batch: Input[Artifact], plan: Output[Artifact]) -> list[str]:
    """What each candidate costs, before training, and which shard trains it."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("measure_latency"):
        from kfnas.steps.measure_latency import measure_latency as step

        return step(config, Path(data.path), Path(state.path), Path(batch.path), Path(plan.path))
