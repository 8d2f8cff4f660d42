"""Additive cost of a mixed-operator network: a fixed part and one entry for each layer and operator.

It serves mult-adds, which add up exactly, and latency tables, whose sum is corrected by a line fitted on whole networks: cost = offset + scale x sum.
PC-NAS asks it which models are over the limit (its algorithm 1), BetaNAS takes the entries into its loss (its equation 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kfnas.errors import UserError
from kfnas.space.counts import layer_mult_adds, layer_params
from kfnas.space.layers import LayerSpec
from kfnas.space.mixop import MixopLayers


@dataclass(frozen=True)
class OperatorCosts:
    """Costs in one unit of the caller's: mult-adds, milliseconds.

    Attributes:
        fixed: cost of what is not decided, and the offset of a fitted correction.
        entries: for each mixed operator, the cost of each choice.

    Raises:
        UserError: no entries, or a negative one.
    """

    fixed: float
    entries: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.entries or not all(self.entries) or any(not entry >= 0 for row in self.entries for entry in row):
            raise UserError("operator costs need an entry of 0 or more for each choice of each mixed operator; measure the missing ones")

    def __call__(self, tokens: Sequence[int]) -> float:
        """Cost of one choice for each mixed operator."""
        return self.fixed + sum(row[token] for row, token in zip(self.entries, tokens, strict=True))

    @property
    def mean(self) -> float:
        """Cost of a uniformly drawn network, in expectation."""
        return self.fixed + sum(sum(row) / len(row) for row in self.entries)

    @property
    def range(self) -> tuple[float, float]:
        """Costs of the cheapest and of the dearest network."""
        return self.fixed + sum(map(min, self.entries)), self.fixed + sum(map(max, self.entries))


def mult_add_costs(layers: MixopLayers) -> OperatorCosts:
    """Mult-adds of every operator; the sum is exactly `kfnas.space.mult_adds` of the network."""
    return _counted(layers, layer_mult_adds, sum(layer.in_features * layer.out_features for layer in layers.classifier))


def param_costs(layers: MixopLayers) -> OperatorCosts:
    """Trainable parameters of every operator; the sum is exactly `kfnas.space.num_params` of the network."""
    return _counted(layers, layer_params, sum((layer.in_features + 1) * layer.out_features for layer in layers.classifier))


def _counted(layers: MixopLayers, count: Callable[[LayerSpec], int], linear: int) -> OperatorCosts:
    fixed = linear + sum(count(layer) for layer in (*layers.before, *layers.after))
    return OperatorCosts(fixed, tuple(tuple(float(count(layer)) for layer in choices) for choices in layers.mixops))
