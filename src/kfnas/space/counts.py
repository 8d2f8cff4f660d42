"""Mult-adds and parameters, counted on layer specifications without torch.

Mult-adds are multiply-accumulates of convolutions and linear layers in one forward pass at batch 1: half of what torch's `FlopCounterMode`
reports. Parameters are the trainable ones: running statistics of batch normalisation are not among them.
"""

from __future__ import annotations

from kfnas.space.layers import ConvSpec, LayerSpec, NetworkSpec, OperationSpec


def mult_adds(spec: NetworkSpec) -> int:
    """Multiply-accumulates of one forward pass at batch 1."""
    linear = sum(layer.in_features * layer.out_features for layer in spec.classifier)
    return linear + sum(layer_mult_adds(layer) for layer in spec.layers)


def layer_mult_adds(layer: LayerSpec) -> int:
    """Multiply-accumulates of one layer at batch 1; skips and pools count nothing."""
    total, size = 0, layer.in_size
    for operation in layer.operations:
        if isinstance(operation, ConvSpec):
            size = -(-size // operation.stride)
            total += _weights(operation) * size * size
        else:
            total += 2 * operation.channels * operation.squeezed
    return total


def num_params(spec: NetworkSpec) -> int:
    """Trainable parameters: weights, biases, scales and shifts of batch normalisation."""
    linear = sum((layer.in_features + 1) * layer.out_features for layer in spec.classifier)
    return linear + sum(layer_params(layer) for layer in spec.layers)


def layer_params(layer: LayerSpec) -> int:
    """Trainable parameters of one layer."""
    return sum(_params(operation) for operation in layer.operations)


def _params(operation: OperationSpec) -> int:
    if isinstance(operation, ConvSpec):
        return _weights(operation) + 2 * operation.out_channels
    return 2 * operation.channels * operation.squeezed + operation.channels + operation.squeezed


def _weights(conv: ConvSpec) -> int:
    return conv.kernel[0] * conv.kernel[1] * (conv.in_channels // conv.groups) * conv.out_channels
