"""The pipelines of the searches on one supernet: `pcnas_search`, `betanas_search` and `oneshot_search`.

Each takes what operators cost (a latency table, measured once on a machine that takes latencies, or a count), and then makes some rounds, unrolled as those
of `search_rounds` are and for the same reasons. It is run again until the search has all its rounds; `finish_search` ends it. The shared weights
are in the search's store: what goes from task to task is a pointer to the state. A training that a cluster evicts goes on from its last checkpoint when the
pipeline runs again.
"""

from collections.abc import Callable

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, PipelineTask, base_component

from kfnas.errors import ConfigError
from kfnas_components.alternate import alternate
from kfnas_components.decide_mixop import decide_mixop
from kfnas_components.evolve import evolve
from kfnas_components.finish_round import finish_round
from kfnas_components.init_search import init_search
from kfnas_components.operator_costs import operator_costs
from kfnas_components.plan_potentials import plan_potentials
from kfnas_components.prepare_data import prepare_data
from kfnas_components.release_search import release_search
from kfnas_components.score_potentials import score_potentials
from kfnas_components.train_supernet import train_supernet
from kfnas_pipelines.environment import LOCAL, Environment, check_parallelism
from kfnas_pipelines.search_rounds import check_rounds

DESCRIPTIONS = {
    "pcnas": "Some rounds of PC-NAS, each of which decides one mixed operator; the next run goes on where this one ends.",
    "betanas": "Some rounds of BetaNAS, alternations of weight and importance steps; the next run goes on where this one ends.",
    "oneshot": "One-shot training along uniform paths, and evolution on the shared weights.",
}


def build_supernet_rounds(algorithm: str, num_rounds: int, parallelism: int = 2, environment: Environment = LOCAL) -> base_component.BaseComponent:
    """The pipeline `<algorithm>_search(config, run_id)` of `num_rounds` rounds (1 to 20); its arguments are those of `search_rounds`.

    Args:
        algorithm: `pcnas | betanas | oneshot`; that of the configuration which the pipeline is given.
        num_rounds: rounds of one run. The one-shot search has one in all.
        parallelism: shards of potentials that are scored at the same time; 0 for no limit. kfp.local runs two at most.
        environment: image, resources and secrets of the tasks.

    Raises:
        ConfigError: a number is out of range, or the algorithm is none of these.
    """
    if algorithm not in DESCRIPTIONS:
        raise ConfigError(f"algorithm {algorithm} does not search on one supernet; give one of {', '.join(DESCRIPTIONS)}, or build search_rounds")
    check_rounds(num_rounds)
    check_parallelism(parallelism)
    place = environment.place
    supernet_round = _build_round(algorithm, parallelism, environment)

    @dsl.pipeline(name=f"kfnas-{algorithm}-search", description=DESCRIPTIONS[algorithm])
    def supernet_search(config: str, run_id: str = "") -> None:
        data = place(prepare_data(config=config), "control").outputs["data"]
        claimed = init_search(config=config, run_id=run_id, job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, data=data)
        state = place(claimed, "control").outputs["state"]
        last = place(operator_costs(config=config, data=data, state=state), "measure")
        for _ in range(num_rounds):
            last = supernet_round(config=config, data=data, state=state).after(last)
            state = last.output
        place(release_search(config=config, state=state), "control").after(last)

    return supernet_search


def _build_round(algorithm: str, parallelism: int, environment: Environment) -> Callable[..., PipelineTask]:
    place = environment.place

    @dsl.pipeline(name="pcnas-round", description="Train, score partial models, keep the best: one mixed operator of PC-NAS.")
    def pcnas_round(config: str, data: Input[Dataset], state: Input[Artifact]) -> Artifact:
        trained = place(train_supernet(config=config, data=data, state=state), "train").outputs["next_state"]
        planned = place(plan_potentials(config=config, data=data, state=trained), "control")
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=parallelism) as shard:
            scored = place(score_potentials(config=config, data=data, plan=planned.outputs["plan"], shard=shard), "train")
        decided = place(decide_mixop(config=config, state=trained, plan=planned.outputs["plan"]), "control").after(scored)
        place(finish_round(config=config, state=decided.outputs["next_state"]), "control")
        return decided.outputs["next_state"]

    @dsl.pipeline(name="betanas-round", description="Alternate weight and importance steps: one round of BetaNAS.")
    def betanas_round(config: str, data: Input[Dataset], state: Input[Artifact]) -> Artifact:
        alternated = place(alternate(config=config, data=data, state=state), "train")
        place(finish_round(config=config, state=alternated.outputs["next_state"]), "control")
        return alternated.outputs["next_state"]

    @dsl.pipeline(name="oneshot-round", description="Train along uniform paths, then evolve on the shared weights.")
    def oneshot_round(config: str, data: Input[Dataset], state: Input[Artifact]) -> Artifact:
        trained = place(train_supernet(config=config, data=data, state=state), "train").outputs["next_state"]
        evolved = place(evolve(config=config, data=data, state=trained), "train")
        place(finish_round(config=config, state=evolved.outputs["next_state"]), "control")
        return evolved.outputs["next_state"]

    rounds: dict[str, Callable[..., PipelineTask]] = {"pcnas": pcnas_round, "betanas": betanas_round, "oneshot": oneshot_round}
    return rounds[algorithm]
