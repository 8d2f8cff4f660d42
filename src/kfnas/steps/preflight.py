"""What can be known to fail before anything runs: names that nothing provides, data that are not there, widths and budgets that nothing meets."""

from __future__ import annotations

import os

import numpy as np

from kfnas.errors import DataError, SpaceError, UserError
from kfnas.space import Architecture, NetworkArguments, NetworkSpec
from kfnas.steps.config import task_of
from kfnas.steps.context import Run
from kfnas.steps.costs import open_device
from kfnas.steps.operator_costs import check_costs
from kfnas.steps.pool_rounds import check_pool
from kfnas.steps.prior import check_prior
from kfnas.steps.reach import require_counted_reach
from kfnas.steps.supernet_search import mixop_space
from kfnas.tracking import check_address


def preflight(run: Run) -> None:
    """Check a search that is about to start. Neither torch nor MLflow is imported, no image is read and nothing is written.

    Raises:
        UserError: with field, value and remedy.
    """
    config = run.config
    others = {"pool.store": config.pool and config.pool.store, "prior.store": config.prior and config.prior.store}
    for name, address in {"store": config.store, **others}.items():
        if address and address.startswith("memory:"):
            raise UserError(f"{name}: {address} lives in one process, and steps run in several; give a folder, or s3://bucket/prefix")
    tracking = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if config.tracking.enabled and tracking:
        check_address(tracking)
    task, settings = task_of(config)
    space = run.final_space
    open_device(run)
    if config.pool is not None:
        check_pool(run, config.proxy.steps)
    check_prior(run)
    if config.algorithm is not None:
        mixop_space(run)
        check_costs(run)
    check = getattr(task, "check", None)
    try:
        inputs = check(settings) if check is not None else None
    except DataError as error:
        raise DataError(f"task: {error}") from None
    if inputs is None:
        return
    arguments = NetworkArguments(width=run.final_width, resolution=inputs.resolution, in_channels=inputs.in_channels, num_outputs=inputs.num_outputs)

    def build(architecture: Architecture) -> NetworkSpec:
        return space.network(architecture, arguments)

    try:
        build(space.random(np.random.default_rng(config.seed)))
    except SpaceError as error:
        raise SpaceError(f"space: {error}") from None
    require_counted_reach(config, space, build)
