"""Portfolio-v0: from action to weights, and the observation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs import make
from envs.errors import ConfigError
from envs.guards import LossShutdownConfig
from envs.portfolio import PortfolioConfig
from envs.rewards import RewardConfig
from envs.spaces import Simplex
from envs.terms import CapsConfig, CostConfig
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_tape, tape_of

WHOLE = EpisodeConfig(length_bars=None, random_start=False)
LONG_SHORT = CapsConfig(long_only=False, gross=2.0, net=1.0, per_asset=0.8)


def held(action, assets=2, **settings):
    """Weights that an action holds over the first bar."""
    env = make(PortfolioConfig(episode=WHOLE, **settings), random_tape(0, assets))
    env.reset()
    return env.step(np.array(action, dtype=np.float32))[4]["weights"]


@pytest.mark.parametrize(
    ("action", "weights"),
    [
        ([0.5, 0.3, 0.2], [0.3, 0.2]),
        ([1.0, 0.0, 0.0], [0.0, 0.0]),
        ([1.0, 0.6, 0.4], [0.3, 0.2]),  # off the simplex: divided by its sum
        ([0.0, 0.0, 0.0], [0.0, 0.0]),
        ([0.5, 0.5, -0.5], [0.5, 0.0]),
    ],
)
def test_long_only_weights_are_the_simplex_without_its_cash(action, weights):
    assert_allclose(held(action), weights, atol=1e-7)


@pytest.mark.parametrize(("lever", "scale"), [(0.0, 0.0), (0.5, 1.0), (1.0, 2.0)])
def test_the_leverage_entry_scales_all_weights_from_nothing_to_its_maximum(lever, scale):
    caps = CapsConfig(gross=2.0, net=2.0)
    assert_allclose(held([0.2, 0.4, 0.4, lever], caps=caps, leverage_max=2.0), [0.4 * scale, 0.4 * scale], atol=1e-6)


def test_long_short_entries_are_fractions_of_the_per_asset_cap():
    assert_allclose(held([0.5, -0.5], caps=LONG_SHORT), [0.4, -0.4], atol=1e-7)
    assert_allclose(held([1.0, 1.0], caps=LONG_SHORT), [0.5, 0.5], atol=1e-7)  # net cap 1
    assert_allclose(held([1.0, -1.0, 1.0], 3, caps=LONG_SHORT), np.array([1, -1, 1]) * 2 / 3, atol=1e-6)  # gross cap 2


@pytest.mark.parametrize(("lever", "scale"), [(-1.0, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_the_leverage_entry_of_a_long_short_account_runs_from_minus_one_to_one(lever, scale):
    assert_allclose(held([0.5, -0.5, lever], caps=LONG_SHORT, leverage_max=1.0), [0.4 * scale, -0.4 * scale], atol=1e-7)


def test_the_observation_shows_features_context_forecasts_and_the_account_at_this_close():
    tape = random_tape(0, 2)
    config = PortfolioConfig(episode=WHOLE, costs=CostConfig(proportional_bps=0), shutdown=LossShutdownConfig())
    env = make(config, tape)
    env.reset()
    obs, *_, info = env.step(np.array([0.5, 0.3, 0.2], np.float32))
    seen = dict(zip(env.task.observation_names, obs, strict=True))
    growth = 0.3 * tape.gross[1, 0] + 0.2 * tape.gross[1, 1] + 0.5
    expected = {
        "A.one": tape.features[1, 0, 0],
        "A.two": tape.features[1, 0, 1],
        "B.one": tape.features[1, 1, 0],
        "B.two": tape.features[1, 1, 1],
        "vix": tape.context[1, 0],
        "A.forecast_cvar": 100 * tape.forecast_cvar[1, 0],
        "B.forecast_cvar": 100 * tape.forecast_cvar[1, 1],
        "A.forecast_uncertainty": 100 * tape.forecast_uncertainty[1, 0],
        "B.forecast_uncertainty": 100 * tape.forecast_uncertainty[1, 1],
        "cash_weight": 0.5 / growth,
        "weight_A": 0.3 * tape.gross[1, 0] / growth,
        "weight_B": 0.2 * tape.gross[1, 1] / growth,
        "portfolio_return": 100 * (growth - 1),
        "drawdown": min(0.0, growth - 1),
        "long_cooldown": 0.0,
        "short_cooldown": 0.0,
    }
    assert list(seen) == list(expected)
    bps = (0.3 * tape.half_spread_bps[0, 0] + 0.2 * tape.half_spread_bps[0, 1]) * 1e-4
    assert_allclose(info["cost"], bps, rtol=1e-2)
    expected["drawdown"] = min(0.0, (1 - info["cost"]) * growth - 1)
    assert_allclose(list(seen.values()), list(expected.values()), rtol=1e-5, atol=1e-6)


def test_forecasts_can_be_left_out_of_the_observation():
    env = make(PortfolioConfig(episode=WHOLE, observe_forecasts=False), random_tape(0, 2))
    assert not [name for name in env.task.observation_names if "forecast" in name]


def test_the_reward_is_log_growth_less_each_penalty_and_each_is_logged():
    reward = RewardConfig(log_growth=1.0, turnover=0.1, drawdown=0.2, predicted_cvar=0.3, forecast_uncertainty=0.4)
    tape = random_tape(0, 2)
    env = make(PortfolioConfig(episode=WHOLE, reward=reward), tape)
    env.reset()
    _, total, *_, info = env.step(np.array([0.5, 0.3, 0.2], np.float32))
    weights = np.array([0.3, 0.2])
    by_hand = {
        "log_growth": 100 * np.log(info["wealth"]),
        "turnover": -10 * info["turnover"],
        "drawdown": 20 * min(0.0, info["wealth"] - 1),
        "predicted_cvar": -30 * weights @ tape.forecast_cvar[0],
        "forecast_uncertainty": -40 * weights @ tape.forecast_uncertainty[0],
    }
    assert list(info["reward_terms"]) == list(by_hand)
    assert_allclose(list(info["reward_terms"].values()), list(by_hand.values()), rtol=1e-6)
    assert_allclose(total, sum(by_hand.values()), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leverage_max": 2.0}, r"env.leverage_max = 2.0; expected in \(0, caps.gross = 1.0\]. Raise caps.gross to lever"),
        ({"leverage_max": 2.0, "caps": CapsConfig(gross=2.0)}, r"expected in \(0, caps.net = 1.0\]. Raise caps.net to lever"),
        ({"leverage_max": 0.0}, r"env.leverage_max = 0.0; expected in \(0,"),
    ],
)
def test_leverage_beyond_the_caps_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PortfolioConfig(**settings)


def test_simplex_samples_are_weights_and_the_space_survives_copying():
    import copy
    import pickle

    space = Simplex(4, leverage=True, seed=0)
    samples = np.array([space.sample() for _ in range(2000)])
    assert_allclose(samples[:, :4].sum(1), 1, atol=1e-6)
    assert_allclose(samples.mean(0), [0.25] * 4 + [0.5], atol=0.02)  # uniform on the simplex
    assert space.contains(samples[0])
    assert pickle.loads(pickle.dumps(space)) == copy.deepcopy(space) == space != Simplex(4)
    assert make(PortfolioConfig(episode=WHOLE), tape_of([1.0, 1.0])).action_space == Simplex(2)
