"""ONNX graphs built directly from a network's specification, in milliseconds and without torch.

torch.onnx.export takes seconds a network, so while searching the graph is written node by node, batch normalisation folded, for an opset that older
servers read. The forms are those that mobile runtimes keep in one partition: GlobalAveragePool and Reshape rather than ReduceMean. Nothing is
validated by `onnx.checker` here, which would cost more than the building; the tests do that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kfnas.config import digest_of
from kfnas.errors import UserError
from kfnas.measure.folding import Affine, FillerWeights, StateWeights, WeightSource
from kfnas.space.layers import ConvSpec, LayerSpec, LinearSpec, NetworkSpec, OperationSpec, SqueezeExciteSpec
from kfnas.space.parts import Part, Tail

if TYPE_CHECKING:
    import onnx

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "images"
OUTPUT_NAME = "logits"
BUILDER_VERSION = 1
"""Part of every graph digest: raised whenever `build_onnx` writes another graph for the same specification."""

_FLOAT, _INT, _INTS = 1, 2, 7  # onnx.AttributeProto.AttributeType
_FLOAT32, _INT64 = 1, 7  # onnx.TensorProto.DataType


def build_onnx(spec: NetworkSpec, weights: Mapping[str, npt.NDArray[Any]] | None = None, batch: int = 1) -> onnx.ModelProto:
    """The network as an ONNX model with fixed shapes, in evaluation mode.

    Args:
        spec: the network.
        weights: state by the names of `kfnas.nn` (`weights_as_numpy(network)`), or None for filler weights: deterministic, and good for timing only.
        batch: images of one inference.

    Returns:
        Opset 17, IR 8; input `images` float32 [batch, in_channels, resolution, resolution], output `logits` float32 [batch, num_outputs].

    Raises:
        UserError: weights that lack a tensor or do not fit the specification, or a batch below 1.
    """
    model = _model("network", batch)
    graph = model.graph
    _declare(graph.input.add(), INPUT_NAME, (batch, spec.in_channels, spec.resolution, spec.resolution))
    _declare(graph.output.add(), OUTPUT_NAME, (batch, spec.num_outputs))
    _Writer(graph, FillerWeights() if weights is None else StateWeights(weights)).network(spec, batch)
    return model


def build_part(part: Part | None, batch: int = 1) -> onnx.ModelProto:
    """One part of a network as an ONNX model of its own, with filler weights; None is a graph that does next to nothing.

    Args:
        part: a layer, which maps [batch, in_channels, in_size, in_size] to [batch, out_channels, out_size, out_size], or a tail, which maps to
            [batch, outputs]. What None takes, one run of any graph takes beside its operations.
        batch: images of one inference.

    Raises:
        UserError: a batch below 1.
    """
    model = _model("part", batch)
    graph = model.graph
    writer = _Writer(graph, FillerWeights())
    if part is None:
        _declare(graph.input.add(), INPUT_NAME, (batch, 1))
        _declare(graph.output.add(), writer.nothing(), (batch, 1))
        return model
    _declare(graph.input.add(), INPUT_NAME, (batch, part.in_channels, part.in_size, part.in_size))
    if isinstance(part, Tail):
        writer.tail(part.classifier, INPUT_NAME, batch)
        _declare(graph.output.add(), OUTPUT_NAME, (batch, part.classifier[-1].out_features))
    else:
        _declare(graph.output.add(), writer.layer(part, INPUT_NAME), (batch, part.out_channels, part.out_size, part.out_size))
    return model


def part_digest(part: Part | None, batch: int = 1) -> str:
    """Sha256 (hex) of what `build_part` writes, weights aside; names do not enter."""
    structure: list[Any] = []
    if isinstance(part, Tail):
        structure = ["tail", part.in_channels, part.in_size, _linears(part.classifier)]
    elif part is not None:
        structure = ["layer", part.in_size, _layer_structure(part)]
    return digest_of({"builder": BUILDER_VERSION, "opset": OPSET, "batch": batch, "part": structure})


def _model(name: str, batch: int) -> onnx.ModelProto:
    import onnx

    if batch < 1:
        raise UserError(f"batch is {batch}; give 1 or more images")
    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="kfnas", producer_version=str(BUILDER_VERSION))
    model.opset_import.add(domain="", version=OPSET)
    model.graph.name = name
    return model


def graph_digest(spec: NetworkSpec, batch: int = 1) -> str:
    """Sha256 (hex) of what `build_onnx` writes, weights aside: shapes, operations, resolution, outputs, batch. Layer names and dropout do not enter.

    Two specifications of equal digest have the same graph, and so the same latency.
    """
    return digest_of(
        {
            "builder": BUILDER_VERSION,
            "opset": OPSET,
            "input": [batch, spec.in_channels, spec.resolution],
            "layers": [_layer_structure(layer) for layer in spec.layers],
            "classifier": _linears(spec.classifier),
        }
    )


def _layer_structure(layer: LayerSpec) -> list[Any]:
    return [layer.skip, layer.stride, layer.in_channels, layer.out_channels, [_structure(operation) for operation in layer.operations]]


def _linears(classifier: Sequence[LinearSpec]) -> list[Any]:
    return [[linear.in_features, linear.out_features, linear.activation] for linear in classifier]


def _structure(operation: OperationSpec) -> list[Any]:
    if isinstance(operation, ConvSpec):
        return [
            "conv",
            operation.in_channels,
            operation.out_channels,
            *operation.kernel,
            operation.stride,
            operation.groups,
            operation.activation,
        ]
    return ["se", operation.channels, operation.squeezed, operation.activation, operation.gate]


def _declare(value: Any, name: str, shape: Sequence[int]) -> None:
    value.name = name
    tensor_type = value.type.tensor_type
    tensor_type.elem_type = _FLOAT32
    for size in shape:
        tensor_type.shape.dim.add(dim_value=size)


class _Writer:
    """Appends nodes and initializers to one graph; methods take and return the names of tensors [N, C, H, W] unless they say otherwise."""

    def __init__(self, graph: Any, weights: WeightSource) -> None:
        self._graph = graph
        self._weights = weights
        self._constants: set[str] = set()

    def network(self, spec: NetworkSpec, batch: int) -> None:
        x = INPUT_NAME
        for layer in spec.layers:
            x = self.layer(layer, x)
        self.tail(spec.classifier, x, batch)

    def nothing(self) -> str:
        """An operation that costs as good as nothing, and that no optimiser takes away."""
        return self._node("Relu", "nothing", [INPUT_NAME])

    def tail(self, classifier: Sequence[LinearSpec], x: str, batch: int) -> None:
        """Global pool and linear layers, to the tensor `OUTPUT_NAME` [N, outputs]."""
        x = self._node("GlobalAveragePool", "pool", [x])
        x = self._node("Reshape", "flatten", [x, self._integers("flatten.shape", (batch, classifier[0].in_features))])
        for index, linear in enumerate(classifier):
            last = index == len(classifier) - 1
            x = self._linear(linear, f"classifier.{index}", x, output=OUTPUT_NAME if last and linear.activation == "none" else None)
        if x != OUTPUT_NAME:
            self._node("Identity", OUTPUT_NAME, [x])

    def layer(self, layer: LayerSpec, x: str) -> str:
        """One layer, with what is added to its output."""
        y = x
        for operation in layer.operations:
            path = f"{layer.name}.{operation.name}"
            y = self._convolution(operation, path, y) if isinstance(operation, ConvSpec) else self._squeeze_excite(operation, path, y)
        if layer.skip == "none":
            return y
        skip = self._pooled(layer, x) if layer.skip == "pool" else x
        return self._node("Add", f"{layer.name}.add", [y, skip])

    def _convolution(self, spec: ConvSpec, path: str, x: str) -> str:
        affine = self._weights.folded(path, (spec.out_channels, spec.in_channels // spec.groups, *spec.kernel))
        y = self._conv(path, x, affine, spec.kernel, spec.stride, spec.groups)
        return self._activation(spec.activation, path, y)

    def _squeeze_excite(self, spec: SqueezeExciteSpec, path: str, x: str) -> str:
        y = self._node("GlobalAveragePool", f"{path}.pool", [x])
        y = self._conv(f"{path}.reduce", y, self._weights.plain(f"{path}.reduce", (spec.squeezed, spec.channels, 1, 1)), (1, 1), 1, 1)
        y = self._activation(spec.activation, f"{path}.reduce", y)
        y = self._conv(f"{path}.expand", y, self._weights.plain(f"{path}.expand", (spec.channels, spec.squeezed, 1, 1)), (1, 1), 1, 1)
        y = self._hard_sigmoid(path, y) if spec.gate == "h_sigmoid" else self._node("Sigmoid", f"{path}.gate", [y])
        return self._node("Mul", f"{path}.scale", [x, y])

    def _pooled(self, layer: LayerSpec, x: str) -> str:
        """[N, in, H, W] to [N, out, ceil(H / stride), ceil(W / stride)], new channels zero and last."""
        pool = {"kernel_shape": (3, 3), "strides": (layer.stride, layer.stride), "pads": (1, 1, 1, 1), "count_include_pad": 0}
        y = self._node("AveragePool", f"{layer.name}.skip", [x], pool)
        missing = layer.out_channels - layer.in_channels
        if not missing:
            return y
        return self._node("Pad", f"{layer.name}.pad", [y, self._integers(f"{layer.name}.pads", (0, 0, 0, 0, 0, missing, 0, 0))])

    def _conv(self, path: str, x: str, affine: Affine, kernel: tuple[int, int], stride: int, groups: int) -> str:
        height, width = kernel[0] // 2, kernel[1] // 2
        attributes = {"kernel_shape": kernel, "strides": (stride, stride), "pads": (height, width, height, width), "group": groups}
        inputs = [x, self._floats(f"{path}.weight", affine.weight), self._floats(f"{path}.bias", affine.bias)]
        return self._node("Conv", f"{path}.conv", inputs, attributes)

    def _linear(self, spec: LinearSpec, path: str, x: str, output: str | None) -> str:
        """[N, in] to [N, out]."""
        affine = self._weights.plain(path, (spec.out_features, spec.in_features))
        inputs = [x, self._floats(f"{path}.weight", affine.weight), self._floats(f"{path}.bias", affine.bias)]
        return self._activation(spec.activation, path, self._node("Gemm", output or f"{path}.gemm", inputs, {"transB": 1}))

    def _activation(self, activation: str, path: str, x: str) -> str:
        if activation == "none":
            return x
        if activation == "relu":
            return self._node("Relu", f"{path}.relu", [x])
        if activation == "relu6":
            return self._node("Clip", f"{path}.relu6", [x, self._scalar("zero", 0.0), self._scalar("six", 6.0)])
        if activation == "h_swish":
            return self._node("HardSwish", f"{path}.h_swish", [x])
        return self._node("Mul", f"{path}.swish", [x, self._node("Sigmoid", f"{path}.sigmoid", [x])])

    def _hard_sigmoid(self, path: str, x: str) -> str:
        """relu6(x + 3) / 6; ONNX's default alpha is 0.2, hence given."""
        return self._node("HardSigmoid", f"{path}.gate", [x], {"alpha": 1 / 6, "beta": 0.5})

    def _node(self, operator: str, name: str, inputs: Sequence[str], attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node whose name is also its output's."""
        node = self._graph.node.add(op_type=operator, name=name, input=inputs, output=(name,))
        for key, value in (attributes or {}).items():
            if isinstance(value, tuple):
                node.attribute.add(name=key, type=_INTS, ints=value)
            elif isinstance(value, float):
                node.attribute.add(name=key, type=_FLOAT, f=value)
            else:
                node.attribute.add(name=key, type=_INT, i=value)
        return name

    def _floats(self, name: str, value: npt.NDArray[np.float32]) -> str:
        self._graph.initializer.add(name=name, data_type=_FLOAT32, dims=value.shape, raw_data=value.astype("<f4", copy=False).tobytes())
        return name

    def _integers(self, name: str, value: Sequence[int]) -> str:
        self._graph.initializer.add(name=name, data_type=_INT64, dims=(len(value),), raw_data=np.asarray(value, dtype="<i8").tobytes())
        return name

    def _scalar(self, name: str, value: float) -> str:
        if name not in self._constants:
            self._constants.add(name)
            self._graph.initializer.add(name=name, data_type=_FLOAT32, dims=(), raw_data=np.asarray(value, dtype="<f4").tobytes())
        return name
