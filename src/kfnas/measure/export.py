"""ONNX export of final models by torch's own exporter, made portable.

torch writes opset 18, turns a global average into ReduceMean, which splits CoreML and NNAPI partitions, and keeps stack traces with the paths of the
machine it ran on. What is handed over is opset 17 / IR 8 for older servers, GlobalAveragePool, one file, and no trace of where it was made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfnas.errors import UserError
from kfnas.measure.onnx_graph import INPUT_NAME, IR_VERSION, OPSET, OUTPUT_NAME
from kfnas.space.layers import NetworkSpec

if TYPE_CHECKING:
    import onnx
    import torch

_EXPORTER_OPSET = 18
_PLANE = ({2, 3}, {-2, -1})


def export_onnx(module: torch.nn.Module, spec: NetworkSpec, batch: int | None = None) -> bytes:
    """A trained network as one self-contained ONNX file, in evaluation mode. `module` itself is not changed.

    Args:
        module: maps float32 images [N, in_channels, resolution, resolution] to [N, num_outputs].
        spec: the specification that it was built from: channels and resolution of the input.
        batch: images of one inference, or None for any number.

    Returns:
        Opset 17, IR 8; input `images`, output `logits`; checked by `onnx.checker`. Opset 18 where the network uses an operator that opset 17 does not have.

    Raises:
        UserError: a batch below 1, or a module that torch cannot export.
    """
    import onnx
    import torch

    if batch is not None and batch < 1:
        raise UserError(f"batch is {batch}; give 1 or more images, or None for any number")
    plain = copy.deepcopy(module).to("cpu", torch.float32).to(memory_format=torch.contiguous_format).eval()
    # Any size but 1 stands for a dynamic batch: torch.export treats 1 as a constant.
    example = torch.zeros(batch or 2, spec.in_channels, spec.resolution, spec.resolution)
    dynamic = None if batch else ({0: torch.export.Dim("batch")},)
    try:
        program = torch.onnx.export(
            plain,
            (example,),
            dynamo=True,
            external_data=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=dynamic,
            opset_version=_EXPORTER_OPSET,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error).strip().splitlines()
        raise UserError(f"torch cannot export {type(module).__name__} to ONNX: {cause[0] if cause else error!r}; replace the operation it names") from error
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    _pool_globally(model.graph)
    _lower_opset(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drop stack traces, module paths and intermediate shapes."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    graph.ClearField("value_info")


def _pool_globally(graph: Any) -> None:
    """ReduceMean over height and width is GlobalAveragePool, then Flatten where the two axes are dropped."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "ReduceMean" or not _over_plane(node, constants):
            nodes.append(node)
            continue
        keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        nodes.append(onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name))
        if not keeps:
            nodes.append(onnx.helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten", axis=1))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _over_plane(node: Any, constants: dict[str, Any]) -> bool:
    import onnx

    axes = constants.get(node.input[1]) if len(node.input) > 1 else None
    return axes is not None and {int(axis) for axis in onnx.numpy_helper.to_array(axes)} in _PLANE


def _lower_opset(model: onnx.ModelProto) -> None:
    """Declare opset 17 and IR 8 where every node means the same there."""
    if all(_means_the_same(node) for node in model.graph.node):
        del model.opset_import[:]
        model.opset_import.add(domain="", version=OPSET)
    model.ir_version = IR_VERSION


def _means_the_same(node: Any) -> bool:
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Pad":  # opset 18 added an optional fourth input, the axes
        return len(node.input) < 4
    try:
        old, new = (onnx.defs.get_schema(node.op_type, version) for version in (OPSET, _EXPORTER_OPSET))
    except onnx.defs.SchemaError:
        return False
    return bool(old.since_version == new.since_version)


def with_metadata(model: bytes, metadata: Mapping[str, str]) -> bytes:
    """An ONNX file with further metadata properties: what its user must know beside the graph.

    Args:
        model: ONNX file.
        metadata: by property name; replaces properties of equal names.
    """
    import onnx

    proto = onnx.ModelProto.FromString(model)
    properties = {entry.key: entry.value for entry in proto.metadata_props} | dict(metadata)
    onnx.helper.set_model_props(proto, properties)
    return proto.SerializeToString()
