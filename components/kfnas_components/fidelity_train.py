"""Component: train one shard of a fidelity study."""

from kfp import dsl
from kfp.dsl import Artifact, Input

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def fidelity_train(config: str, plan: Input[Artifact], shard: str) -> None:
    """Train one shard of a fidelity study."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("fidelity_train"):
        from kfnas.steps.fidelity_train import fidelity_train as step

        step(config, Path(plan.path), shard)
