"""Latency: ONNX graphs from specifications, timing with provenance, records to look up and replay."""

from kfnas.measure.export import export_onnx, with_metadata
from kfnas.measure.latency import Clock, Device, LocalDevice, model_digest
from kfnas.measure.onnx_graph import INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME, build_onnx, graph_digest
from kfnas.measure.records import (
    LatencyConfig,
    LatencyRecord,
    Provenance,
    ReplayDevice,
    export_records,
    latency_key,
    load_records,
    require_measured,
)

__all__ = [
    "INPUT_NAME",
    "IR_VERSION",
    "OPSET",
    "OUTPUT_NAME",
    "Clock",
    "Device",
    "LatencyConfig",
    "LatencyRecord",
    "LocalDevice",
    "Provenance",
    "ReplayDevice",
    "build_onnx",
    "export_onnx",
    "export_records",
    "graph_digest",
    "latency_key",
    "load_records",
    "model_digest",
    "require_measured",
    "with_metadata",
]
