"""The pipeline that ends a search: its best architectures trained from scratch, evaluated, exported and registered."""

from kfp import dsl
from kfp.dsl import base_component

from kfnas_components.choose_finalists import choose_finalists
from kfnas_components.evaluate import evaluate
from kfnas_components.export import export
from kfnas_components.init_search import init_search
from kfnas_components.prepare_data import prepare_data
from kfnas_components.register import register
from kfnas_components.retrain import retrain
from kfnas_pipelines.environment import LOCAL, Environment, check_parallelism


def build_finish_search(parallelism: int = 2, environment: Environment = LOCAL) -> base_component.BaseComponent:
    """The pipeline `finish_search(config, run_id)`; its arguments are those of `search_rounds`.

    Args:
        parallelism: finalists trained at the same time; 0 for no limit. kfp.local runs two at most.
        environment: image, resources and secrets of the tasks.

    Raises:
        ConfigError: parallelism is negative.
    """
    check_parallelism(parallelism)
    place = environment.place

    @dsl.pipeline(name="kfnas-finish-search", description="The best architectures of a search, trained from scratch, evaluated, exported and registered.")
    def finish_search(config: str, run_id: str = "") -> None:
        data = place(prepare_data(config=config), "control").outputs["data"]
        claimed = init_search(config=config, run_id=run_id, job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, data=data)
        state = place(claimed, "control").outputs["state"]
        chosen = place(choose_finalists(config=config, data=data, state=state), "measure")
        with dsl.ParallelFor(chosen.outputs["Output"], parallelism=parallelism) as finalist:
            model = place(retrain(config=config, data=data, finalist=finalist), "train").outputs["model"]
            evaluated = place(evaluate(config=config, data=data, model=model), "train")
            exported = place(export(config=config, data=data, model=model), "control")
        place(register(config=config, state=state), "control").after(evaluated, exported)

    return finish_search
