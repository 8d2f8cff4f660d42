"""ONNX graphs of mixed-operator networks against torch: random architectures, with and without the variants for retraining."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kfnas.measure import build_onnx, graph_digest
from kfnas.nn import build_network, build_supernet, recalibrate, weights_as_numpy
from kfnas.space import MixopSpace, NetworkArguments, with_activation, with_squeeze_excite
from kfnas.space.mixop_operators import PC_NAS_LARGE
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage

ARGUMENTS = NetworkArguments(resolution=20, in_channels=1, num_outputs=7)
AGREEMENT = 1e-4


def space() -> MixopSpace:
    return MixopSpace("toy", MixopSkeleton("toy", 8, 8, (Stage(8, 4, 1), Stage(16, 4, 2), Stage(24, 2, 1)), 32), PC_NAS_LARGE)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"images": images})[0])


@pytest.mark.parametrize("seed", range(8))
def test_the_graph_of_a_cut_out_path_agrees_with_torch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    supernet = build_supernet(space(), ARGUMENTS, generator)
    architecture = supernet.space.random(np.random.default_rng(seed))
    statistics = recalibrate(supernet, architecture, [torch.randn(16, 1, 20, 20, generator=generator)])
    network = supernet.cut(architecture, statistics)
    images = torch.randn(2, 1, 20, 20, generator=generator)
    with torch.no_grad():
        expected = network(images).numpy()
    found = run(build_onnx(network.spec, weights_as_numpy(network), batch=2), images.numpy())
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= AGREEMENT * scale
    assert np.abs(expected[0] - expected[1]).max() > 20 * AGREEMENT * scale, "the outputs hardly depend on the images: the comparison shows nothing"


@pytest.mark.parametrize("place", ["operator", "spatial"])
def test_the_graph_of_a_variant_agrees_with_torch(place: str) -> None:
    drawn = space().random(np.random.default_rng(3))
    spec = with_activation(with_squeeze_excite(space().network(drawn, ARGUMENTS), 0.25, place=place), "swish")  # type: ignore[arg-type]
    network = build_network(spec).eval()
    images = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images).numpy()
    assert np.abs(run(build_onnx(spec, weights_as_numpy(network)), images.numpy()) - expected).max() <= AGREEMENT * np.abs(expected).max()


def test_equal_networks_have_one_graph_digest_wherever_their_identities_stand() -> None:
    toy = space()
    identity = toy.decisions[0].choices.index("Identity")
    first, second = ([0, 0, 0, identity] + [1] * 6, [identity, 0, 0, 0] + [1] * 6)
    digests = {graph_digest(toy.network(toy.architecture(tokens), ARGUMENTS)) for tokens in (first, second)}
    assert len(digests) == 1


def test_the_compared_paths_cover_every_operator() -> None:
    toy = space()
    drawn = {choice for seed in range(8) for choice in toy.choices_of(toy.random(np.random.default_rng(seed))).values()}
    assert drawn == {operator.name for operator in PC_NAS_LARGE}
