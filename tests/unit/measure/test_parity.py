"""ONNX, built directly and exported by torch, against torch: 40 random architectures a skeleton, batch-norm statistics far from their initial values.

Agreement is the largest absolute difference of the outputs over the largest absolute output of torch.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from kfnas.measure import build_onnx, export_onnx
from kfnas.nn import Network, build_network, weights_as_numpy
from kfnas.space import Architecture, NetworkArguments, NetworkSpec, Space, mnas_small, mnas_v2, mnas_v3

SPACES: dict[str, Callable[[], Space]] = {"mnas_v2": mnas_v2, "mnas_v3": mnas_v3, "mnas_small": mnas_small}
RESOLUTIONS = {"mnas_v2": 40, "mnas_v3": 40, "mnas_small": 20}
WIDTHS = (0.38, 1.0, 1.3)
NUM_ARCHITECTURES = 40
NUM_IMAGES = 2
AGREEMENT = 1e-4


@cache
def _architectures(name: str) -> tuple[Architecture, ...]:
    rng = np.random.default_rng(0)
    return tuple(SPACES[name]().random(rng) for _ in range(NUM_ARCHITECTURES))


def _spec(name: str, index: int) -> NetworkSpec:
    arguments = NetworkArguments(width=WIDTHS[index % len(WIDTHS)], resolution=RESOLUTIONS[name], num_outputs=7)
    return SPACES[name]().network(_architectures(name)[index], arguments)


@torch.no_grad()
def _trained_like(spec: NetworkSpec, seed: int) -> Network:
    """A network in evaluation mode whose every tensor is random, at scales that keep the images apart up to the output.

    Gates get smaller weights: where they saturate on one side and open on the other, torch itself is no longer exact to 1e-4 in single precision.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(spec, generator).eval()
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.4, 2, generator=generator)
            module.weight.uniform_(0.6, 1.6, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            gain = 0.05 if name.endswith(".expand") and module.bias is not None else 2.0
            module.weight.normal_(0, (gain / module.weight[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.3, generator=generator)
    return network


def _images(spec: NetworkSpec, count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((count, spec.in_channels, spec.resolution, spec.resolution), dtype=np.float32)


def _run(model: bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"images": images})[0])


def _assert_agrees(model: bytes, network: Network, images: npt.NDArray[np.float32]) -> None:
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    scale = np.abs(expected).max()
    assert np.abs(_run(model, images) - expected).max() <= AGREEMENT * scale
    if len(images) > 1:
        assert np.abs(expected[0] - expected[1]).max() > 20 * AGREEMENT * scale, "the outputs hardly depend on the images: the comparison shows nothing"


every_architecture = pytest.mark.parametrize("index", range(NUM_ARCHITECTURES))
every_skeleton = pytest.mark.parametrize("name", SPACES)


@every_skeleton
def test_the_architectures_cover_every_option_of_every_decision(name: str) -> None:
    tokens = np.array([architecture.tokens for architecture in _architectures(name)])
    for decision, num_choices in enumerate(SPACES[name]().num_choices):
        assert set(tokens[:, decision]) == set(range(num_choices))


@every_skeleton
@every_architecture
def test_the_direct_graph_agrees_with_torch(name: str, index: int) -> None:
    spec = _spec(name, index)
    network = _trained_like(spec, index)
    model = build_onnx(spec, weights_as_numpy(network), batch=NUM_IMAGES)
    onnx.checker.check_model(model, full_check=True)
    _assert_agrees(model.SerializeToString(), network, _images(spec, NUM_IMAGES))


@pytest.mark.slow
@every_skeleton
@every_architecture
def test_the_exported_graph_agrees_with_torch(name: str, index: int) -> None:
    spec = _spec(name, index)
    network = _trained_like(spec, index)
    # A dynamic batch takes twice as long to export: test_export.py covers it.
    _assert_agrees(export_onnx(network, spec, batch=NUM_IMAGES), network, _images(spec, NUM_IMAGES))
