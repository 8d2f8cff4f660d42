"""The direct builder: every operation against its definition in numpy or torch, weights, digest."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kfnas.errors import UserError
from kfnas.measure import IR_VERSION, OPSET, build_onnx, build_part, graph_digest, part_digest
from kfnas.nn import build_network
from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkSpec, part_of, parts_of

MakeSpec = Callable[..., NetworkSpec]
MakeWeights = Callable[..., dict[str, np.ndarray]]


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"images": images})[0])


def torch_outputs(spec: NetworkSpec, weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    network = build_network(spec).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("skip", ["none", "pool"])
@pytest.mark.parametrize("gate", ["sigmoid", "h_sigmoid"])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "h_swish", "swish"])
def test_every_activation_gate_and_skip_agrees_with_torch(activation: str, gate: str, skip: str, make_spec: MakeSpec, make_weights: MakeWeights) -> None:
    spec = make_spec(activation=activation, gate=gate, skip=skip, resolution=13)
    weights = make_weights(spec)
    images = 4 * np.random.default_rng(2).standard_normal((3, 3, 13, 13), dtype=np.float32)
    model = build_onnx(spec, weights, batch=3)
    onnx.checker.check_model(model, full_check=True)
    expected = torch_outputs(spec, weights, images)
    assert np.abs(run(model, images) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("activation", "values"),
    [
        ("relu6", {-1.0: 0.0, 2.0: 2.0, 7.0: 6.0}),
        ("h_swish", {-4.0: 0.0, -1.0: -1 / 3, 1.0: 2 / 3, 4.0: 4.0}),
        ("swish", {1.0: 1 / (1 + math.exp(-1)), -2.0: -2 / (1 + math.exp(2))}),
    ],
)
def test_activations_have_their_worked_values(activation: str, values: dict[float, float]) -> None:
    unit = np.ones(1, dtype=np.float32)
    spec = NetworkSpec(
        1,
        8,
        (LayerSpec("stem", (ConvSpec("conv", 1, 1, activation=activation),), 1, 1, 1, 8, 8),),
        (LinearSpec(1, 1),),  # type: ignore[arg-type]
    )
    weights = {"stem.conv.conv.weight": unit.reshape(1, 1, 1, 1), "classifier.0.weight": unit.reshape(1, 1), "classifier.0.bias": 0 * unit}
    weights |= {f"stem.conv.bn.{name}": unit * value for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1 - 1e-5))}
    model = build_onnx(spec, weights, batch=len(values))
    images = np.broadcast_to(np.array(list(values), dtype=np.float32).reshape(-1, 1, 1, 1), (len(values), 1, 8, 8))
    np.testing.assert_allclose(run(model, np.ascontiguousarray(images))[:, 0], list(values.values()), rtol=1e-5, atol=1e-6)


def test_a_classifier_that_ends_in_an_activation_keeps_the_output_name(make_spec: MakeSpec, make_weights: MakeWeights) -> None:
    spec = replace(make_spec(), classifier=(LinearSpec(12, 5, "relu"),))
    images = np.random.default_rng(0).standard_normal((1, 3, 12, 12), dtype=np.float32)
    weights = make_weights(spec)
    np.testing.assert_allclose(run(build_onnx(spec, weights), images), torch_outputs(spec, weights, images), rtol=1e-5, atol=1e-6)


def test_the_graph_is_for_older_servers_and_mobile_runtimes(make_spec: MakeSpec) -> None:
    model = build_onnx(make_spec(), batch=2)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION) == (17, 8)
    operators = {node.op_type for node in model.graph.node}
    assert "GlobalAveragePool" in operators
    assert not operators & {"ReduceMean", "BatchNormalization"}
    assert [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 12, 12]
    assert [dimension.dim_value for dimension in model.graph.output[0].type.tensor_type.shape.dim] == [2, 5]


def test_filler_weights_are_the_same_every_time_and_not_denormal(make_spec: MakeSpec) -> None:
    spec = make_spec(channels=64)
    model = build_onnx(spec)
    assert model.SerializeToString() == build_onnx(spec).SerializeToString()
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            values = np.abs(onnx.numpy_helper.to_array(tensor))
            assert values.max() > 1e-3
            assert values[values > 0].min() > 1e-30
    outputs = run(model, np.random.default_rng(0).standard_normal((1, 3, 12, 12), dtype=np.float32))
    assert 1e-3 < np.abs(outputs).max() < 1e3


def test_filler_weights_are_as_many_as_a_large_layer_needs() -> None:
    layer = LayerSpec("stem", (ConvSpec("conv", 8, 4000, (5, 5)),), 8, 4000, 1, 8, 8)
    model = build_onnx(NetworkSpec(8, 8, (layer,), (LinearSpec(4000, 2),)))
    onnx.checker.check_model(model, full_check=True)


def test_a_missing_weight_is_named(make_spec: MakeSpec, make_weights: MakeWeights) -> None:
    spec = make_spec()
    weights = make_weights(spec)
    del weights["blocks.0.0.se.expand.bias"]
    with pytest.raises(UserError, match=r"lack 'blocks.0.0.se.expand.bias'"):
        build_onnx(spec, weights)


def test_a_weight_of_another_shape_is_refused(make_spec: MakeSpec, make_weights: MakeWeights) -> None:
    with pytest.raises(UserError, match=r"'stem.conv.conv.weight' has shape \(8, 3, 3, 3\), the specification says \(16, 3, 3, 3\)"):
        build_onnx(make_spec(channels=16), make_weights(make_spec(channels=8)))


def test_a_batch_below_one_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(UserError, match="batch is 0"):
        build_onnx(make_spec(), batch=0)


def test_the_digest_follows_the_graph_and_not_the_names(make_spec: MakeSpec) -> None:
    spec = make_spec()
    renamed = replace(spec, dropout=0.9, layers=tuple(replace(layer, name=f"x{index}", block=None) for index, layer in enumerate(spec.layers)))
    assert graph_digest(renamed) == graph_digest(spec)
    variants = [
        graph_digest(spec, batch=2),
        *(graph_digest(make_spec(**change)) for change in ({"resolution": 16}, {"num_outputs": 6}, {"channels": 16}, {"skip": "none"})),
        *(graph_digest(make_spec(**change)) for change in ({"activation": "relu"}, {"gate": "h_sigmoid"})),
    ]
    assert len({graph_digest(spec), *variants}) == 1 + len(variants)


def test_equal_digests_mean_equal_graphs(make_spec: MakeSpec) -> None:
    """The digest is computed from the specification alone; this holds it to what is built."""
    digests: dict[str, set[str]] = {}
    for channels in (8, 16):
        for activation in ("relu", "relu6", "h_swish", "swish"):
            for skip in ("none", "pool"):
                spec = make_spec(channels=channels, activation=activation, skip=skip)
                model = build_onnx(spec)
                for tensor in model.graph.initializer:
                    tensor.ClearField("raw_data")
                digests.setdefault(graph_digest(spec), set()).add(model.SerializeToString(deterministic=True).hex())
    assert len(digests) == 16
    assert all(len(graphs) == 1 for graphs in digests.values())


@pytest.mark.parametrize("batch", [1, 2])
def test_each_part_of_a_network_is_a_valid_graph_that_gives_its_shape(make_spec, batch):
    for part in (*parts_of(make_spec()), None):
        model = build_part(part, batch)
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        (found,) = session.run(None, {given.name: np.ones(given.shape, dtype=np.float32)})
        assert list(found.shape) == session.get_outputs()[0].shape
        assert found.shape[0] == batch


def test_the_parts_of_a_network_have_its_operations(make_spec):
    spec = make_spec(activation="h_swish")
    parts = sorted(node.op_type for part in parts_of(spec) for node in build_part(part).graph.node)
    assert parts == sorted(node.op_type for node in build_onnx(spec).graph.node)


def test_a_part_s_digest_knows_shapes_and_not_names(make_spec):
    spec = make_spec()
    digests = [part_digest(part) for part in (*parts_of(spec), None)]
    assert len(set(digests)) == 5
    renamed = replace(spec.layers[1], name="other", block=3)
    assert part_digest(part_of(renamed)) == part_digest(renamed) == digests[1]
    assert part_digest(replace(renamed, in_size=9)) != digests[1]
    assert part_digest(renamed, 2) != digests[1]
