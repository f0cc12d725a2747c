import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as reference
from torch.testing import assert_close

from rlplatform.models.distributions import Categorical, LogisticNormal, TanhNormal


def normal_params(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mean = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return mean, -0.7 + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)


def logistic(*shape, leverage=False, **kwargs):
    return LogisticNormal(*normal_params(*shape, **kwargs), leverage=leverage)


def tanh(*shape, **kwargs):
    bounds = torch.tensor([[-2.0, 1.5, -1.0], [2.0, 2.0, 0.0]], dtype=torch.float64)[:, : shape[-1]]
    return TanhNormal(*normal_params(*shape, **kwargs), *bounds)


def categorical(*shape, seed=0, scale=1.0):
    return Categorical(normal_params(*shape, seed=seed, scale=scale)[0])


EVERY = [categorical, logistic, lambda *s, **k: logistic(*s, leverage=True, **k), tanh]
NORMALS = EVERY[1:]


def test_half_cash_half_stock_has_the_density_a_hand_gets():
    # y = 0: log N(0; 0, 1) = −0.919; Jacobian −(log ½ + log ½) = 1.386
    distribution = LogisticNormal(torch.zeros(1), torch.zeros(1))
    assert_close(distribution.log_prob(torch.tensor([0.5, 0.5])), torch.tensor(-0.9189 + 1.3863), atol=1e-4, rtol=0)


def test_the_mode_of_equal_logits_is_equal_weights_with_cash_first():
    distribution = LogisticNormal(torch.tensor([0.0, 0.0, math.log(2)]), torch.zeros(3))
    assert_close(distribution.mode(), torch.tensor([0.2, 0.2, 0.2, 0.4]))


def test_two_weights_agree_with_torchs_sigmoid_transform():
    mean, log_std = normal_params(50, 1)
    base = reference.Normal(mean[:, 0], log_std[:, 0].exp())
    expected = reference.TransformedDistribution(base, reference.SigmoidTransform())
    stock = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    weights = torch.stack([1 - stock, stock], -1)
    assert_close(LogisticNormal(mean, log_std).log_prob(weights), expected.log_prob(stock))


def test_leverage_is_an_independent_sigmoid_coordinate():
    distribution = logistic(7, 3, leverage=True)
    action = distribution.sample()
    base = reference.Normal(distribution.mean[:, -1], distribution.log_std[:, -1].exp())
    level = reference.TransformedDistribution(base, reference.SigmoidTransform()).log_prob(action[:, -1])
    weights = LogisticNormal(distribution.mean[:, :-1], distribution.log_std[:, :-1]).log_prob(action[:, :-1])
    assert_close(distribution.log_prob(action), weights + level)


def test_the_density_on_the_simplex_integrates_to_one():
    n = 400
    grid = (np.arange(n) + 0.5) / n
    w1, w2 = (torch.from_numpy(g.ravel()) for g in np.meshgrid(grid, grid))
    # Map the unit square onto the triangle: (u, v) → (u, v (1 − u)), of area element 1 − u.
    weights = torch.stack([(1 - w1) * (1 - w2), w1, w2 * (1 - w1)], -1)
    mean = torch.tensor([0.4, -0.3], dtype=torch.float64)
    density = LogisticNormal(mean, torch.log(torch.tensor([0.8, 0.5], dtype=torch.float64))).log_prob(weights).exp()
    assert (density * (1 - w1)).mean().item() == pytest.approx(1.0, abs=1e-4)


def test_tanh_agrees_with_torchs_tanh_and_affine_transforms():
    distribution = tanh(40, 3)
    low, high = distribution.centre - distribution.half_width, distribution.centre + distribution.half_width
    base = reference.Normal(distribution.mean, distribution.log_std.exp())
    maps = [reference.TanhTransform(), reference.AffineTransform((low + high) / 2, (high - low) / 2)]
    action = distribution.sample()
    assert_close(distribution.log_prob(action), reference.TransformedDistribution(base, maps).log_prob(action).sum(-1))


def test_categorical_agrees_with_torch():
    logits, others = normal_params(6, 5)[0], normal_params(6, 5, seed=1)[0]
    ours, other = Categorical(logits), Categorical(others)
    theirs = reference.Categorical(logits=logits)
    action = ours.sample()
    assert_close(ours.log_prob(action), theirs.log_prob(action))
    assert_close(ours.entropy(), theirs.entropy())
    assert_close(ours.kl(other), reference.kl_divergence(theirs, reference.Categorical(logits=others)))


