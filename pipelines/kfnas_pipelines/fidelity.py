"""The fidelity study as a pipeline.

What is independent of the pool is trained first: the donors, the truth, the short trainings from random weights. Then the donors fill the pool, and the
short trainings from it follow. Every training is looked up in the study's store before it begins: a run that was stopped, or whose process was killed, is
started again and trains what is missing.
"""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl import base_component

from kfnas_components.fidelity_compare import fidelity_compare
from kfnas_components.fidelity_plan import fidelity_plan
from kfnas_components.fidelity_pool import fidelity_pool
from kfnas_components.fidelity_train import fidelity_train
from kfnas_pipelines.environment import LOCAL, Environment, check_parallelism

FIDELITY = "fidelity.yaml"


def build_fidelity(parallelism: int = 2, environment: Environment = LOCAL) -> base_component.BaseComponent:
    """The pipeline `fidelity(config)`; `config` is a FidelityConfig as canonical JSON.

    Args:
        parallelism: shards that train at the same time; 0 for no limit. kfp.local runs two at most.
        environment: image, resources and secrets of the tasks.

    Raises:
        ConfigError: parallelism is negative.
    """
    check_parallelism(parallelism)
    place = environment.place

    @dsl.pipeline(name="kfnas-fidelity", description="How well short trainings rank architectures, from random weights and from a pool's.")
    def fidelity(config: str) -> None:
        planned = place(fidelity_plan(config=config), "control")
        plan = planned.outputs["plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=parallelism) as shard:
            trained = place(fidelity_train(config=config, plan=plan, shard=shard), "train")
        filled = place(fidelity_pool(config=config, plan=plan), "control").after(trained)
        pooled = filled.outputs["pooled"]
        with dsl.ParallelFor(filled.outputs["Output"], parallelism=parallelism) as shard:
            warm = place(fidelity_train(config=config, plan=pooled, shard=shard), "train")
        place(fidelity_compare(config=config, pooled=pooled), "control").after(warm)

    return fidelity


def compile_fidelity(path: Path, parallelism: int = 2, environment: Environment = LOCAL) -> Path:
    """Write the pipeline to `path` as IR YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(build_fidelity(parallelism, environment), str(path))
    return path
