"""The quantile critic: its loss and its tails by hand, then what every model does with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import model_config_dict, model_config_from
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import LogisticNormalHead
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy
from rlplatform.models.quantile_critic import (
    QuantileCriticConfig,
    levels,
    quantile_loss,
    shortfall_utility,
    value_at_risk,
)

CRITIC = QuantileCriticConfig(quantiles=8)
NAMES = ("A.return_1", "B.return_1", "vix", "cash_weight", "weight_A", "weight_B")
GRAPH = GNNConfig(hidden_size=8, graph="full").bound_to(ObservationLayout(("A", "B"), NAMES))
CONFIGS = [replace(c, critic=CRITIC) for c in (GRUConfig(hidden_size=8, embedding_size=8), MLPConfig(layers=(8,)), GRAPH)]
HEAD = LogisticNormalHead(3)
D = len(NAMES)

every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)


def network(config) -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(config, D, HEAD)


def cvar(returns, alpha) -> torch.Tensor:
    """Of K equally likely returns in order, ν their own quantile."""
    return shortfall_utility(returns, value_at_risk(returns, alpha), alpha).mean(-1)


# --- by hand ---------------------------------------------------------------------------------------------------------------


def test_four_quantiles_stand_at_an_eighth_three_eighths_and_so_on():
    assert_close(levels(4), torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_the_loss_of_two_quantiles_against_two_samples():
    # τ = 1/4, 3/4; θ = 0, 1. y = 2: u = 2, 1 → 2/4, 3/4. y = −1: u = −1, −2 → 3/4, 2/4.
    quantiles, samples = torch.tensor([0.0, 1.0]), torch.tensor([2.0, -1.0])
    assert quantile_loss(quantiles, samples).item() == pytest.approx((0.5 + 0.75 + 0.75 + 0.5) / 4)


def test_huber_squares_small_errors_and_shifts_large_ones():
    # κ = 2; θ = 0 at τ = 1/2 (given twice). u = 1: ½·1/2 = 1/4; u = −3: 3 − 1 = 2; each times ½.
    loss = quantile_loss(torch.zeros(1), torch.tensor([1.0, -3.0]), huber=2.0)
    assert loss.item() == pytest.approx(0.5 * (0.25 + 2.0) / 2)


def test_value_at_risk_lies_between_the_quantiles_around_its_level():
    quantiles = torch.tensor([-4.0, 0.0, 1.0, 2.0])  # at 1/8, 3/8, 5/8, 7/8
    for alpha, expected in ((0.125, -4.0), (0.25, -2.0), (0.375, 0.0), (0.01, -4.0), (0.99, 2.0), (1.0, 2.0)):
        assert value_at_risk(quantiles, alpha).item() == pytest.approx(expected)


def test_cvar_of_eight_returns_is_what_the_worst_of_them_average():
    returns = torch.tensor([-8.0, -4.0, 0.0, 1.0, 1.0, 2.0, 3.0, 5.0])
    # Worst quarter: ν = −2, between −4 and 0; f = −2 − 6/¼ , −2 − 2/¼, −2 …; the mean is −2 − (6 + 2)/8 · 4 = −6.
    assert cvar(returns, 0.25).item() == pytest.approx(-6.0)
    assert cvar(returns, 1.0).item() == pytest.approx(returns.mean().item())


# --- laws ------------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=20, max_size=20), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_the_utility_is_highest_at_the_value_at_risk_and_then_cvar(values, alpha):
    returns = torch.tensor(sorted(values), dtype=torch.float64)
    worst = returns[: round(alpha * 20)].mean()  # its definition
    best = max(shortfall_utility(returns, nu, alpha).mean() for nu in returns)
    assert_close(best, worst, rtol=0, atol=1e-9)
    assert_close(cvar(returns, alpha), worst, rtol=0, atol=1e-9)
    assert cvar(returns, alpha) <= returns.mean() + 1e-9


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_descent_on_the_loss_finds_the_quantiles(alpha):
    torch.manual_seed(0)
    quantiles = torch.zeros(16, requires_grad=True)
    optimizer = torch.optim.Adam([quantiles], lr=0.05)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        optimizer.zero_grad()
        quantile_loss(quantiles, torch.randn(256, 1).expand(256, 16).T.reshape(-1)[:256]).backward()
        optimizer.step()
    found = quantiles.detach()
    assert_close(found, torch.special.ndtri(levels(16)), atol=0.15, rtol=0)
    assert (found.diff() > 0).all()
    assert value_at_risk(found, alpha).item() == pytest.approx(torch.special.ndtri(torch.tensor(alpha)).item(), abs=0.2)


# --- in a network ----------------------------------------------------------------------------------------------------------


@every_config
def test_quantiles_rise_and_their_mean_is_the_value(config):
    net = network(config)
    out = net(torch.randn(5, 7, D), net.initial_state(5))
    assert out.quantiles.shape == (5, 7, 8)
    assert (out.quantiles.diff(dim=-1) >= 0).all()
    assert_close(out.quantiles.mean(-1), out.value)
    features, _ = net.encoder(torch.randn(5, D), net.initial_state(5))
    assert_close(net.values(features), net.quantiles(features).mean(-1))


@every_config
def test_a_plain_critic_has_no_quantiles_and_the_same_policy(config):
    plain = network(replace(config, critic=None))
    assert plain(torch.zeros(2, D), plain.initial_state(2)).quantiles is None
    with_critic = network(config)
    shared = {name: x for name, x in plain.state_dict().items() if not name.startswith("value.")}
    with_critic.load_state_dict(shared, strict=False)
    obs, state = torch.randn(3, D), plain.initial_state(3)
    assert torch.equal(plain(obs, state).params, with_critic(obs, state).params)


@every_config
def test_config_and_policy_come_back_from_disk(config, tmp_path):
    assert model_config_from(model_config_dict(config)) == config
    policy = Policy(network(config), None, "Portfolio-v0")
    loaded = Policy.load(policy.save(tmp_path / "policy"))
    obs = np.random.default_rng(0).standard_normal((3, D)).astype(np.float32)
    for mine, theirs in zip(
        policy.act(obs, policy.initial_state(3))[:2], loaded.act(obs, loaded.initial_state(3))[:2], strict=True
    ):
        assert np.array_equal(mine, theirs)
    assert loaded.config.critic == CRITIC


def test_a_policy_saved_before_there_were_critics_still_loads():
    described = model_config_dict(MLPConfig(layers=(8,)))
    del described["critic"]
    assert model_config_from(described) == MLPConfig(layers=(8,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantiles": 1}, "model.critic.quantiles = 1; expected 2 to 512"),
        ({"huber": -0.5}, "model.critic.huber = -0.5; expected 0 or more"),
        ({"kind": "mean"}, "model.critic.kind = 'mean'; expected 'quantile'"),
    ],
)
def test_settings_without_meaning_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        QuantileCriticConfig(**settings)
