"""Component: train one shard of a batch on the proxy task."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def train_children(config: str, data: Input[Dataset], plan: Input[Artifact], shard: str, results: Output[Artifact]) -> None:
    """Train one shard of a batch on the proxy task."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("train_children"):
        from kfnas.steps.train_children import train_children as step

        step(config, Path(data.path), Path(plan.path), shard, Path(results.path))
