"""The pipeline that brings the pool of one store and its copy in another together, to be run by hand or on a schedule."""

from kfp import dsl
from kfp.dsl import base_component

from kfnas_components.sync_pool import sync_pool as sync_pool_task
from kfnas_pipelines.environment import LOCAL, Environment


def build_sync_pool(environment: Environment = LOCAL) -> base_component.BaseComponent:
    """The pipeline `sync_pool(config, other, direction)`.

    `config` is a RunConfig with a pool, as canonical JSON; `other` the address of the other store; `direction` is `to` (the other store is given what it
    lacks), `from` (the configuration's own pool is) or `both`.

    Args:
        environment: image, resources and secrets of the task.
    """

    @dsl.pipeline(name="kfnas-sync-pool", description="Give a pool and its copy in another store what each lacks.")
    def sync_pool(config: str, other: str, direction: str = "both") -> None:
        environment.place(sync_pool_task(config=config, other=other, direction=direction), "control")

    return sync_pool
