"""Columns that `env.observe` adds, by hand. The contract (single = vector = torch, no look-ahead) is test_every_env's."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from envs import CATALOG, indicators, make, make_vec
from envs.backend import Backend
from envs.errors import ConfigError
from envs.guard_kill_switch import KillSwitchConfig
from envs.guards import GuardsConfig, LossShutdownConfig
from envs.observation import ACCOUNT_COLUMNS, MARKET_COLUMNS
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.terms import CapsConfig, CostConfig
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_tape, tape_of

WHOLE = EpisodeConfig(length_bars=None, random_start=False)
CRASH = [1.0, 0.9, 1.0, 1.0, 1.2, 1.0, 1.0]


def shown(env, obs) -> dict[str, float]:
    return dict(zip(env.task.observation_names, obs.tolist(), strict=True))


def crashed(config, steps: int = 1, columns=(CRASH, CRASH)):
    """The observation `steps` bars after an account went all in before a fall of 10 %."""
    env = make(replace(config, episode=WHOLE), tape_of(*columns))
    env.reset()
    for _ in range(steps):
        obs, *_ = env.step(np.array([0.0, 1.0, 0.0], np.float32))
    return shown(env, obs)


@pytest.mark.parametrize("env_id", CATALOG)
def test_nothing_asked_for_changes_nothing(env_id):
    config, tape = CATALOG[env_id][0](), random_tape(0, {"MultiAssetRegime-v0": 3, "PairLeverage-v0": 2}.get(env_id, 4))
    config = replace(config, episode=WHOLE)
    plain, more = make(config, tape), make(replace(config, observe=("regime_label",)), tape)
    own = plain.task.market_names + plain.task.account_names
    assert plain.task.observation_names == own
    assert more.task.observation_names == (*own, "regime_label")
    (obs, _), (wider, _) = plain.reset(seed=0), more.reset(seed=0)
    for _ in range(30):
        assert_array_equal(wider[:-1], obs)
        action = plain.action_space.sample()
        obs, wider = plain.step(action)[0], more.step(action)[0]


def test_columns_stand_at_the_end_in_the_order_asked_for_with_the_tapes_own_row():
    tape = random_tape(1, 3)
    config = RegimeConfig(observe=("spread_bps", "one", "regime_label", "forecast_cvar"), episode=WHOLE)
    env = make(config, tape, start=str(tape.dates[40])[:10])
    names = ("spread_bps", "A.one", "B.one", "C.one", "regime_label", *(f"{s}.forecast_cvar" for s in "ABC"))
    assert env.task.observation_names[-8:] == names
    obs, _ = env.reset()
    by_hand = [2 * tape.half_spread_bps[40].mean(), *tape.features[40, :, 0]]
    by_hand += [indicators.volatility_regime(tape.gross[:41].mean(1))[-1], *(100 * tape.forecast_cvar[40])]
    assert_array_equal(obs[-8:], np.float32(by_hand))


def test_a_spread_of_three_and_five_bps_is_shown_as_four():
    tape = replace(tape_of([1.0] * 5, [1.0] * 5), half_spread_bps=np.tile([1.5, 2.5], (5, 1)))
    env = make(PairLeverageConfig(observe=("spread_bps",), episode=WHOLE), tape)
    assert shown(env, env.reset()[0])["spread_bps"] == 4.0


@pytest.mark.parametrize("backend", [None, Backend("torch", "float32")], ids=["numpy", "torch"])
def test_the_risk_budget_is_the_cap_of_the_bar_overnight_where_the_session_ends(backend):
    caps = CapsConfig(long_only=False, gross=2.0, gross_overnight=1.5)
    tape = replace(tape_of([1.0] * 6, [1.0] * 6), session_end=np.array([False, False, True] * 2))
    env = make_vec(PortfolioConfig(caps=caps, observe=("risk_budget",), episode=WHOLE), tape, 2, backend=backend)
    seen = [float(env.reset()[0][0, -1])]
    seen += [float(env.step(np.zeros((2, 2), np.float32))[0][0, -1]) for _ in range(4)]
    assert seen == [2.0, 2.0, 1.5, 2.0, 2.0]


def test_the_guard_state_says_which_side_is_held_flat_and_for_how_long():
    config = PortfolioConfig(
        shutdown=LossShutdownConfig(loss_limit=0.05, cooldown_bars=2),
        costs=CostConfig(proportional_bps=0),
        observe=("spread_bps", "risk_budget", "regime_label", "guard_state"),
    )
    assert [crashed(config, steps)["guard_state"] for steps in (1, 2, 3)] == [1.0, 1.0, 0.0]
    seen = crashed(config)
    assert [seen[name] for name in config.observe] == [0.0, 1.0, 2.0, 1.0]  # each in its own place; a crisis
    assert crashed(replace(config, shutdown=None))["guard_state"] == 0.0


def test_a_short_that_lost_is_state_two():
    config = PairLeverageConfig(
        shutdown=LossShutdownConfig(loss_limit=0.05, cooldown_bars=2), observe=("guard_state",), episode=WHOLE
    )
    env = make(config, tape_of([1.0, 1.2, 1.0, 1.0], [1.0] * 4))
    env.reset()
    obs, *_ = env.step(np.array([-0.5, 0.0], np.float32))
    assert shown(env, obs)["guard_state"] == 2.0


def test_the_kill_switch_is_seen_once_it_has_held_a_decision():
    config = PortfolioConfig(
        guards=GuardsConfig(kill_switch=KillSwitchConfig(drawdown=0.05, recovered=0.02)), observe=("kill_switch",)
    )
    assert [crashed(config, steps)["kill_switch"] for steps in (1, 2, 3)] == [0.0, 1.0, 1.0]
    assert crashed(replace(config, guards=None), 2)["kill_switch"] == 0.0


@pytest.mark.parametrize("name", ["regime_lable", "wealth", "forecast_q10"])
def test_an_unknown_column_is_refused_with_the_list(name):
    with pytest.raises(
        ConfigError, match=rf"env\.observe: no column '{name}' here; choose from regime_label, .*vix, one, two\."
    ):
        make(RegimeConfig(observe=(name,)), random_tape(0, 3))


def test_a_near_miss_is_named():
    with pytest.raises(ConfigError, match=r"Did you mean regime_label\?"):
        make(RegimeConfig(observe=("regime_lable",)), random_tape(0, 3))


@pytest.mark.parametrize(
    ("config", "name", "place"),
    [
        (RegimeConfig, "vix", "vix"),
        (PairLeverageConfig, "forecast_cvar", "A.forecast_cvar"),
        (PortfolioConfig, "two", "A.two"),
    ],
)
def test_what_is_in_the_observation_already_is_refused(config, name, place):
    with pytest.raises(ConfigError, match=rf"env\.observe: '{name}' is in the observation already, as {place}"):
        make(config(observe=(name,)), random_tape(0, 3 if config is RegimeConfig else 2))


def test_asking_twice_is_refused():
    with pytest.raises(ConfigError, match="'regime_label' is in the observation already"):
        make(RegimeConfig(observe=("regime_label", "regime_label")), random_tape(0, 3))


def test_every_column_of_the_market_is_that_of_the_rows_so_far():
    """Row by row from a tape that ends there."""
    tape = random_tape(3, 3)
    for name, read in MARKET_COLUMNS.items():
        whole = read(tape)
        for t in (5, 30, 59):
            assert read(tape.rows(0, t))[t] == whole[t], name
    assert not set(MARKET_COLUMNS) & set(ACCOUNT_COLUMNS)
