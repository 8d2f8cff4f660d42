"""torch's exporter, made portable."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kfnas.errors import UserError
from kfnas.measure import export_onnx
from kfnas.nn import Network, build_network
from kfnas.space import LinearSpec, NetworkSpec

MakeSpec = Callable[..., NetworkSpec]
MakeWeights = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def spec(make_spec: MakeSpec) -> NetworkSpec:
    return make_spec(activation="h_swish", gate="h_sigmoid")


@pytest.fixture
def network(spec: NetworkSpec, make_weights: MakeWeights) -> Network:
    network = build_network(spec)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in make_weights(spec).items()}, strict=False)
    return network


def test_a_dynamic_batch_agrees_with_torch_at_any_size(spec: NetworkSpec, network: Network) -> None:
    session = onnxruntime.InferenceSession(export_onnx(network, spec), providers=["CPUExecutionProvider"])
    network.eval()
    for count in (1, 3):
        images = np.random.default_rng(count).standard_normal((count, 3, 12, 12), dtype=np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        outputs = np.asarray(session.run(["logits"], {"images": images})[0])
        assert np.abs(outputs - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_export_is_portable_and_tells_nothing_of_its_origin(spec: NetworkSpec, network: Network) -> None:
    data = export_onnx(network, spec, batch=2)
    model = onnx.load_model_from_string(data)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    operators = {node.op_type for node in model.graph.node}
    assert "GlobalAveragePool" in operators
    assert not operators & {"ReduceMean", "BatchNormalization"}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert str(Path(__file__).parents[3]).encode() not in data
    assert b"Traceback" not in data and b".py" not in data
    assert [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 12, 12]


def test_a_mean_over_the_plane_becomes_a_global_pool(spec: NetworkSpec) -> None:
    class Mean(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    data = export_onnx(Mean(), spec)
    assert [node.op_type for node in onnx.load_model_from_string(data).graph.node] == ["GlobalAveragePool", "Flatten"]
    images = np.random.default_rng(0).standard_normal((3, 3, 12, 12), dtype=np.float32)
    outputs = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
    np.testing.assert_allclose(outputs, images.mean((2, 3)), atol=1e-6)


def test_an_operator_that_opset_17_lacks_keeps_opset_18(spec: NetworkSpec) -> None:
    class Maximum(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.amax((2, 3))

    model = onnx.load_model_from_string(export_onnx(Maximum(), spec, batch=1))
    assert model.opset_import[0].version == 18


def test_the_module_stays_as_it_was(spec: NetworkSpec, network: Network) -> None:
    network.train().to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, spec, batch=1)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_batch_below_one_is_refused(spec: NetworkSpec, network: Network) -> None:
    with pytest.raises(UserError, match="batch is 0"):
        export_onnx(network, spec, batch=0)


def test_a_module_that_cannot_be_exported_is_named(spec: NetworkSpec) -> None:
    class Undecided(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if float(images.sum()) > 0 else -images

    with pytest.raises(UserError, match="torch cannot export Undecided to ONNX"):
        export_onnx(Undecided(), replace(spec, classifier=(LinearSpec(12, 5),)))
