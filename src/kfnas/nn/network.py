"""A torch module from a network specification.

Names in the state dict come from the specification: `{layer}.{operation}.conv.weight`, `{layer}.{operation}.bn.running_mean`,
`{layer}.{operation}.reduce.bias`, `classifier.{index}.weight`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfnas.errors import SpaceError
from kfnas.nn.blocks import ACTIVATIONS, Layer, Linear, register
from kfnas.space import NetworkSpec

CLASSIFIER_STD = 0.01


class Network(nn.Module):
    """Layers, global average pool, linear layers: images [N, in_channels, H, W] -> outputs [N, num_outputs].

    Built by `build_network`; the constructor alone leaves weights uninitialised.

    Raises:
        SpaceError: two layers have one name, or a name is part of another.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self._order = tuple(layer.name for layer in spec.layers)
        for layer in spec.layers:
            _place(self, layer.name, Layer(layer))
        _place(self, "classifier", nn.ModuleList([Linear(linear.in_features, linear.out_features) for linear in spec.classifier]))

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Outputs [N, num_outputs] of images [N, in_channels, H, W].

        `generator`, on the device of the images, draws the dropout of training mode; None leaves that to torch's global generator.
        """
        features = images
        for name in self._order:
            features = self.get_submodule(name)(features)
        outputs = F.adaptive_avg_pool2d(features, 1).flatten(1)
        for index, linear in enumerate(self.spec.classifier):
            if self.training and index == len(self.spec.classifier) - 1:
                outputs = dropout(outputs, self.spec.dropout, generator)
            outputs = ACTIVATIONS[linear.activation](self.get_submodule(f"classifier.{index}")(outputs))
        return outputs


def build_network(spec: NetworkSpec, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu") -> Network:
    """The network of `spec`, in training mode, with Kaiming (fan-out) weights drawn from `generator` on the CPU.

    Args:
        spec: what to build.
        generator: a CPU generator; None draws from one seeded with 0. Torch's global generator is never touched.
        device: where the network ends up; `meta` gives shapes without weights.

    Raises:
        SpaceError: the specification names two layers alike.
    """
    if torch.device(device).type == "meta":
        with torch.device("meta"):
            return Network(spec)
    with torch.device("cpu"):
        network = Network(spec)
    initialise(network, generator if generator is not None else torch.Generator().manual_seed(0))
    return network.to(device)


def weights_as_numpy(module: nn.Module) -> dict[str, npt.NDArray[np.generic]]:
    """Copies of the state dict's tensors as contiguous arrays; bfloat16, which numpy lacks, becomes float32."""
    return {name: _array(tensor) for name, tensor in module.state_dict().items()}


def _array(tensor: Tensor) -> npt.NDArray[np.generic]:
    values = tensor.detach().cpu()
    if values.dtype == torch.bfloat16:
        values = values.float()
    return np.array(values.numpy(), order="C", copy=True)


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register `module` under a dotted name, with plain containers on the way."""
    *path, last = name.split(".")
    parent = root
    for part in path:
        if part not in parent._modules:
            register(parent, part, nn.Module())
        parent = parent.get_submodule(part)
        if isinstance(parent, Layer):
            raise SpaceError(f"layer {name!r} of a network specification lies within another layer; choose a name that starts with no other layer's name")
    register(parent, last, module)


def dropout(features: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """`features` with a share of the values zeroed and the others scaled up to keep the mean; None draws from torch's global generator."""
    if share == 0:
        return features
    if generator is None:
        return F.dropout(features, share)
    kept = torch.empty_like(features).bernoulli_(1 - share, generator=generator)
    return features * kept / (1 - share)


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights of convolutions (Kaiming, fan-out) and linear layers in the order of the state dict; their biases become zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0.0, CLASSIFIER_STD, generator=generator)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.zero_()
