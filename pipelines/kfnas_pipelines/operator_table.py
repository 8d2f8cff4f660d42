"""The pipeline that takes an operator latency table, on the machine that a cluster's environment gives to what measures."""

from kfp import dsl
from kfp.dsl import base_component

from kfnas_components.latency_table import latency_table
from kfnas_components.prepare_data import prepare_data
from kfnas_pipelines.environment import LOCAL, Environment


def build_operator_table(environment: Environment = LOCAL) -> base_component.BaseComponent:
    """The pipeline `operator_table(config)`; `config` is a RunConfig as canonical JSON.

    Searches of the same space, data shape, device and protocol whose configuration has an equal `table` find it in the store. Run again, it measures nothing.

    Args:
        environment: image, resources and secrets of the tasks.
    """

    @dsl.pipeline(name="kfnas-operator-table", description="The latency of every operator of a space on one device, and how well it foretells networks.")
    def operator_table(config: str) -> None:
        data = environment.place(prepare_data(config=config), "control").outputs["data"]
        environment.place(latency_table(config=config, data=data), "measure")

    return operator_table
