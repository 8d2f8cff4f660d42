"""A tower: a stem, then some convolutions."""

from __future__ import annotations

from collections.abc import Mapping

from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkArguments, NetworkSpec, Space


def towers() -> Space:
    decisions = {"stem/width": [4, 8, 12], "tower/kernel": [1, 3, 5], "tower/layers": [1, 2, 3], "tower/skip": ["none", "identity"]}
    return Space.from_decisions(decisions, name="towers", is_valid=lambda choices: not _is_idle(choices), network=_network)


def _is_idle(choices: Mapping[str, object]) -> bool:
    return choices["tower/kernel"] == 1 and choices["tower/layers"] == 3


def _network(choices: Mapping[str, object], arguments: NetworkArguments) -> NetworkSpec:
    width = max(2, round(int(str(choices["stem/width"])) * arguments.width))
    kernel, size = int(str(choices["tower/kernel"])), (arguments.resolution + 1) // 2
    stem = ConvSpec("op", arguments.in_channels, width, (3, 3), 2, activation="relu")
    layers = [LayerSpec("stem", (stem,), arguments.in_channels, width, 2, arguments.resolution, size)]
    for number in range(int(str(choices["tower/layers"]))):
        op = ConvSpec("op", width, width, (kernel, kernel), activation="relu")
        skip = "identity" if choices["tower/skip"] == "identity" else "none"
        layers.append(LayerSpec(f"tower.{number}", (op,), width, width, 1, size, size, skip, block=1))
    return NetworkSpec(arguments.in_channels, arguments.resolution, tuple(layers), (LinearSpec(width, arguments.num_outputs),))
