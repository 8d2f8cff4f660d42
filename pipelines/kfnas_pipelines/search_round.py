"""One round of a search as a nested pipeline: a state goes in, the next state comes out.

What kfp.local and the clusters together allow shapes it. A loop's body reads its item, pipeline parameters and artifacts, never another task's output
parameter (kfp.local would hand it the loop item instead). `update` waits for the loop by `.after`, not by collecting the shards' artifacts: it reads the
children from the store, and a cluster bears only some hundred collected artifacts. The nested pipeline takes `config` as well as artifacts, since one with
artifact inputs alone fails on kfp.local.

With a pool the round asks it once, before anything is trained, and puts the children's blocks into it before the update: the update is what closes a round, so
a run that takes up a killed one does again whatever the pool lacks.
"""

from collections.abc import Callable

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, PipelineTask

from kfnas_components.finish_round import finish_round
from kfnas_components.measure_latency import measure_latency
from kfnas_components.pull_pool import pull_pool
from kfnas_components.push_pool import push_pool
from kfnas_components.sample import sample
from kfnas_components.train_children import train_children
from kfnas_components.update import update
from kfnas_pipelines.environment import Environment

PLAIN = "Sample, measure, train, update: one round of a search."
POOLED = "Sample, measure, pull from the pool, train, push to the pool, update: one round of a search with a pool."


def build_search_round(parallelism: int, environment: Environment, *, pooled: bool = False) -> Callable[..., PipelineTask]:
    """The pipeline of one round, whose shards train at most `parallelism` at a time; `pooled` for a configuration with a pool."""
    place = environment.place

    @dsl.pipeline(name="search-round", description=POOLED if pooled else PLAIN)
    def search_round(config: str, data: Input[Dataset], state: Input[Artifact]) -> Artifact:
        sampled = place(sample(config=config, state=state), "control")
        opened = sampled.outputs["next_state"]
        measured = place(measure_latency(config=config, data=data, state=opened, batch=sampled.outputs["batch"]), "measure")
        plan = measured.outputs["plan"]
        if pooled:
            plan = place(pull_pool(config=config, data=data, state=opened, plan=plan), "control").outputs["pooled"]
        with dsl.ParallelFor(measured.outputs["Output"], parallelism=parallelism) as shard:
            done = place(train_children(config=config, data=data, plan=plan, shard=shard), "train")
        if pooled:
            done = place(push_pool(config=config, data=data, state=opened, plan=plan), "control").after(done)
        updated = place(update(config=config, state=opened, plan=plan), "control").after(done)
        place(finish_round(config=config, state=updated.outputs["next_state"]), "control")
        return updated.outputs["next_state"]

    return search_round
