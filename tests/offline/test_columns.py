import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError
from envs.indicators import volatility_regime
from rlplatform.offline.behaviour import make_behaviour
from rlplatform.offline.collecting import collect
from rlplatform.offline.columns import COLUMNS, PER_ASSET, RECORDED, ColumnRecorder, describe_columns, observed, total_returns
from tests.offline.datasets import trading_env

EVERY = (*RECORDED, "forecast_cvar", "forecast_uncertainty", "weights")


@pytest.fixture(scope="module")
def collected():
    env = trading_env("portfolio, long/short, day and night")
    return env.task, collect(env, make_behaviour("uniform", env.task), (0,), EVERY)


def rows_of(task, episodes):
    seconds = task.tape.dates.astype("datetime64[s]").astype(np.int64)
    return np.searchsorted(seconds, episodes.extras["date"])


def test_columns_of_the_market_are_those_of_the_decisions_row(collected):
    task, episodes = collected
    rows, extras = rows_of(task, episodes), episodes.extras
    assert_allclose(extras["spread_bps"], 2 * task.tape.half_spread_bps[rows].mean(1), rtol=1e-6)
    assert_array_equal(extras["regime_label"], volatility_regime(task.tape.gross.mean(1))[rows])
    assert_allclose(extras["forecast_cvar"], task.tape.forecast_cvar[rows], rtol=1e-6)
    assert_array_equal(extras["risk_budget"], np.where(task.tape.session_end[rows], 1.0, 2.0))
    assert set(np.unique(extras["guard_state"])) <= {0, 1, 2, 3}


def test_columns_of_the_account_tell_how_wealth_came_about(collected):
    _, episodes = collected
    e = episodes.extras
    inside = ~episodes.is_last
    after = e["wealth"] * (1 - e["cost"]) * (1 + e["portfolio_return"])
    assert_allclose(after[inside], np.append(e["wealth"][1:], 0)[inside], rtol=1e-5)
    assert_allclose(e["wealth"][episodes.starts], 1)
    assert_allclose(e["drawdown"][episodes.starts], 0)


def test_what_trading_cost_beyond_the_commission_is_slippage(collected):
    task, episodes = collected
    e, commission = episodes.extras, task.config.costs.proportional_bps
    traded = e["turnover"] > 1e-3
    assert traded.any()
    assert_allclose(e["slippage_bps"][traded], 1e4 * e["cost"][traded] / e["turnover"][traded] - commission, atol=0.02)
    assert (e["slippage_bps"][traded] > 0).all()  # this market has spreads and impact


def test_total_returns_are_the_environments_own():
    env = trading_env("pair")
    episodes = collect(env, make_behaviour("pair_spread", env.task), (0,), RECORDED, np.array([20, 25, 30, 35]))
    again = trading_env("pair")
    obs, _ = again.reset(options={"start_row": np.array([20, 25, 30, 35])})
    behaviour = make_behaviour("pair_spread", again.task)
    for _ in range(7):
        obs, _, _, _, infos = again.step(behaviour.act(again.accounts.row, obs, None)[0])
    assert_allclose(total_returns(episodes), infos["episode"]["total_return"], atol=1e-6)


def test_total_returns_need_their_columns(collected):
    _, episodes = collected
    extras = {name: values for name, values in episodes.extras.items() if name != "cost"}
    assert total_returns(dataclasses.replace(episodes, extras=extras)) is None


def test_known_columns_become_observations_and_outcomes_never_do(collected):
    task, episodes = collected
    wider = observed(episodes, ["spread_bps", "forecast_cvar"])
    width, assets = episodes.obs.shape[1], task.tape.num_assets
    assert wider.obs.shape[1] == wider.last_obs.shape[1] == width + 1 + assets
    assert_array_equal(wider.obs[:, :width], episodes.obs)
    assert_array_equal(wider.obs[:, width], episodes.extras["spread_bps"])
    assert_array_equal(wider.last_obs[:, width + 1 :], episodes.extras["forecast_cvar"][episodes.ends])
    with pytest.raises(ConfigError, match="'turnover' is not known at the decision"):
        observed(episodes, ["turnover"])
    with pytest.raises(ConfigError, match="has no column 'latency_ms'"):
        observed(episodes, ["latency_ms"])


def test_every_column_has_a_unit_and_unknown_ones_say_so():
    described = describe_columns([*COLUMNS, "my_signal"])
    assert all(entry["unit"] for entry in described.values())
    assert described["my_signal"]["unit"] == "unknown"
    assert {name for name, entry in described.items() if entry["per_asset"]} == set(PER_ASSET)


def test_a_column_that_a_simulation_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="'latency_ms' cannot be recorded"):
        ColumnRecorder(trading_env("pair").task.tape, ["latency_ms"])
    with pytest.raises(ConfigError, match="Did you mean drawdown"):
        ColumnRecorder(trading_env("pair").task.tape, ["drawdwn"])


ASKED = ("regime_label", "risk_budget", "guard_state", "spread_bps")


@pytest.mark.parametrize("case", ["regime, observing", "portfolio, long/short, observing", "pair"])
def test_an_environment_that_observes_columns_logs_the_observation_that_a_dataset_with_them_is_read_with(case):
    """The same number from the environment's observation and from the logged column, at every decision."""
    plain, wide = trading_env(case, observe=()), trading_env(case, observe=ASKED)
    logged = [collect(env, make_behaviour("uniform", env.task), (3,)) for env in (plain, wide)]
    assert_array_equal(logged[0].actions, logged[1].actions)
    assert_array_equal(observed(logged[0], ASKED).obs, logged[1].obs)
    assert wide.task.observation_names == (*plain.task.observation_names, *ASKED)
    varied = dict(zip(ASKED, np.ptp(logged[1].obs[:, -4:], axis=0), strict=True))
    assert varied["spread_bps"] > 0
    assert varied["guard_state"] > 0 or case != "portfolio, long/short, observing"
