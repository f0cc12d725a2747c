"""Indicators: hand numbers first, then pandas and scipy as witnesses, then laws for every indicator."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from envs import indicators as ind
from envs.errors import ConfigError, ShapeError

EVERY_INDICATOR = {
    "log_returns": ind.log_returns,
    "momentum": lambda g: ind.momentum(g, 5),
    "relative_price": lambda g: ind.relative_price(g, 5),
    "realised_volatility": lambda g: ind.realised_volatility(g, 5),
    "ewma_volatility": ind.ewma_volatility,
    "skewness": lambda g: ind.skewness(g, 6),
    "drawdown": ind.drawdown,
    "drawdown_window": lambda g: ind.drawdown(g, 7),
    "drawdown_velocity": lambda g: ind.drawdown_velocity(g, 7, 3),
    "moving_average_distance": lambda g: ind.moving_average_distance(g, 5),
    "rsi": lambda g: ind.rsi(g, 4),
    "zscore": lambda g: ind.zscore(g, 6),
    "rolling_correlation": lambda g: ind.rolling_correlation(g[:, :1], g, 6),
    "average_correlation": lambda g: ind.average_correlation(g, 6),
    "volatility_regime": lambda g: ind.volatility_regime(g[:, 0], window=4, min_history=8),
}


def from_prices(*prices: float) -> np.ndarray:
    return np.array([1.0, *(b / a for a, b in pairwise(prices))])


def random_gross(seed: int, rows: int = 400, assets: int = 3, scale: float = 0.01) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, scale, (rows, assets)))


# ── numbers to check by hand ─────────────────────────────────────────────────────────────────────────────────────────


def test_momentum_over_two_bars_is_the_log_of_the_price_ratio_two_bars_apart():
    gross = from_prices(100, 110, 121, 60.5)
    assert_allclose(ind.momentum(gross, 2), [0, math.log(1.1), math.log(1.21), math.log(60.5 / 110)])
    assert_allclose(ind.relative_price(gross, 2), [1, 1.1, 1.21, 0.55])


def test_volatility_of_returns_plus_and_minus_one_percent_is_their_sample_deviation_times_sqrt_252():
    gross = np.exp([0.01, -0.01])
    assert_allclose(ind.realised_volatility(gross, 2), [0, math.sqrt(0.0002) * math.sqrt(252)])
    assert_allclose(ind.realised_volatility(gross, 2, bars_per_year=1)[1], 0.0141421356, rtol=1e-8)


def test_ewma_volatility_weighs_yesterday_94_to_100():
    gross = np.exp([0.02, 0.01])
    assert_allclose(ind.ewma_volatility(gross) ** 2, [4e-4, (0.94 * 4e-4 + 1e-4) / 1.94])


def test_one_crash_among_three_quiet_bars_has_skewness_minus_two_over_root_three():
    assert_allclose(ind.skewness(np.exp([0.0, 0.0, 0.0, -0.1]), 4)[3], -2 / math.sqrt(3))


def test_a_fall_from_200_to_150_is_a_drawdown_of_a_quarter():
    gross = from_prices(100, 200, 150, 180, 200, 210)
    assert_allclose(ind.drawdown(gross), [0, 0, -0.25, -0.1, 0, 0], atol=1e-15)
    assert_allclose(ind.drawdown(gross, 2), [0, 0, -0.25, 0, 0, 0], atol=1e-15)


def test_drawdown_velocity_is_the_change_of_drawdown_per_bar():
    gross = from_prices(100, 90, 80, 90)
    assert_allclose(ind.drawdown_velocity(gross, None, 2), [0, -0.05, -0.10, 0.0], atol=1e-15)


def test_a_price_of_120_after_90_and_90_stands_a_fifth_above_its_average():
    assert_allclose(ind.moving_average_distance(from_prices(90, 90, 120), 3), [0, 0, 0.2], atol=1e-14)


def test_rsi_is_half_at_rest_one_after_rises_zero_after_falls_and_wilder_in_between():
    up, down = math.exp(0.02), math.exp(-0.01)
    assert_allclose(ind.rsi(np.array([1, 1.0]), 2), [0.5, 0.5])
    assert_allclose(ind.rsi(np.array([1, up, up]), 2)[1:], 1)
    assert_allclose(ind.rsi(np.array([1, down, down]), 2)[1:], 0)
    # Rows 1, 2: U = mean(.02, 0) = .01, D = mean(0, .01) = .005. Row 3 (+.02): U = .015, D = .0025.
    assert_allclose(ind.rsi(np.array([1, up, down, up]), 2)[2:], [2 / 3, 6 / 7])


def test_the_largest_of_three_equally_spaced_values_has_a_zscore_of_root_three_halves():
    assert_allclose(ind.zscore(np.array([1.0, 2.0, 3.0]), 3), [0, 1, math.sqrt(1.5)])


def test_correlation_is_one_with_a_multiple_minus_one_with_a_mirror_and_zero_with_a_constant():
    x = np.array([1.0, 3.0, 2.0, 5.0])
    y = np.stack([2 * x + 1, -x, np.full(4, 7.0)], axis=1)
    assert_allclose(ind.rolling_correlation(x, y, 3)[1:], [[1, -1, 0]] * 3)


def test_average_correlation_holds_each_asset_against_the_mean_of_the_others():
    gross = np.exp([[0.0, 0, 0], [0.01, 0.01, -0.01], [-0.01, -0.01, 0.01], [0.02, 0.02, -0.02]])
    # Asset 2 mirrors the other two; assets 0 and 1 see each other plus a mirror, (x − x) / 2: nothing.
    assert_allclose(ind.average_correlation(gross, 4)[-1], [0, 0, -1], atol=1e-12)
    assert_array_equal(ind.average_correlation(gross[:, :1], 4), 0)


def test_the_regime_is_calm_at_rest_crisis_in_a_crash_and_calm_again_a_year_later():
    quiet, wild = np.tile(np.exp([0.004, -0.004]), 200), np.tile(np.exp([0.05, -0.06]), 10)
    regime = ind.volatility_regime(np.concatenate([quiet, wild, quiet]))
    assert set(regime[:400]) == {ind.CALM}
    assert regime[410] == ind.CRISIS
    assert regime[-1] == ind.CALM


def test_a_slow_fall_of_15_percent_is_choppy_though_its_volatility_is_not_raised():
    flat, slow_fall = np.ones(300), np.full(170, 0.999)
    regime = ind.volatility_regime(np.concatenate([flat, slow_fall]), quantiles=(0.9, 0.99), drawdowns=(-0.15, -0.5))
    fall = 0.999 ** np.arange(1, 171) - 1
    assert_array_equal(regime[340:] == ind.CHOPPY, fall[40:] <= -0.15)


def test_with_enough_history_a_market_is_crisis_at_its_own_highest_volatility_however_low_that_is():
    calm, livelier = np.tile(np.exp([0.001, -0.001]), 150), np.tile(np.exp([0.003, -0.003]), 15)  # 1.6 % and 4.8 % a year
    regime = ind.volatility_regime(np.concatenate([calm, livelier]))
    assert (regime[299], regime[310]) == (ind.CALM, ind.CRISIS)
    assert ind.volatility_regime(np.concatenate([calm, livelier]), min_history=1_000)[310] == ind.CALM


def test_a_fall_of_a_fifth_is_crisis_while_volatility_is_raised_and_only_choppy_while_it_is_not():
    flat, fall = np.ones(300), np.full(60, 0.995)  # −26 % at a steady pace: volatility is raised only where it starts
    jumpy = fall * np.tile(np.exp([0.001, -0.001]), 30)
    steady, raised = (ind.volatility_regime(np.concatenate([flat, f]), quantiles=(0.6, 1.1)) for f in (fall, jumpy))
    assert (steady[-1], raised[-1]) == (ind.CHOPPY, ind.CRISIS)


def test_before_enough_history_volatility_is_judged_by_fixed_levels_of_15_and_30_percent_a_year():
    def regime_of_daily(move: float) -> int:
        return ind.volatility_regime(np.tile(np.exp([move, -move]), 50))[-1]

    assert [regime_of_daily(move) for move in (0.005, 0.012, 0.025)] == [ind.CALM, ind.CHOPPY, ind.CRISIS]


# ── independent witnesses ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("window", [2, 3, 14, 63, 252])
def test_full_windows_agree_with_pandas_and_scipy(window):
    gross = random_gross(window)
    log, price = pd.DataFrame(np.log(gross)), pd.DataFrame(gross.cumprod(0))
    full = slice(window - 1, None)
    last_zscore, first = lambda x: stats.zscore(x)[-1], pd.Series(gross[:, 0])
    rolling = pd.DataFrame(gross).rolling(window)
    pairs = {
        "momentum": (ind.momentum(gross, window), log.rolling(window).sum()),
        "volatility": (ind.realised_volatility(gross, window, 1), log.rolling(window).std()),
        "skewness": (ind.skewness(gross, window), log.rolling(window).apply(stats.skew, raw=True)),
        "average": (ind.moving_average_distance(gross, window), price / price.rolling(window).mean() - 1),
        "drawdown": (ind.drawdown(gross, window), price / price.rolling(window).max() - 1),
        "zscore": (ind.zscore(gross, window), rolling.apply(last_zscore, raw=True)),
        "correlation": (ind.rolling_correlation(gross[:, 0], gross, window), rolling.corr(first)),
    }
    for name, (ours, theirs) in pairs.items():
        assert_allclose(ours[full], theirs.to_numpy()[full], rtol=1e-7, atol=1e-9, err_msg=name)


def test_ewma_and_rsi_agree_with_pandas_exponential_means():
    log = pd.DataFrame(np.log(random_gross(1)))
    assert_allclose(ind.ewma_volatility(np.exp(log)), np.sqrt((log**2).ewm(alpha=0.06).mean()), rtol=1e-10)
    up, down = (side.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean() for side in (log, -log))
    assert_allclose(ind.rsi(np.exp(log), 14)[-50:], (up / (up + down))[-50:], rtol=1e-6)  # start values have faded


def test_a_crash_to_a_millionth_leaves_no_rounding_error_behind_once_it_has_left_the_window():
    gross = random_gross(2, rows=100)
    shocked = gross.copy()
    shocked[20], shocked[21] = 1e-6, 1e6
    for name in ("realised_volatility", "skewness", "momentum", "zscore", "rolling_correlation", "average_correlation"):
        indicator = EVERY_INDICATOR[name]
        assert_array_equal(indicator(shocked)[30:], indicator(gross)[30:], err_msg=name)


# ── laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def extreme_gross(draw) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 4)))
    jumps = rng.choice([1e-300, 1e-6, 0.5, 1.0, 1.0, 1.0, 1.0 + 1e-12, 2.0, 1e6, 1e300], shape)
    return np.where(rng.random(shape) < draw(st.floats(0, 1)), jumps, 1.0 + rng.normal(0, 0.001, shape))


@pytest.mark.parametrize("name", EVERY_INDICATOR)
@settings(max_examples=40, deadline=None)
@given(gross=extreme_gross())
def test_every_indicator_is_finite_from_row_0_at_returns_of_a_million_and_a_millionth(name, gross):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(EVERY_INDICATOR[name](gross)).all()


@settings(max_examples=60, deadline=None)
@given(gross=extreme_gross())
def test_bounded_indicators_stay_inside_their_bounds(gross):
    bounds = {"rsi": (0, 1), "drawdown": (-1, 0), "drawdown_window": (-1, 0), "rolling_correlation": (-1, 1)}
    bounds |= {"average_correlation": (-1, 1), "moving_average_distance": (-1, 4 + 1e-9), "volatility_regime": (0, 2)}
    bounds |= {
        "zscore": (-math.sqrt(5) - 1e-6, math.sqrt(5) + 1e-6),
        "skewness": (-4 / math.sqrt(5) - 1e-6, 4 / math.sqrt(5) + 1e-6),
    }
    bounds |= {"realised_volatility": (0, np.inf), "ewma_volatility": (0, np.inf)}
    for name, (low, high) in bounds.items():
        value = EVERY_INDICATOR[name](gross)
        assert low <= value.min(), name
        assert value.max() <= high, name


@pytest.mark.parametrize("name", EVERY_INDICATOR)
@pytest.mark.parametrize("seed", range(5))
def test_no_indicator_moves_by_a_bit_when_later_rows_change_or_are_cut_off(name, seed):
    rng = np.random.default_rng(seed)
    gross, t = random_gross(seed, rows=60), int(rng.integers(0, 59))
    changed = gross.copy()
    changed[t + 1 :] *= rng.lognormal(0, 1, changed[t + 1 :].shape)
    indicator = EVERY_INDICATOR[name]
    now = indicator(gross)[: t + 1]
    assert_array_equal(indicator(changed)[: t + 1], now)
    assert_array_equal(indicator(gross[: t + 1]), now)


@pytest.mark.parametrize(
    "name", [n for n in EVERY_INDICATOR if n not in ("average_correlation", "volatility_regime", "rolling_correlation")]
)
def test_one_asset_as_a_vector_equals_its_column_in_a_table(name):
    gross = random_gross(3)
    indicator = EVERY_INDICATOR[name]
    assert_array_equal(indicator(gross[:, 1]), indicator(gross)[:, 1])


@pytest.mark.parametrize("name", EVERY_INDICATOR)
def test_the_order_of_assets_in_memory_does_not_change_a_bit(name):
    gross = random_gross(5, assets=12)
    assert_array_equal(EVERY_INDICATOR[name](np.asfortranarray(gross)), EVERY_INDICATOR[name](gross))


def test_windows_longer_than_the_history_expand():
    gross = random_gross(4, rows=10)
    assert_array_equal(ind.realised_volatility(gross, 10_000), ind.realised_volatility(gross, 10))
    assert_array_equal(ind.drawdown_velocity(gross, 10_000, 10_000), ind.drawdown_velocity(gross, 10, 10_000))


@pytest.mark.parametrize("window", [0, -3, 2.5])
def test_a_window_that_is_no_number_of_bars_is_refused(window):
    with pytest.raises(ConfigError, match="whole number of bars"):
        ind.realised_volatility(random_gross(0), window)


def test_wrong_shapes_and_decays_are_refused_by_name():
    with pytest.raises(ShapeError, match=r"gross has shape \(2, 2, 2\)"):
        ind.log_returns(np.ones((2, 2, 2)))
    with pytest.raises(ShapeError, match="the same bars"):
        ind.rolling_correlation(np.ones(3), np.ones(4), 2)
    with pytest.raises(ShapeError, match=r"expected \(T, N\)"):
        ind.average_correlation(np.ones(3), 2)
    with pytest.raises(ShapeError, match=r"expected \(T,\)"):
        ind.volatility_regime(np.ones((3, 2)))
    with pytest.raises(ConfigError, match=r"0\.94"):
        ind.ewma_volatility(np.ones(3), decay=94)
