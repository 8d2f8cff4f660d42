"""Component: the run is over; the next one need not wait for its lease."""

from kfp import dsl
from kfp.dsl import Artifact, Input

from kfnas_components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def release_search(config: str, state: Input[Artifact]) -> None:
    """The run is over; the next one need not wait for its lease."""
    from pathlib import Path

    from kfnas.steps.boundary import boundary

    with boundary("release_search"):
        from kfnas.steps.release_search import release_search as step

        step(config, Path(state.path))
