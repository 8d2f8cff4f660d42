"""The LSTM policy is a probability distribution over architectures, and draws from it."""

import itertools
import math

import pytest
import torch

from kfnas.controller.config import PolicyConfig
from kfnas.controller.policy import Policy

CHOICES = (3, 2, 4)


def _policy(seed: int = 0, choices: tuple[int, ...] = CHOICES, init_scale: float = 1.0) -> Policy:
    return Policy(choices, PolicyConfig(hidden_units=16, init_scale=init_scale), torch.Generator().manual_seed(seed))


def _all_tokens(choices: tuple[int, ...] = CHOICES) -> torch.Tensor:
    return torch.tensor(list(itertools.product(*map(range, choices))))


def test_probabilities_of_all_architectures_sum_to_one() -> None:
    log_prob = _policy()(_all_tokens()).log_prob
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert log_prob.exp().max() > 2 * log_prob.exp().min()


def test_draws_follow_the_probabilities() -> None:
    policy, count = _policy(), 20_000
    tokens = policy.sample(count, torch.Generator().manual_seed(1))
    index = (tokens[:, 0] * 2 + tokens[:, 1]) * 4 + tokens[:, 2]
    observed = torch.bincount(index, minlength=24).double()
    expected = policy(_all_tokens()).log_prob.detach().double().exp() * count
    # Chi-square with 23 degrees of freedom: 58.6 is passed once in 15,000 seeds; the seed is fixed.
    assert ((observed - expected).square() / expected).sum().item() < 58.6


def test_entropy_of_a_uniform_policy_is_the_log_of_the_number_of_architectures() -> None:
    policy = _policy()
    with torch.no_grad():
        policy.head_weight.zero_()
    output = policy(_all_tokens())
    assert output.entropy.detach().numpy() == pytest.approx(math.log(24), abs=1e-5)
    assert output.log_prob.detach().numpy() == pytest.approx(-math.log(24), abs=1e-5)


def test_mean_entropy_of_the_decisions_is_that_of_the_whole_distribution() -> None:
    output = _policy()(_all_tokens())
    probabilities = output.log_prob.exp()
    chain_rule = (probabilities * output.entropy).sum().item()
    assert chain_rule == pytest.approx(-(probabilities * output.log_prob).sum().item(), abs=1e-4)


def test_a_decision_with_one_choice_has_no_entropy_and_finite_gradients() -> None:
    policy = _policy(choices=(1, 3))
    output = policy(torch.tensor([[0, 2], [0, 1]]))
    (output.log_prob.sum() + output.entropy.sum()).backward()
    assert torch.isfinite(output.entropy).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in policy.parameters() if parameter.grad is not None)


def test_default_policy_starts_nearly_uniform() -> None:
    policy = Policy((4,) * 28, PolicyConfig(), torch.Generator().manual_seed(0))
    entropy = policy(policy.sample(8, torch.Generator().manual_seed(1))).entropy
    assert entropy.min().item() > 0.95 * 28 * math.log(4)


def test_same_generator_gives_identical_weights_and_draws_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    first, second = _policy(seed=5), _policy(seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    draws = [policy.sample(8, torch.Generator().manual_seed(2)) for policy in (first, second)]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(torch.get_rng_state(), before)
