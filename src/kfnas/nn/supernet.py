"""One network that holds every operator of a mixed-operator space, and runs one path of them at a time.

    outputs = supernet(images, architecture)

Weights belong to a (mixed operator, operator) pair and are shared by every architecture that has it. A path is an argument: nothing in the module says
which one is active, no pass through it changes the module, and training mode means nothing to it.

Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167): running statistics that many paths had written would be right for none. So the supernet has
none. It normalises by the batch, or by `PathStatistics` that the caller has gathered for the path (`kfnas.nn.recalibrate`) and passes in.

Shapes: N images, C channels, H x W pixels, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfnas.errors import SpaceError
from kfnas.nn.blocks import ACTIVATIONS, ConvNormAct, Layer, Linear
from kfnas.nn.network import Network, dropout, initialise
from kfnas.space import Architecture, LayerSpec, NetworkArguments
from kfnas.space.mixop import MixopSpace

Normalise: TypeAlias = Callable[[str, nn.BatchNorm2d, Tensor], Tensor]
"""Normalises the features [N, C, H, W] of one convolution, named by its place in the supernet, with that module's scale and shift."""


def by_batch(place: str, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Batch normalisation with the batch's own mean and variance, as in training."""
    return F.batch_norm(features, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


@dataclass(frozen=True)
class PathStatistics:
    """Means and variances of batch normalisation along one path, by place in the supernet.

    Attributes:
        architecture: whose path it is.
        means: [C] of each place.
        variances: [C] of each place, unbiased.
        num_batches: that were averaged.
    """

    architecture: Architecture
    means: Mapping[str, Tensor]
    variances: Mapping[str, Tensor]
    num_batches: int

    def normalise(self, place: str, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
        """Batch normalisation by these statistics, as in evaluation."""
        return F.batch_norm(features, self.means[place], self.variances[place], norm.weight, norm.bias, training=False, eps=norm.eps)


class SharedLayer(Layer):
    """A layer whose batch normalisation keeps no statistics: how to normalise is an argument. `place` is its name in the supernet."""

    def __init__(self, spec: LayerSpec, place: str) -> None:
        super().__init__(spec)
        self.place = place
        for module in self.modules():
            if isinstance(module, ConvNormAct):
                module.bn = nn.BatchNorm2d(module.bn.num_features, eps=module.bn.eps, track_running_stats=False)

    def forward(self, features: Tensor, normalise: Normalise = by_batch) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, ceil(H / stride), ceil(W / stride)]."""
        output = features
        for name in self._names:
            operation = self._modules[name]
            if isinstance(operation, ConvNormAct):
                output = ACTIVATIONS[operation.activation](normalise(f"{self.place}.{name}", operation.bn, operation.conv(output)))
            else:
                assert operation is not None
                output = operation(output)
        if self.skip == "identity":
            return output + features
        return output + self._pooled(features) if self.skip == "pool" else output


class Supernet(nn.Module):
    """Every operator of a mixed-operator space. Built by `build_supernet`; the constructor alone leaves weights uninitialised.

    Names in the state dict: `before.{layer}...`, `mixops.{index}.{operator}.{operation}.conv.weight`, `after.{layer}...`, `classifier.{index}.weight`.

    Attributes:
        space: whose paths it has.
        arguments: of the networks that are cut out of it.
    """

    def __init__(self, space: MixopSpace, arguments: NetworkArguments) -> None:
        super().__init__()
        self.space = space
        self.arguments = arguments
        layers = space.layers(arguments)
        self._linears = layers.classifier
        self._dropout = layers.dropout
        self.before = nn.ModuleDict({layer.name: SharedLayer(layer, f"before.{layer.name}") for layer in layers.before})
        self.mixops = nn.ModuleList(
            nn.ModuleDict(
                {str(choice): SharedLayer(layer, f"mixops.{index}.{choice}") for choice, layer in zip(space.decisions[index].choices, choices, strict=True)}
            )
            for index, choices in enumerate(layers.mixops)
        )
        self.after = nn.ModuleDict({layer.name: SharedLayer(layer, f"after.{layer.name}") for layer in layers.after})
        self.classifier = nn.ModuleList(Linear(linear.in_features, linear.out_features) for linear in layers.classifier)

    def forward(
        self, images: Tensor, architecture: Architecture, *, statistics: PathStatistics | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Outputs [N, O] of images [N, in_channels, H, W] along one path.

        Args:
            images: the batch.
            architecture: the path, of the supernet's space.
            statistics: by which batch normalisation normalises; None is by the batch.
            generator: on the device of the images, draws the dropout before the last linear layer; None: no dropout.

        Raises:
            SpaceError: an architecture of another space, or statistics of another path.
        """
        if statistics is not None and statistics.architecture != architecture:
            raise SpaceError(f"the statistics are those of {statistics.architecture}, the path is {architecture}; recalibrate for it")
        return self.run(images, architecture, by_batch if statistics is None else statistics.normalise, generator)

    def run(self, images: Tensor, architecture: Architecture, normalise: Normalise, generator: torch.Generator | None = None) -> Tensor:
        """`forward` with any way to normalise."""
        path = self.path(architecture)
        features = self.enter(images, normalise)
        for layer in path:
            features = layer(features, normalise)
        return self.leave(features, normalise, generator)

    def enter(self, images: Tensor, normalise: Normalise = by_batch) -> Tensor:
        """Features [N, C, H, W] that the first mixed operator gets."""
        features = images
        for layer in self.before.values():
            features = layer(features, normalise)
        return features

    def leave(self, features: Tensor, normalise: Normalise = by_batch, generator: torch.Generator | None = None) -> Tensor:
        """Outputs [N, O] of what the last mixed operator gave."""
        for layer in self.after.values():
            features = layer(features, normalise)
        outputs = F.adaptive_avg_pool2d(features, 1).flatten(1)
        for index, (linear, spec) in enumerate(zip(self.classifier, self._linears, strict=True)):
            if generator is not None and index == len(self._linears) - 1:
                outputs = dropout(outputs, self._dropout, generator)
            outputs = ACTIVATIONS[spec.activation](linear(outputs))
        return outputs

    def operator(self, mixop: int, choice: int) -> SharedLayer:
        """The layer of one choice (an index) of one mixed operator."""
        layer = self.mixops[mixop][str(self.space.decisions[mixop].choices[choice])]  # type: ignore[index]
        assert isinstance(layer, SharedLayer)
        return layer

    def path(self, architecture: Architecture) -> list[SharedLayer]:
        """The layers that `architecture` has chosen, one a mixed operator.

        Raises:
            SpaceError: an architecture of another space.
        """
        return [mixop[str(choice)] for mixop, choice in zip(self.mixops, self.space.choices_of(architecture).values(), strict=True)]  # type: ignore[index]

    def path_parameters(self, architecture: Architecture) -> list[nn.Parameter]:
        """What a step along the path trains: the shared ends and the chosen operators, in the order of the path."""
        ends = (self.before, *self.path(architecture), self.after, self.classifier)
        return [parameter for module in ends for parameter in module.parameters()]

    @torch.no_grad()
    def cut(self, architecture: Architecture, statistics: PathStatistics) -> Network:
        """The path as a network of its own, in evaluation mode, with copies of the weights and the given statistics.

        It is what `build_network` makes of `space.network(architecture, arguments)`, so it has that network's names.

        Raises:
            SpaceError: an architecture of another space, or statistics of another path.
        """
        if statistics.architecture != architecture:
            raise SpaceError(f"the statistics are those of {statistics.architecture}, the path is {architecture}; recalibrate for it")
        spec = self.space.network(architecture, self.arguments)
        sources = [layer for layer in (*self.before.values(), *self.path(architecture), *self.after.values()) if any(layer.children())]
        state = {f"classifier.{name}": tensor for name, tensor in self.classifier.state_dict().items()}
        # The canonical form has its identities elsewhere: what is left without them stands in the same order.
        for layer, source in zip([layer for layer in spec.layers if layer.operations], sources, strict=True):
            state |= {f"{layer.name}.{name}": tensor for name, tensor in source.state_dict().items()}
            for operation in layer.operations:
                place, norm = f"{source.place}.{operation.name}", f"{layer.name}.{operation.name}.bn"
                if place in statistics.means:
                    state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = statistics.means[place], statistics.variances[place]
                    state[f"{norm}.num_batches_tracked"] = torch.tensor(statistics.num_batches)
        network = Network(spec)
        network.load_state_dict(state)
        return network.to(next(self.parameters()).device).eval()


def build_supernet(space: MixopSpace, arguments: NetworkArguments, generator: torch.Generator | None = None) -> Supernet:
    """The supernet of `space` on the CPU, with Kaiming (fan-out) weights drawn from `generator`.

    Args:
        space: of mixed operators.
        arguments: of every network in it.
        generator: a CPU generator; None draws from one seeded with 0. Torch's global generator is never touched.
    """
    supernet = Supernet(space, arguments)
    initialise(supernet, generator if generator is not None else torch.Generator().manual_seed(0))
    return supernet
