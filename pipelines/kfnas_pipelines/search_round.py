"""One round of a search as a nested pipeline: a state goes in, the next state comes out.

What kfp.local and the clusters together allow shapes it. A loop's body reads its item, pipeline parameters and artifacts, never another task's output
parameter (kfp.local would hand it the loop item instead). `update` waits for the loop by `.after`, not by collecting the shards' artifacts: it reads the
children from the store, and a cluster bears only some hundred collected artifacts. The nested pipeline takes `config` as well as artifacts, since one with
artifact inputs alone fails on kfp.local.
"""

from collections.abc import Callable

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, PipelineTask

from kfnas_components.finish_round import finish_round
from kfnas_components.measure_latency import measure_latency
from kfnas_components.sample import sample
from kfnas_components.train_children import train_children
from kfnas_components.update import update
from kfnas_pipelines.environment import Environment


def build_search_round(parallelism: int, environment: Environment) -> Callable[..., PipelineTask]:
    """The pipeline of one round, whose shards train at most `parallelism` at a time."""
    place = environment.place

    @dsl.pipeline(name="search-round", description="Sample, measure, train, update: one round of a search.")
    def search_round(config: str, data: Input[Dataset], state: Input[Artifact]) -> Artifact:
        sampled = place(sample(config=config, state=state), "control")
        opened = sampled.outputs["next_state"]
        measured = place(measure_latency(config=config, data=data, state=opened, batch=sampled.outputs["batch"]), "measure")
        plan = measured.outputs["plan"]
        with dsl.ParallelFor(measured.outputs["Output"], parallelism=parallelism) as shard:
            trained = place(train_children(config=config, data=data, plan=plan, shard=shard), "train")
        updated = place(update(config=config, state=opened, plan=plan), "control").after(trained)
        place(finish_round(config=config, state=updated.outputs["next_state"]), "control")
        return updated.outputs["next_state"]

    return search_round
