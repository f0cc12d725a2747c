"""The step loop: when episodes begin and end, what ruin is, and what callers do wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs import make, make_vec
from envs.backend import Backend
from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import ACTIONS, RegimeConfig
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from envs.trading_config import EpisodeConfig, TradingConfig
from tests.envs.markets import random_tape, tape_of

NO_COSTS = CostConfig(proportional_bps=0)
WHOLE = EpisodeConfig(length_bars=None, random_start=False)


def lever(weight: float) -> np.ndarray:
    return np.array([weight / 2, 0.0], np.float32)


def test_a_2x_position_on_flat_prices_for_252_bars_loses_what_the_financing_formula_says():
    env = make(PairLeverageConfig(costs=NO_COSTS, episode=WHOLE), tape_of([1.0] * 253, [1.0] * 253))
    env.reset()
    for _ in range(252):
        _, _, _, truncated, info = env.step(lever(2.0))
    assert truncated
    assert_allclose(info["wealth"], (1 - 0.0675 / 252) ** 252, rtol=0, atol=1e-9)


def test_an_episode_truncates_after_its_length_and_not_before():
    env = make(RegimeConfig(episode=EpisodeConfig(length_bars=5)), random_tape(0, 3))
    env.reset(seed=0)
    assert [env.step(2)[3] for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_shortened_episodes_end_apart_and_never_later_than_their_length(library):
    env = make_vec(RegimeConfig(episode=EpisodeConfig(length_bars=4)), random_tape(0, 3), 3, backend=Backend(library))
    env.reset(seed=0)
    env.accounts.shorten(np.array([1, 3, 9]))
    ends = np.stack([np.asarray(env.step(np.array([2, 2, 2]))[3]) for _ in range(4)])
    assert_array_equal(ends.argmax(0), [0, 2, 3])


def test_ruin_terminates_with_wealth_as_it_is_and_a_finite_reward():
    env = make(
        PairLeverageConfig(costs=NO_COSTS, financing=FinancingConfig(rate_annual=0)), tape_of([1, 0.3, 1] * 100, [1.0] * 300)
    )
    env.reset(options={"start_row": 0})
    obs, reward, terminated, truncated, info = env.step(lever(2.0))
    assert (terminated, truncated) == (True, False)
    assert_allclose(info["wealth"], 1 + 2 * (0.3 - 1))
    assert_allclose(info["episode"]["total_return"], -1.4)
    assert np.isfinite(reward)
    assert np.isfinite(obs).all()


def test_wealth_at_the_floor_is_ruin_and_just_above_it_is_not():
    def ends(fall: float) -> bool:
        config = PortfolioConfig(costs=NO_COSTS, episode=EpisodeConfig(length_bars=2, wealth_floor=0.25, random_start=False))
        env = make(config, tape_of([1, fall, 1]))
        env.reset()
        return env.step(np.array([0, 1], np.float32))[2]

    assert ends(0.25)
    assert not ends(0.2500001)


def test_ruin_on_the_last_bar_is_ruin_not_truncation():
    config = PortfolioConfig(episode=EpisodeConfig(length_bars=1))
    env = make(config, tape_of([1, 0.001]))
    env.reset()
    assert env.step(np.array([0, 1], np.float32))[2:4] == (True, False)


def test_next_step_ignores_the_action_after_an_end_and_same_step_gives_the_last_observation():
    config = RegimeConfig(episode=EpisodeConfig(length_bars=2))
    modes = {mode: make_vec(config, random_tape(0, 3), 2, autoreset_mode=mode) for mode in ("next_step", "same_step")}
    for env in modes.values():
        env.reset(seed=0)
        env.step([2, 3])
        _, _, _, truncated, infos = env.step([2, 3])
        assert truncated.all()
        assert infos["_episode"].all()
    assert_array_equal(modes["same_step"].accounts.weights, np.zeros((2, 3)))  # already in the next episode
    assert "final_obs" in infos
    assert modes["next_step"].accounts.weights.any()
    _, reward, terminated, truncated, infos = modes["next_step"].step([2, 3])
    assert_array_equal(reward, [0, 0])
    assert not (terminated | truncated).any()
    assert infos == {}
    assert_array_equal(modes["next_step"].accounts.weights, np.zeros((2, 3)))
    assert modes["next_step"].metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 19), seed=st.integers(0, 1000))
def test_random_windows_lie_inside_the_period_and_reach_both_its_ends(length, seed):
    config = RegimeConfig(episode=EpisodeConfig(length_bars=length))
    env = make_vec(config, random_tape(0, 3, 60), 2000, start="2020-01-11", end="2020-01-30")
    env.reset(seed=seed)
    starts = env.accounts.row
    assert (starts.min(), starts.max()) == (10, 29 - length)


def test_the_tape_behind_the_period_does_not_exist_for_the_environment():
    env = make(RegimeConfig(episode=WHOLE), random_tape(0, 3, 60), end="2020-01-30")
    assert len(env.task.tape) == len(env.accounts.gross) == len(env.accounts.market_table) == 30


def test_an_intraday_position_is_cut_to_the_overnight_cap_on_the_last_bar_of_its_session():
    caps = CapsConfig(gross=2.0, net=2.0, per_asset=2.0, gross_overnight=1.0, long_only=False)
    tape = random_tape(0, 2)
    env = make(PairLeverageConfig(caps=caps, episode=WHOLE), tape)
    env.reset()
    held = [abs(env.step(lever(2.0))[4]["weights"]).sum() for _ in range(14)]
    assert_allclose(held, np.where(tape.session_end[:14], 1.0, 2.0))


def test_a_shutdown_closes_a_losing_long_side_inside_the_environment_and_says_so():
    from envs.guards import LossShutdownConfig

    config = PortfolioConfig(shutdown=LossShutdownConfig(loss_limit=0.05, cooldown_bars=2), episode=WHOLE)
    env = make(config, tape_of([1, 0.9, 1.1, 1.1, 1.1]))
    names = env.task.observation_names
    env.reset()
    everything = np.array([0, 1], np.float32)
    steps = [env.step(everything) for _ in range(4)]
    assert_allclose([step[4]["weights"][0] for step in steps], [1, 0, 0, 1])
    assert_allclose([step[0][names.index("long_cooldown")] for step in steps], [1.0, 0.5, 0.0, 0.0])


def test_wealth_stops_counting_at_1e100_so_that_nothing_overflows():
    env = make(PortfolioConfig(costs=NO_COSTS, episode=WHOLE), tape_of([1e6] * 60))
    env.reset()
    for _ in range(59):
        _, reward, _, _, info = env.step(np.array([0, 1], np.float32))
        assert_allclose(reward, 100 * np.log(1e6), rtol=1e-9)
    assert info["wealth"] == 1e100


# ── what callers do wrong ────────────────────────────────────────────────────────────────────────────────────────────


def test_stepping_before_a_reset_or_after_the_end_is_refused():
    env = make(RegimeConfig(episode=EpisodeConfig(length_bars=1)), random_tape(0, 3))
    with pytest.raises(ResetNeeded, match=r"has ended, or has not begun. Call reset"):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(ResetNeeded, match="Call reset"):
        env.step(0)
    with pytest.raises(ResetNeeded, match="before the first reset"):
        make_vec(RegimeConfig(), random_tape(0, 3, 300), 2).step([0, 0])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_is_refused(library, bad):
    env = make_vec(PairLeverageConfig(), random_tape(0, 2, 300), 2, backend=Backend(library))
    env.reset(seed=0)
    actions = np.array([[0.0, 0.0], [0.5, bad]])
    with pytest.raises(ShapeError, match=r"an action is NaN or infinite; the policy has diverged. Look at its loss"):
        env.step(torch.tensor(actions) if library == "torch" else actions)


@pytest.mark.parametrize("bad", [-1, 16])
def test_a_regime_that_does_not_exist_is_refused(bad):
    env = make(RegimeConfig(), random_tape(0, 3, 300))
    env.reset(seed=0)
    with pytest.raises(ShapeError, match=rf"outside Discrete\(16\): found {bad} … {bad}; expected 0 … {len(ACTIONS) - 1}"):
        env.step(bad)


def test_actions_of_another_shape_are_refused():
    env = make_vec(PairLeverageConfig(), random_tape(0, 2, 300), 3)
    env.reset(seed=0)
    with pytest.raises(ShapeError, match=r"actions have shape \(2, 3\); expected \(3, 2\) for Box"):
        env.step(np.zeros((2, 3)))


@pytest.mark.parametrize("row", [-1, 54])
def test_a_start_row_without_room_for_the_episode_is_refused(row):
    env = make(RegimeConfig(episode=EpisodeConfig(length_bars=6)), random_tape(0, 3, 60))
    env.reset(options={"start_row": 53})
    with pytest.raises(ConfigError, match=rf"start_row {row} … {row} lies outside \[0, 53\]"):
        env.reset(options={"start_row": row})


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (
            lambda: make(RegimeConfig(), random_tape(0, 3, 100)),
            ConfigError,
            "episode.length_bars = 256 needs 257 rows; the window has 100. Shorten the episode or widen the window",
        ),
        (lambda: make(RegimeConfig(), random_tape(0, 3), start="2030-01-01"), MarketDataError, "holds 0 of the tape's rows"),
        (lambda: make_vec(RegimeConfig(), random_tape(0, 3, 300), 0), ConfigError, "num_envs = 0; expected at least 1"),
        (
            lambda: make_vec(RegimeConfig(), random_tape(0, 3, 300), 1, autoreset_mode="disabled"),
            ConfigError,
            "autoreset_mode = 'disabled'; expected 'next_step' or 'same_step'",
        ),
        (lambda: EpisodeConfig(length_bars=0), ConfigError, "episode.length_bars = 0; expected at least 1, or nothing"),
        (lambda: EpisodeConfig(wealth_floor=1), ConfigError, r"episode.wealth_floor = 1; expected a fraction .* in \[0, 1\)"),
        (lambda: Backend("jax"), ConfigError, "backend 'jax'; expected 'numpy' or 'torch'"),
        (lambda: Backend("torch", "float16"), ConfigError, "precision 'float16'; expected 'float64' or 'float32'"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


def test_settings_compare_by_value_and_share_nothing_mutable():
    assert TradingConfig() == TradingConfig()
    assert hash(RegimeConfig()) == hash(RegimeConfig())
