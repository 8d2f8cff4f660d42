"""Component: choose the networks that are trained from scratch."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def choose_finalists(config: str, data: Input[Dataset], state: Input[Artifact], plan: Output[Artifact]) -> list[str]:
    """Choose the networks that are trained from scratch."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("choose_finalists"):
        from kfnas.steps.choose_finalists import choose_finalists as step

        return step(config, Path(data.path), Path(state.path), Path(plan.path))
