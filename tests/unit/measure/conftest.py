"""A hand-made network that uses every operation the ONNX builder knows."""

from collections.abc import Callable

import numpy as np
import pytest

from kfnas.space.layers import Activation, ConvSpec, Gate, LayerSpec, LinearSpec, NetworkSpec, Skip, SqueezeExciteSpec


def _spec(
    *,
    channels: int = 8,
    resolution: int = 12,
    num_outputs: int = 5,
    activation: Activation = "relu6",
    gate: Gate = "sigmoid",
    skip: Skip = "pool",
) -> NetworkSpec:
    """Stem at stride 2, a depthwise-separable layer with squeeze-excite, a convolution at stride 2, two linear layers."""
    half = (resolution + 1) // 2
    return NetworkSpec(
        in_channels=3,
        resolution=resolution,
        layers=(
            LayerSpec("stem", (ConvSpec("conv", 3, channels, (3, 3), 2, 1, activation),), 3, channels, 2, resolution, half),
            LayerSpec(
                "blocks.0.0",
                (
                    ConvSpec("depthwise", channels, channels, (5, 5), 1, channels, activation),
                    SqueezeExciteSpec("se", channels, 2, "relu", gate),
                    ConvSpec("project", channels, channels),
                ),
                channels,
                channels,
                1,
                half,
                half,
                skip="identity",
                block=0,
            ),
            LayerSpec(
                "blocks.1.0",
                (ConvSpec("conv", channels, channels + 4, (3, 3), 2, 1, activation),),
                channels,
                channels + 4,
                2,
                half,
                (half + 1) // 2,
                skip=skip,
                block=1,
            ),
        ),
        classifier=(LinearSpec(channels + 4, 6, activation), LinearSpec(6, num_outputs)),
        dropout=0.2,
    )


def _weights(spec: NetworkSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Random state with batch-norm statistics far from (0, 1), float32."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    for layer in spec.layers:
        for operation in layer.operations:
            path = f"{layer.name}.{operation.name}"
            if isinstance(operation, ConvSpec):
                shape = (operation.out_channels, operation.in_channels // operation.groups, *operation.kernel)
                state[f"{path}.conv.weight"] = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
                state[f"{path}.bn.weight"] = rng.uniform(0.5, 1.5, shape[0])
                state[f"{path}.bn.bias"] = rng.normal(0, 0.5, shape[0])
                state[f"{path}.bn.running_mean"] = rng.normal(0, 0.5, shape[0])
                state[f"{path}.bn.running_var"] = rng.uniform(0.5, 2, shape[0])
            else:
                state[f"{path}.reduce.weight"] = rng.normal(0, 1, (operation.squeezed, operation.channels, 1, 1))
                state[f"{path}.reduce.bias"] = rng.normal(0, 1, operation.squeezed)
                state[f"{path}.expand.weight"] = rng.normal(0, 1, (operation.channels, operation.squeezed, 1, 1))
                state[f"{path}.expand.bias"] = rng.normal(0, 1, operation.channels)
    for index, linear in enumerate(spec.classifier):
        state[f"classifier.{index}.weight"] = rng.normal(0, 1, (linear.out_features, linear.in_features))
        state[f"classifier.{index}.bias"] = rng.normal(0, 1, linear.out_features)
    return {name: value.astype(np.float32) for name, value in state.items()}


@pytest.fixture
def make_spec() -> Callable[..., NetworkSpec]:
    """Factory of hand-made networks; see `_spec` for its arguments."""
    return _spec


@pytest.fixture
def make_weights() -> Callable[..., dict[str, np.ndarray]]:
    """Factory of random states for a specification."""
    return _weights
