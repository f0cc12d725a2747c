"""MultiAssetRegime-v0: the sixteen regimes, the 64 entries, the reward."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs import indicators, make
from envs.errors import ConfigError
from envs.regime import ACTIONS, HOLD, REGIMES, RegimeConfig, action_names, volatility_index
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_tape, tape_of

WHOLE = EpisodeConfig(length_bars=None, random_start=False)
FROM_THE_ISSUE = """
ALL_CASH 1/0/0/0; ALL_SPY 0/1/0/0; ALL_QQQ 0/0/1/0; ALL_IWM 0/0/0/1; EQUAL_WEIGHT .25/.25/.25/.25; SPY_QQQ_50 0/.5/.5/0;
SPY_IWM_50 0/.5/0/.5; QQQ_IWM_50 0/0/.5/.5; DEFENSIVE_50 .50/.25/0/.25; GROWTH_TILT .10/.30/.60/0; VALUE_TILT .10/.60/0/.30;
SMALLCAP_TILT .10/.20/0/.70; RISK_OFF_75 .75/.25/0/0; QQQ_HEAVY .10/.10/.70/.10; BALANCED .20/.40/.20/.20
"""


def env_on(tape, **settings):
    env = make(RegimeConfig(episode=WHOLE, **settings), tape)
    env.reset()
    return env


def test_the_regimes_are_those_of_the_issue_in_its_order():
    wanted = {name: tuple(map(float, row.split("/"))) for name, row in (entry.split() for entry in FROM_THE_ISSUE.split(";"))}
    assert wanted == REGIMES
    assert list(wanted) == list(REGIMES)
    assert (len(ACTIONS), ACTIONS[HOLD]) == (16, "HOLD")


@pytest.mark.parametrize("action", range(1, 16))
def test_each_action_holds_its_regime_and_the_rest_in_cash(action):
    cash, *weights = REGIMES[ACTIONS[action]]
    *_, info = env_on(random_tape(0, 3)).step(action)
    assert_allclose(info["weights"], weights, rtol=0, atol=1e-15)
    assert_allclose(1 - info["weights"].sum(), cash, atol=1e-15)


def test_hold_trades_nothing_and_lets_weights_drift():
    tape = random_tape(0, 3)
    env = env_on(tape)
    assert_array_equal(env.step(HOLD)[4]["weights"], [0, 0, 0])
    env.step(ACTIONS.index("BALANCED"))
    *_, info = env.step(HOLD)
    drifted = np.array([0.4, 0.2, 0.2]) * tape.gross[2]
    assert_allclose(info["weights"], drifted / (0.2 + drifted.sum()), rtol=1e-14)
    assert_allclose([info["turnover"], info["cost"]], 0, atol=1e-15)


def test_a_trio_of_other_symbols_gives_its_names_to_the_actions():
    names = action_names(("XLK", "XLE", "GLD"))
    assert names[:8] == ("HOLD", "ALL_CASH", "ALL_XLK", "ALL_XLE", "ALL_GLD", "EQUAL_WEIGHT", "XLK_XLE_50", "XLK_GLD_50")
    assert names[14] == "XLE_HEAVY"
    assert action_names(("SPY", "QQQ", "IWM")) == ACTIONS
    assert action_names(("QQQ", "SPY", "IWM"))[2:4] == ("ALL_QQQ", "ALL_SPY")


def test_the_reward_is_a_hundred_times_alpha_less_cost():
    env = env_on(tape_of([1, 1.03], [1, 0.99], [1, 1.01]))
    _, reward, *_, info = env.step(ACTIONS.index("ALL_SPY"))
    kappa = 5e-4 / (1 + 5e-4)
    assert_allclose(info["cost"], kappa)
    assert_allclose(reward, 100 * (0.03 - 0.01 - kappa))
    assert_allclose(list(info["reward_terms"].values()), [100 * 0.02, -100 * kappa])


def test_equal_weight_earns_no_alpha_but_its_cash_misses_the_market():
    _, reward, *_, info = env_on(tape_of([1, 1.04], [1, 1.04], [1, 1.04])).step(ACTIONS.index("EQUAL_WEIGHT"))
    assert_allclose(reward, 100 * (0.03 - 0.04 - info["cost"]))


def test_the_observation_has_64_entries_each_with_its_own_name():
    names = env_on(random_tape(0, 3)).task.observation_names
    assert (len(names), len(set(names))) == (64, 64)


def test_each_kind_of_entry_says_what_its_name_says():
    tape = random_tape(0, 3, 400)
    env = make(RegimeConfig(episode=EpisodeConfig(length_bars=1)), tape)
    obs, _ = env.reset(options={"start_row": 300})
    seen = dict(zip(env.task.observation_names, obs, strict=True))
    g, price = tape.gross, np.cumprod(tape.gross, axis=0)
    log = np.log(g)
    pct = {
        "A.relative_price_256": np.log(price[300, 0] / price[44, 0]),
        "B.return_1": log[300, 1],
        "C.return_21": np.log(price[300, 2] / price[279, 2]),
        "A.volatility_21": log[280:301, 0].std(ddof=1) * np.sqrt(252),
        "B.ma_distance_50": price[300, 1] / price[251:301, 1].mean() - 1,
        "C.drawdown_252": price[300, 2] / price[49:301, 2].max() - 1,
        "A.rsi_14": indicators.rsi(g[:, 0], 14)[300],
        "A-C.spread_63": np.log(price[300, 0] / price[237, 0]) - np.log(price[300, 2] / price[237, 2]),
        "B-C.correlation_21": np.corrcoef(log[280:301, 1], log[280:301, 2])[0, 1],
        "vix": tape.context[300, 0] / 100,
        "vix_change_5": (tape.context[300, 0] - tape.context[295, 0]) / 100,
        "cash_weight": 1.0,
        "weight_B": 0.0,
        "portfolio_return": 0.0,
        "drawdown": 0.0,
    }
    assert_allclose([seen[name] for name in pct], list(pct.values()), rtol=1e-4, atol=1e-6)
    assert sum(seen[f"regime_{name}"] for name in ("calm", "choppy", "crisis")) == 1.0


def test_without_a_vix_the_first_asset_lends_its_volatility():
    tape = tape_of(*np.exp(np.random.default_rng(0).normal(0, 0.01, (3, 500))))
    assert_allclose(volatility_index(tape)[-1], 0.16, rtol=0.3)  # 1 % a day is 16 % a year


def test_any_number_of_assets_but_three_is_refused():
    with pytest.raises(ConfigError, match=r"MultiAssetRegime-v0 trades three assets; data.symbols gives 2: A, B"):
        make(RegimeConfig(episode=WHOLE), random_tape(0, 2))
