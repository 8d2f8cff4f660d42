"""Fitting against closed forms."""

import numpy as np
import pytest

from kfnas.pool.fitting import fit, fit_kernel, fit_tensor


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def numbered(*shape: int) -> np.ndarray:
    return np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape)


def test_an_equal_shape_is_taken_as_it_is() -> None:
    donor = numbered(2, 3, 3, 3)
    fitted = fit_tensor(donor, (2, 3, 3, 3), "0.conv.weight", rng())
    assert np.array_equal(fitted, donor)
    assert not np.shares_memory(fitted, donor)
    assert np.array_equal(fit_tensor(np.array(7), (), "0.bn.num_batches_tracked", rng()), np.array(7))


def test_a_larger_kernel_is_cropped_to_its_centre() -> None:
    donor = numbered(1, 1, 5, 5)
    assert np.array_equal(fit_kernel(donor, (3, 3))[0, 0], [[7, 8, 9], [12, 13, 14], [17, 18, 19]])
    assert np.array_equal(fit_kernel(donor, (1, 5))[0, 0], [[11, 12, 13, 14, 15]])


def test_a_smaller_kernel_stands_amid_zeros() -> None:
    fitted = fit_kernel(numbered(1, 1, 3, 3), (5, 5))[0, 0]
    assert np.array_equal(fitted[1:4, 1:4], numbered(3, 3))
    assert fitted.sum() == numbered(3, 3).sum()
    assert np.array_equal(fit_kernel(fit_kernel(numbered(4, 2, 3, 3), (7, 7)), (3, 3)), numbered(4, 2, 3, 3))


def test_a_padded_kernel_computes_what_the_small_one_does() -> None:
    import torch
    from torch.nn import functional as F

    donor, images = torch.from_numpy(numbered(2, 3, 3, 3)), torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    padded = torch.from_numpy(fit_kernel(donor.numpy(), (5, 5)))
    assert torch.allclose(F.conv2d(images, donor, padding=1), F.conv2d(images, padded, padding=2))


def test_fewer_channels_are_the_leading_ones() -> None:
    donor = numbered(4, 3, 3, 3)
    assert np.array_equal(fit_tensor(donor, (2, 2, 3, 3), "0.conv.weight", rng()), donor[:2, :2])
    assert np.array_equal(fit_tensor(numbered(4), (3,), "0.bn.running_mean", rng()), [1, 2, 3])


def test_a_smaller_kernel_and_fewer_channels_go_together() -> None:
    donor = numbered(4, 3, 5, 5)
    assert np.array_equal(fit_tensor(donor, (2, 3, 3, 3), "0.conv.weight", rng()), donor[:2, :, 1:4, 1:4])


@pytest.mark.parametrize(
    ("name", "value"), [("0.op.bn.weight", 1), ("0.op.bn.running_var", 1), ("0.op.bn.bias", 0), ("0.op.bn.running_mean", 0), ("0.se.reduce.bias", 0)]
)
def test_a_vector_grows_by_what_a_random_network_has(name: str, value: float) -> None:
    fitted = fit_tensor(numbered(3), (5,), name, rng())
    assert np.array_equal(fitted, [1, 2, 3, value, value])
    assert fitted.dtype == np.float32


def test_channels_that_the_donor_lacks_are_kaiming_fan_out() -> None:
    donor = np.full((4, 3, 3, 3), 100, dtype=np.float32)
    fitted = fit_tensor(donor, (400, 60, 3, 3), "0.conv.weight", rng())
    assert (fitted[:4, :3] == 100).all()
    fresh = np.concatenate([fitted[4:].ravel(), fitted[:4, 3:].ravel()])
    assert abs(fresh).max() < 1
    assert np.isclose(fresh.std(), np.sqrt(2 / (400 * 9)), rtol=0.02)  # 200,000 draws: 1 in 10^30 beyond
    assert fitted.dtype == np.float32


def test_growing_repeats_with_the_generator_and_shrinking_draws_nothing() -> None:
    donor = numbered(2, 2, 3, 3)
    assert np.array_equal(fit_tensor(donor, (4, 4, 3, 3), "w", rng()), fit_tensor(donor, (4, 4, 3, 3), "w", rng()))
    generator = rng()
    fit_tensor(donor, (1, 2, 3, 3), "w", generator)
    assert generator.random() == rng().random()


def test_tensors_that_the_donor_lacks_or_has_in_another_form_are_left_out() -> None:
    donor = {"0.a": numbered(2), "0.b": numbered(2, 2), "1.a": numbered(2)}
    fitted = fit(donor, {"0.a": (2,), "0.b": (2,), "0.c": (2,)}, rng())
    assert list(fitted) == ["0.a"]
