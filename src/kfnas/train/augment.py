"""Augmentation on the device, a whole batch at a time.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

Policy = Literal["cifar10", "imagenet", "svhn"]


def crop_and_flip(images: torch.Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """Move each image by up to `padding` pixels either way, zeros coming in, and mirror half of them left to right if `flip`.

    Args:
        images: [N, C, H, W] of any type.
        padding: pixels, 0 or more.
        flip: whether images are mirrored at random.
        generator: of the offsets and mirrors, on the CPU.

    Returns:
        [N, C, H, W], channels last in memory where anything was done.
    """
    if not padding and not flip:
        return images
    num, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(num, height)
    columns = torch.arange(width, device=device).expand(num, width)
    if flip:
        mirrored = torch.randint(2, (num, 1), generator=generator).to(device)
        columns = torch.where(mirrored == 1, width - 1 - columns, columns)
    if padding:
        offsets = torch.randint(2 * padding + 1, (2, num, 1), generator=generator).to(device)
        rows, columns = rows + offsets[0], columns + offsets[1]
        images = F.pad(images, (padding, padding, padding, padding))
    which = torch.arange(num, device=device)[:, None, None]
    return images[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def auto_augment(images: torch.Tensor, policy: Policy, generator: torch.Generator) -> torch.Tensor:
    """AutoAugment (Cubuk et al., arXiv:1805.09501) with a policy that was learnt on another data set, image by image.

    Args:
        images: uint8 [N, C, H, W], C of 1 or 3.
        policy: `cifar10 | imagenet | svhn`.
        generator: of the choices, on the CPU.

    Returns:
        uint8 [N, C, H, W], on the images' device.
    """
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    augment = AutoAugment(AutoAugmentPolicy(policy))
    seed = int(torch.randint(2**31, (1,), generator=generator))
    # torchvision draws from torch's global generator, which is as it was afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([augment(image) for image in images.cpu()]).to(images.device)


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Float32 images of zero mean and unit deviation, channels last in memory.

    Args:
        images: uint8 [N, C, H, W].
        mean: of each channel, on the scale 0 to 1.
        std: of each channel, on the scale 0 to 1, positive.
    """
    shape = (1, -1, 1, 1)
    scale = torch.tensor([1 / (255 * value) for value in std], device=images.device).view(shape)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device).view(shape)
    return torch.addcmul(shift, images.float(), scale).contiguous(memory_format=torch.channels_last)


class Mixture(NamedTuple):
    """A batch mixed with itself: the loss is share * loss(targets) + (1 - share) * loss(targets[partner])."""

    images: torch.Tensor
    partner: torch.Tensor
    share: float


def mixup(images: torch.Tensor, alpha: float, rng: np.random.Generator) -> Mixture:
    """Mix each image with another of the batch (Zhang et al., arXiv 1710.09412), one Beta(alpha, alpha) share for the whole batch.

    Args:
        images: float [N, C, H, W].
        alpha: positive; the smaller, the nearer the share is to 0 or 1.
        rng: of the share and the partners.
    """
    share = float(rng.beta(alpha, alpha))
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    return Mixture(torch.lerp(images[partner], images, share), partner, share)
