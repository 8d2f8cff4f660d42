"""Component: the potentials of one shard of partial models."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def score_potentials(config: str, data: Input[Dataset], plan: Input[Artifact], shard: str, results: Output[Artifact]) -> None:
    """The potentials of one shard of partial models."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("score_potentials"):
        from kfnas.steps.score_potentials import score_potentials as step

        step(config, Path(data.path), Path(plan.path), shard, Path(results.path))
