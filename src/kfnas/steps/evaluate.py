"""Step: the only reading of the test set."""

from __future__ import annotations

import logging
from pathlib import Path

from kfnas.steps.config import task_of
from kfnas.steps.context import open_run, read_data, read_json, write_json
from kfnas.steps.prepared import finite, load_data

logger = logging.getLogger(__name__)


def evaluate(config: str, data: Path, model: Path, metrics: Path) -> None:
    """Evaluate a trained finalist on the test set, once; write its metrics to `metrics`."""
    run = open_run(config)
    trained = read_json(model)
    record = run.searches.record("evaluated", trained["key"])
    if record is None and trained["status"] == "ok":
        import safetensors.torch

        from kfnas.train import evaluate_final

        prepared = read_data(data)
        task, _ = task_of(run.config)
        spec = run.final_network(trained["tokens"], prepared, width=trained["width"])
        weights = safetensors.torch.load(run.searches.blob(trained["weights"]))
        measured = evaluate_final(weights, spec, load_data(run, prepared, ("test",)), task, device=run.config.retrain.device)
        run.searches.put_record("evaluated", trained["key"], {"metrics": finite(measured)})
        record = run.searches.record("evaluated", trained["key"]) or {"metrics": finite(measured)}
    record = record or {"metrics": {}}
    logger.info("finalist %s: %s", trained["name"], record["metrics"] or trained["reason"])
    write_json(metrics, {"name": trained["name"], "key": trained["key"], **record})
