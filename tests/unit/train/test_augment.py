"""Crops, mirrors, normalisation and mixup, against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kfnas.train import crop_and_flip, mixup, normalise
from kfnas.train.augment import auto_augment


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmented_image_is_a_shifted_and_maybe_mirrored_one(channels: int) -> None:
    images = torch.randint(1, 256, (64, channels, 6, 6), dtype=torch.uint8, generator=_generator())
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, output in zip(padded, crop_and_flip(images, padding=2, flip=True, generator=_generator(1)), strict=True):
        windows = {(dy, dx, m): image[:, dy : dy + 6, dx : dx + 6] for dy in range(5) for dx in range(5) for m in (False, True)}
        matches = [key for key, window in windows.items() if torch.equal(output, window.flip(2) if key[2] else window)]
        assert len(matches) == 1
        seen.update(matches)
    assert {dy for dy, _, _ in seen} == {dx for _, dx, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_nothing_to_do_gives_the_images_themselves() -> None:
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert crop_and_flip(images, padding=0, flip=False, generator=_generator()) is images


def test_normalised_pixels_have_the_worked_values() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(2, 3, 1, 3)
    output = normalise(images, [0.0, 0.2, 1.0], [1.0, 0.5, 0.25])
    expected = torch.tensor([[0.0, 0.2, 1.0], [-0.4, 0.0, 1.6], [-4.0, -3.2, 0.0]])
    torch.testing.assert_close(output[1, :, 0], expected)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_mixup_mixes_each_image_with_its_partner() -> None:
    images = torch.rand(8, 1, 4, 4, generator=_generator())
    mixture = mixup(images, 0.4, np.random.default_rng(0))
    assert 0 <= mixture.share <= 1
    assert sorted(mixture.partner.tolist()) == list(range(8))
    torch.testing.assert_close(mixture.images, mixture.share * images + (1 - mixture.share) * images[mixture.partner])


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_depends_on_the_generator_alone_and_leaves_torchs_own_as_it_was(channels: int) -> None:
    images = torch.randint(0, 256, (16, channels, 12, 12), dtype=torch.uint8, generator=_generator(3))
    before = torch.random.get_rng_state()
    first = auto_augment(images, "cifar10", _generator(1))
    torch.manual_seed(99)
    again = auto_augment(images, "cifar10", _generator(1))
    torch.random.set_rng_state(before)
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert torch.equal(first, again)
    assert not torch.equal(first, images)
    assert not torch.equal(first, auto_augment(images, "cifar10", _generator(2)))
    auto_augment(images, "svhn", _generator(1))
    assert torch.equal(torch.random.get_rng_state(), before)