def test_categorical_samples_follow_the_probabilities():
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1])).expand(20_000, 3)
    counts = torch.bincount(Categorical(logits).sample(torch.Generator().manual_seed(0)), minlength=3) / 20_000
    assert_close(counts, torch.tensor([0.7, 0.2, 0.1]), atol=0.015, rtol=0)


@pytest.mark.parametrize("make", NORMALS)
def test_kl_is_the_mean_log_ratio_of_samples(make):
    p, q = make(1, 3, seed=1), make(1, 3, seed=2)
    big = type(p).__new__(type(p))
    big.__dict__ = {**p.__dict__, "mean": p.mean.expand(100_000, 3), "log_std": p.log_std.expand(100_000, 3)}
    action = big.sample(torch.Generator().manual_seed(0))
    estimate = (big.log_prob(action) - q.log_prob(action)).mean()
    assert_close(p.kl(q)[0], estimate, rtol=0.03, atol=0.0)


@pytest.mark.parametrize("make", NORMALS)
def test_entropy_is_that_before_the_map_and_the_map_adds_its_log_determinant(make):
    p = make(100_000, 3, scale=0.0)
    action = p.sample(torch.Generator().manual_seed(0))
    after = -p.log_prob(action).mean()
    assert_close(p.entropy().mean() + p.log_det(p.to_normal(action)).mean(), after, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
def test_every_distribution_keeps_the_leading_axes(make, shape):
    p = make(*shape)
    action = p.sample()
    assert p.log_prob(action).shape == p.entropy().shape == p.kl(p).shape == shape[:-1]
    assert p.mode().shape == action.shape
    assert_close(p.kl(p), torch.zeros(shape[:-1], dtype=torch.float64))


@pytest.mark.parametrize("make", EVERY)
def test_the_same_generator_gives_the_same_sample(make):
    p = make(5, 3)
    first, second = (p.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("make", NORMALS)
def test_the_jacobian_cancels_in_ppos_ratio(make):
    p, q = make(9, 3, seed=1), make(9, 3, seed=2)
    action = p.sample()
    y = p.to_normal(action)
    plain = [reference.Normal(d.mean, d.log_std.exp()).log_prob(y).sum(-1) for d in (p, q)]
    assert_close(p.log_prob(action) - q.log_prob(action), plain[0] - plain[1])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 300), st.floats(-5, 2), st.booleans())
def test_extreme_logits_in_float32_give_feasible_weights_finite_densities_and_gradients(seed, scale, log_std, leverage):
    generator = torch.Generator().manual_seed(seed)
    mean = (scale * torch.randn(8, 5, generator=generator)).requires_grad_()
    spread = torch.full((8, 5), log_std).requires_grad_()
    p = LogisticNormal(mean, spread, leverage)
    for action in (p.sample(generator), p.mode().detach()):
        weights = action[:, :-1] if leverage else action
        assert (weights >= 0).all()
        assert_close(weights.sum(-1), torch.ones(8))
        log_prob = p.log_prob(action)
        assert torch.isfinite(log_prob).all()
        gradients = torch.autograd.grad(log_prob.sum(), (mean, spread))
        assert all(torch.isfinite(g).all() for g in gradients)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 300), st.floats(-5, 2))
def test_extreme_means_in_float32_stay_in_the_box_with_finite_densities_and_gradients(seed, scale, log_std):
    generator = torch.Generator().manual_seed(seed)
    mean = (scale * torch.randn(8, 2, generator=generator)).requires_grad_()
    low, high = torch.tensor([-2.0, 0.1]), torch.tensor([2.0, 0.7])
    p = TanhNormal(mean, torch.full((8, 2), log_std), low, high)
    for action in (p.sample(generator), p.mode().detach()):
        assert ((action >= low) & (action <= high)).all()
        log_prob = p.log_prob(action)
        assert torch.isfinite(log_prob).all()
        assert torch.isfinite(torch.autograd.grad(log_prob.sum(), mean)[0]).all()


def test_a_vertex_of_the_simplex_has_a_finite_density():
    p = LogisticNormal(torch.zeros(2), torch.zeros(2))
    assert torch.isfinite(p.log_prob(torch.eye(3))).all()
