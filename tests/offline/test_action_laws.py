import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.spaces import Simplex, signed_box
from rlplatform.models.heads import head_for
from rlplatform.offline.action_laws import Drawn, Fixed, Greedy, Uniform, noisy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_uniform_laws_densities_by_hand():
    assert_allclose(Uniform(gym.spaces.Discrete(16), 2).log_prob(torch.tensor([0, 3])), -math.log(16), rtol=1e-6)
    assert_allclose(Uniform(signed_box(2), 1).log_prob(torch.zeros(1, 2)), -math.log(4), rtol=1e-6)
    # w₁, w₂ over the triangle below w₁ + w₂ = 1: area 1/2, density 2.
    assert_allclose(Uniform(Simplex(3), 1).log_prob(torch.tensor([[0.2, 0.3, 0.5]])), math.log(2), rtol=1e-6)


@pytest.mark.parametrize("space", [gym.spaces.Discrete(16), signed_box(3), Simplex(4), Simplex(4, leverage=True)], ids=str)
def test_uniform_draws_lie_inside_and_reach_everywhere(space):
    draws = Uniform(space, 4_000).sample(generator()).numpy()
    assert all(draw in space for draw in draws[:200])
    if isinstance(space, gym.spaces.Discrete):
        assert_allclose(np.bincount(draws, minlength=16) / 4_000, 1 / 16, atol=0.02)
    elif isinstance(space, Simplex):
        assert_allclose(draws[:, :4].mean(0), 0.25, atol=0.01)


def test_epsilon_greedy_has_exact_masses():
    base = Fixed(torch.full((16,), 3))
    law = Greedy(base, Uniform(gym.spaces.Discrete(16), 16), 0.32)
    masses = law.log_prob(torch.arange(16)).exp().numpy()
    assert_allclose(masses[3], 0.68 + 0.02, rtol=1e-6)
    assert_allclose(np.delete(masses, 3), 0.02, rtol=1e-6)
    assert_allclose(masses.sum(), 1, rtol=1e-6)


def test_epsilon_greedy_draws_as_often_as_it_says():
    law = Greedy(Fixed(torch.full((20_000,), 3)), Uniform(gym.spaces.Discrete(16), 20_000), 0.32)
    assert_allclose((law.sample(generator()) == 3).float().mean(), 0.70, atol=0.01)


def test_a_certain_continuous_action_has_no_density_and_a_discrete_one_has_mass_one():
    assert torch.isnan(Fixed(torch.zeros(2, 3)).log_prob(torch.zeros(2, 3))).all()
    assert Fixed(torch.tensor([1, 2])).log_prob(torch.tensor([1, 5])).tolist() == [0.0, -math.inf]


@pytest.mark.parametrize("space", [signed_box(1), Simplex(2)], ids=str)
def test_the_density_of_noise_integrates_to_one(space):
    """In the last entry's own coordinate, on a grid of the open interval."""
    head = head_for(space)
    low, high = (-1.0, 1.0) if head.kind == "tanh_normal" else (0.0, 1.0)
    x = torch.linspace(low, high, 20_003)[1:-1]
    grid = x[:, None] if head.kind == "tanh_normal" else torch.stack([1 - x, x], -1)
    base = torch.tensor([[0.5]]) if head.kind == "tanh_normal" else torch.tensor([[0.3, 0.7]])
    for law in (
        noisy(head, base.expand(len(grid), -1), 0.4, 0.02),
        Greedy(noisy(head, base.expand(len(grid), -1), 0.4, 0.02), Uniform(space, len(grid)), 0.2),
    ):
        assert_allclose(law.log_prob(grid).exp().sum() * (high - low) / 20_002, 1, atol=2e-3)


@pytest.mark.parametrize("space", [signed_box(2), Simplex(3), Simplex(3, leverage=True)], ids=str)
def test_noise_moves_even_an_action_on_the_edge_and_stays_inside(space):
    edge = torch.tensor([[0.0, 0.0, 1.0, 1.0][: space.shape[0]]]).expand(500, -1)
    if not isinstance(space, Simplex):
        edge = torch.tensor([[-1.0, 1.0]]).expand(500, -1)
    law = noisy(head_for(space), edge, 0.5, 0.02)
    draws = law.sample(generator())
    assert all(draw in space for draw in draws.numpy())
    assert draws.std(0).min() > 1e-3
    assert torch.isfinite(law.log_prob(draws)).all()
    assert isinstance(law, Drawn)


def test_noise_on_discrete_actions_is_refused():
    with pytest.raises(ConfigError, match="Use epsilon"):
        noisy(head_for(gym.spaces.Discrete(16)), torch.zeros(1), 0.2, 0.02)
