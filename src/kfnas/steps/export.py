"""Step: a trained finalist as an ONNX model, checked against the network that it came from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from kfnas.config import canonical_json
from kfnas.steps.context import DataPointer, Run, code_version, open_run, read_data, read_json

logger = logging.getLogger(__name__)


def export(config: str, data: Path, model: Path, onnx: Path) -> None:
    """Write the finalist's ONNX model to `onnx`, and keep it in the store; a finalist whose training failed gives an empty file.

    The model carries what its user must know as metadata: architecture, task, class names and normalisation, data digest, code version.
    """
    run = open_run(config)
    trained = read_json(model)
    record = run.searches.record("exported", trained["key"])
    if record is None and trained["status"] == "ok":
        exported = run.searches.put_blob(_exported(run, read_data(data), trained))
        run.searches.put_record("exported", trained["key"], {"onnx": exported})
        record = run.searches.record("exported", trained["key"]) or {"onnx": exported}
    onnx = Path(onnx)
    onnx.parent.mkdir(parents=True, exist_ok=True)
    onnx.write_bytes(run.searches.blob(record["onnx"]) if record is not None else b"")
    logger.info("finalist %s: %s", trained["name"], f"exported as {record['onnx'][:12]}" if record is not None else "nothing to export")


def _exported(run: Run, data: DataPointer, trained: dict[str, Any]) -> bytes:
    import safetensors.torch

    from kfnas.measure import export_onnx, with_metadata
    from kfnas.nn import build_network

    spec = run.final_network(trained["tokens"], data, width=trained["width"])
    network = build_network(spec)
    network.load_state_dict(safetensors.torch.load(run.searches.blob(trained["weights"])))
    metadata = {
        "kfnas.search": run.config.name,
        "kfnas.architecture": trained["architecture"],
        "kfnas.width": str(trained["width"]),
        "kfnas.task": str(run.config.task["name"]),
        "kfnas.data": data.digest,
        "kfnas.config": run.config.digest,
        "kfnas.code_version": code_version(),
        "kfnas.meta": canonical_json({key: data.meta[key] for key in ("classes", "mean", "std") if key in data.meta}),
    }
    return with_metadata(export_onnx(network, spec, batch=None), metadata)
