"""Component: open a search, new or begun, and claim it for this run."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def init_search(config: str, run_id: str, job_id: str, data: Input[Dataset], state: Output[Artifact]) -> None:
    """Open a search, new or begun, and claim it for this run."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("init_search"):
        from kfnas.steps.init_search import init_search as step

        step(config, Path(data.path), run_id or job_id, Path(state.path))
