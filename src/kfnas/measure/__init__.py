"""Latency: ONNX graphs from specifications, timing with provenance, records to look up and replay, tables of operators that foretell it."""

from kfnas.measure.export import export_onnx, with_metadata
from kfnas.measure.latency import Clock, Device, LocalDevice, model_digest
from kfnas.measure.onnx_graph import INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME, build_onnx, build_part, graph_digest, part_digest
from kfnas.measure.operator_table import NetworkLatency, OperatorTable, TableConfig, TableErrors, TableQuestion
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
from kfnas.measure.table_rounds import TablePlan, Taken, next_of, plan_table, table_of_rounds, take

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
    "NetworkLatency",
    "OperatorTable",
    "Provenance",
    "ReplayDevice",
    "TableConfig",
    "TableErrors",
    "TablePlan",
    "TableQuestion",
    "Taken",
    "build_onnx",
    "build_part",
    "export_onnx",
    "export_records",
    "graph_digest",
    "latency_key",
    "load_records",
    "model_digest",
    "next_of",
    "part_digest",
    "plan_table",
    "require_measured",
    "table_of_rounds",
    "take",
    "with_metadata",
]
