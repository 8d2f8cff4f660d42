"""Torch modules built from layer specifications."""

from kfnas.nn.network import Network, build_network, weights_as_numpy

__all__ = ["Network", "build_network", "weights_as_numpy"]
