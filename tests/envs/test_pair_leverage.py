"""PairLeverage-v0: signed weights, the 2× cap, financing, and the profit of each trade."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs import make
from envs.errors import ConfigError
from envs.pair_leverage import PairLeverageConfig
from envs.terms import CostConfig, FinancingConfig
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_actions, random_tape, tape_of

WHOLE = EpisodeConfig(length_bars=None, random_start=False)


def env_on(tape, **settings):
    env = make(PairLeverageConfig(episode=WHOLE, **settings), tape)
    env.reset()
    return env


def act(env, first, second):
    return env.step(np.array([first, second], np.float32))


@pytest.mark.parametrize(
    ("action", "weights"),
    [([0.5, -0.5], [1, -1]), ([1, 0], [2, 0]), ([1, 1], [1, 1]), ([-1, 0.5], [-4 / 3, 2 / 3]), ([0.25, -0.1], [0.5, -0.2])],
)
def test_actions_are_fractions_of_twice_wealth_scaled_into_the_gross_cap(action, weights):
    *_, info = act(env_on(random_tape(0, 2)), *action)
    assert_allclose(info["weights"], weights, atol=1e-6)


def test_a_pair_of_plus_and_minus_one_pays_675_bps_a_year_by_default_and_nothing_on_the_debit_basis():
    flat = tape_of([1.0, 1.0], [1.0, 1.0])
    assert_allclose(act(env_on(flat), 0.5, -0.5)[4]["financing"], 0.0675 / 252)
    assert_allclose(act(env_on(flat, financing=FinancingConfig(basis="debit")), 0.5, -0.5)[4]["financing"], 0.0)


def test_a_2x_position_that_drifts_past_its_cap_is_trimmed_back_to_it():
    env = env_on(tape_of([1, 0.9, 1.0], [1, 1, 1]))
    act(env, 1.0, 0.0)
    assert env.accounts.weights[0, 0] > 2.2  # 1.8 / 0.8
    *_, info = act(env, 1.0, 0.0)
    assert_allclose(info["weights"], [2.0, 0.0])
    assert info["turnover"] > 0.2


def test_each_trade_reports_its_net_profit_when_it_closes():
    env = env_on(
        tape_of([1, 1.1, 1.0], [1, 1, 1]), costs=CostConfig(proportional_bps=0), financing=FinancingConfig(rate_annual=0)
    )
    obs, *_, info = act(env, 0.25, 0.0)
    assert not info["trade_closed"].any()
    seen = dict(zip(env.task.observation_names, obs, strict=True))
    assert_allclose([seen["open_profit_A"], seen["open_profit_B"]], [5.0 / 1.05, 0.0], rtol=1e-6)  # percent of wealth
    assert_allclose(seen["gross_exposure"], 0.55 / 1.05)
    *_, info = act(env, 0.0, 0.0)
    assert_array_equal(info["trade_closed"], [True, False])
    assert_allclose(info["trade_profit"], [0.05, 0.0], atol=1e-15)


def test_over_a_whole_life_trade_profits_add_up_to_the_change_of_wealth():
    env = env_on(random_tape(0, 2, 300), costs=CostConfig(proportional_bps=20, impact=0.02))
    closed = 0.0
    for action in random_actions(env.action_space, 299, 1, 0)[:, 0]:
        *_, info = env.step(action)
        closed += info["trade_profit"].sum()
    assert_allclose(closed + env.accounts.book.open_profit.sum(), info["wealth"] - 1, rtol=0, atol=1e-12)


def test_any_number_of_stocks_but_two_is_refused():
    with pytest.raises(ConfigError, match=r"PairLeverage-v0 trades two stocks; data.symbols gives 3: A, B, C"):
        make(PairLeverageConfig(episode=WHOLE), random_tape(0, 3))
