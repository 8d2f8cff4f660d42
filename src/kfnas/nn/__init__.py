"""Torch modules built from layer specifications."""

from kfnas.nn.network import Network, build_network, weights_as_numpy
from kfnas.nn.recalibration import recalibrate
from kfnas.nn.supernet import PathStatistics, Supernet, build_supernet

__all__ = ["Network", "PathStatistics", "Supernet", "build_network", "build_supernet", "recalibrate", "weights_as_numpy"]
