"""The pipeline that a search is a sequence of: some rounds, one after another.

KFP has no loop over a state, so the rounds are unrolled when the pipeline is compiled; how many fit in one run is limited by a workflow's size on a
cluster. Where the search stands is in the store: the next run of the same pipeline goes on from there.
"""

from kfp import dsl
from kfp.dsl import base_component

from kfnas.errors import ConfigError
from kfnas_components.init_search import init_search
from kfnas_components.prepare_data import prepare_data
from kfnas_components.release_search import release_search
from kfnas_pipelines.environment import LOCAL, Environment, check_parallelism
from kfnas_pipelines.search_round import build_search_round

MAX_ROUNDS = 20


def check_rounds(num_rounds: int) -> None:
    """Refuse a number of rounds that one pipeline run cannot have.

    Raises:
        ConfigError: it is not 1 to 20.
    """
    if not 1 <= num_rounds <= MAX_ROUNDS:
        raise ConfigError(
            f"rounds of one pipeline run must be 1 to {MAX_ROUNDS}, not {num_rounds}: more make a workflow too large; a search goes on in its next run"
        )


def build_search_rounds(num_rounds: int, parallelism: int = 2, environment: Environment = LOCAL, *, pooled: bool = False) -> base_component.BaseComponent:
    """The pipeline `search_rounds(config, run_id)` of `num_rounds` rounds (1 to 20).

    `config` is a RunConfig as canonical JSON. `run_id` says who holds the search: an Owner as JSON for a local driver, anything unique on a cluster; empty
    means the id that the cluster gives the run. Rounds beyond the search's own number go through with nothing to do.

    Args:
        num_rounds: rounds of one run.
        parallelism: shards of a batch that train at the same time; 0 for no limit. kfp.local runs two at most.
        environment: image, resources and secrets of the tasks.
        pooled: with the steps that a configuration's `pool` needs; without them it is not read.

    Raises:
        ConfigError: a number is out of range.
    """
    check_rounds(num_rounds)
    check_parallelism(parallelism)
    place = environment.place
    search_round = build_search_round(parallelism, environment, pooled=pooled)
    name = "kfnas-search-rounds-pooled" if pooled else "kfnas-search-rounds"

    @dsl.pipeline(name=name, description="Some rounds of an architecture search; the next run goes on where this one ends.")
    def search_rounds(config: str, run_id: str = "") -> None:
        data = place(prepare_data(config=config), "control").outputs["data"]
        claimed = init_search(config=config, run_id=run_id, job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, data=data)
        state = place(claimed, "control").outputs["state"]
        for _ in range(num_rounds):
            last = search_round(config=config, data=data, state=state)
            state = last.output
        place(release_search(config=config, state=state), "control").after(last)

    return search_rounds
