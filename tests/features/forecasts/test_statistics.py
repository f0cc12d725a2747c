"""Statistics of forecasts by hand-checked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import expon, norm

from rlplatform.features.forecasts.forecast import LEVELS
from rlplatform.features.forecasts.moments import cvar_05, moments
from rlplatform.features.forecasts.schema import STATISTICS, feature_name, is_raw
from rlplatform.features.forecasts.scoring import cdf, crps, known_later, outcomes, rolling_mean
from rlplatform.features.forecasts.statistics import compute_statistics
from tests.features.forecasts.conftest import forecast_of, small

NINE = np.array(LEVELS)


def everywhere(quantiles, rows: int = 60) -> np.ndarray:
    """(K,) of log returns → (T, 1, 2, K)."""
    return np.broadcast_to(np.asarray(quantiles, float), (rows, 1, 2, len(LEVELS))).copy()


def statistics_of(quantiles, returns=None, members=None, gaussian=None, **changes):
    config = small(horizons=(1, 2), **changes)
    returns = np.zeros((len(quantiles), 1)) if returns is None else returns
    main = forecast_of(quantiles)
    gaussian = main if gaussian is None else gaussian
    return compute_statistics(main, members or {}, gaussian, returns, config)


def test_moments_of_a_normal_and_of_an_exponential_distribution():
    mean, std, skew = moments(0.001 + 0.01 * norm.ppf(NINE))
    assert_allclose([mean, std, skew], [0.001, 0.01, 0.0], rtol=0.015, atol=1e-3)
    mean, std, skew = moments(expon.ppf(NINE))
    assert_allclose([mean, std], [1, 1], rtol=0.03)
    assert_allclose(skew, 2, rtol=0.08)


def test_a_distribution_of_one_point_has_no_spread_and_no_skewness():
    assert_allclose(moments(np.full(len(LEVELS), 0.02)), [0.02, 0.0, 0.0], atol=1e-12)


def test_with_q05_at_minus_2_and_a_tail_of_scale_1_the_mean_of_the_worst_twentieth_is_minus_3():
    quantiles = np.linspace(-2, 2, len(LEVELS))
    quantiles[1], quantiles[0] = -2.0, -2.0 - np.log(5)
    assert_allclose(cvar_05(quantiles), -3.0)


def test_the_distribution_function_goes_through_the_quantiles_linearly_and_ends_exponentially():
    quantiles = np.linspace(-10, 10, len(LEVELS))  # one apart
    assert_allclose(cdf(quantiles, np.array(0.0)), 0.5)
    assert_allclose(cdf(quantiles, np.array(0.5)), 0.525)
    beta = 1 / np.log(5)
    assert_allclose(cdf(quantiles, np.array(-10 - beta)), 0.01 * np.exp(-1))
    assert_allclose(cdf(quantiles, np.array(10 + beta)), 1 - 0.01 * np.exp(-1))
    assert_allclose(cdf(np.zeros(len(LEVELS)), np.array(0.0)), 0.5)
    assert np.isnan(cdf(quantiles, np.array(np.nan)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), repeats=st.booleans())
def test_the_distribution_function_rises_and_stays_between_0_and_1(seed, repeats):
    rng = np.random.default_rng(seed)
    quantiles = np.sort(rng.normal(0, 0.01, len(LEVELS)))
    if repeats:
        quantiles = np.round(quantiles, 2)
    x = np.sort(np.append(rng.normal(0, 0.03, 50), quantiles))
    p = cdf(np.broadcast_to(quantiles, (len(x), len(LEVELS))), x)
    assert (np.diff(p) >= -1e-12).all()
    assert (p >= 0).all()
    assert (p <= 1).all()


def test_the_crps_of_a_point_is_its_distance_and_the_right_normal_beats_wider_and_narrower_ones():
    assert_allclose(crps(np.full(len(LEVELS), 0.03), np.array(0.01)), 0.02)
    y = np.random.default_rng(0).normal(0, 1, 20_000)
    scores = [crps(np.broadcast_to(s * norm.ppf(NINE), (len(y), len(LEVELS))), y).mean() for s in (0.7, 1.0, 1.4)]
    assert_allclose(scores[1], 1 / np.sqrt(np.pi), rtol=0.02)
    assert scores[1] < min(scores[0], scores[2])


def test_what_was_forecast_at_t_is_known_as_many_bars_later_as_its_horizon():
    returns = np.array([[0.0], [0.01], [0.02], [-0.01]])
    y = outcomes(returns, (1, 2))
    assert_allclose(y[:, 0, 0], [0.01, 0.02, -0.01, np.nan])
    assert_allclose(y[:, 0, 1], [0.03, 0.01, np.nan, np.nan])
    assert_allclose(known_later(y, (1, 2))[:, 0], [[np.nan, np.nan], [0.01, np.nan], [0.02, 0.03], [-0.01, 0.01]])


def test_a_rolling_mean_counts_what_is_known_in_its_window_only():
    mean, count = rolling_mean(np.array([np.nan, 1.0, 3.0, np.nan, 5.0]), 2)
    assert_allclose(mean, [np.nan, 1, 2, 3, 5])
    assert count.tolist() == [0, 1, 2, 1, 1]


def test_the_pit_at_t_is_of_the_forecast_made_one_horizon_before():
    returns = np.zeros((60, 1))
    returns[30] = 0.01  # the 90 % quantile of what row 29 forecast
    quantiles = np.interp(NINE, [0, 0.5, 0.9, 1], [-0.03, 0.0, 0.01, 0.03])
    pit = statistics_of(everywhere(quantiles), returns)["pit"]
    assert np.isnan(pit[0, 0, 0])
    assert_allclose(pit[29:32, 0, 0], [0.5, 0.9, 0.5], atol=1e-6)
    assert_allclose(pit[29:33, 0, 1], [0.5, 0.9, 0.9, 0.5], atol=1e-6)  # the two-bar return of rows 28 and 29


def test_an_edge_of_12_bp_is_7_net_of_5_bp_of_cost_and_one_of_3_bp_is_none():
    def edge(mean_bp):
        return statistics_of(everywhere(np.log1p(mean_bp * 1e-4 + 0.01 * norm.ppf(NINE))), cost_bps=5.0)["edge_bp"][0, 0, 0]

    assert_allclose([edge(12), edge(-12), edge(3)], [7, -7, 0], atol=1e-3)


def test_probability_up_spread_and_quantiles_are_those_of_simple_returns():
    quantiles = np.log1p(np.interp(NINE, [0.0, 0.4, 1.0], [-0.04, 0.0, 0.06]))
    s = statistics_of(everywhere(quantiles))
    assert_allclose(s["p_up"][0, 0, 0], 0.6, atol=1e-4)
    assert_allclose(s["spread"][0, 0, 0], s["q90"][0, 0, 0] - s["q10"][0, 0, 0])
    assert_allclose([s["q10"][0, 0, 0], s["q90"][0, 0, 0]], [-0.03, 0.05], atol=1e-6)


def test_members_of_which_one_of_two_points_the_other_way_agree_by_half_and_disperse():
    up = everywhere(0.001 + 0.01 * norm.ppf(NINE))
    down = everywhere(-0.001 + 0.01 * norm.ppf(NINE))
    s = statistics_of(up, members={"a": forecast_of(up), "b": forecast_of(down)})
    assert_allclose(s["agreement"][0, 0, 0], 0.5)
    assert_allclose(s["dispersion"][0, 0, 0], 0.001, rtol=0.02)
    alone = statistics_of(up)
    assert_allclose([alone["agreement"][0, 0, 0], alone["dispersion"][0, 0, 0]], [1, 0])


def test_a_silent_member_is_not_counted():
    up = everywhere(0.001 + 0.01 * norm.ppf(NINE))
    s = statistics_of(up, members={"a": forecast_of(up), "b": forecast_of(np.full_like(up, np.nan))})
    assert_allclose([s["agreement"][0, 0, 0], s["dispersion"][0, 0, 0]], [1, 0], atol=1e-9)


def test_the_gate_opens_after_enough_outcomes_and_names_what_closes_it():
    returns = np.random.default_rng(0).normal(0, 0.01, (200, 1))
    right, low = everywhere(0.01 * norm.ppf(NINE), 200), everywhere(-0.03 + 0.01 * norm.ppf(NINE), 200)

    def reasons(quantiles, gaussian):
        return statistics_of(quantiles, returns, gaussian=forecast_of(gaussian))["gate_reason"][:, 0, 0]

    good = reasons(right, right)
    assert set(good[:20]) == {"few outcomes"}  # row t knows t outcomes; 20 are asked for
    assert set(good[60:]) == {"open"}
    assert set(reasons(low, low)[60:]) == {"miscalibrated"}
    assert set(reasons(2 * right, right)[60:]) == {"outscored"}
    silent = right.copy()
    silent[100] = np.nan
    main = forecast_of(silent)
    s = compute_statistics(main, {}, forecast_of(right), returns, small(horizons=(1, 2)))
    assert s["gate_reason"][100, 0, 0] == "fallback"
    assert s["gate"][99:102, 0, 0].tolist() == [1, 0, 1]


def test_every_stored_column_has_a_unit_and_a_description_and_is_computed():
    computed = statistics_of(everywhere(0.01 * norm.ppf(NINE)))
    assert list(computed) == [statistic.name for statistic in STATISTICS]
    assert all(statistic.unit and statistic.description for statistic in STATISTICS)
    assert {values.shape for values in computed.values()} == {(60, 1, 2)}


@pytest.mark.parametrize(
    ("name", "raw"), [("gate", True), ("agreement", True), ("p_up", True), ("std", False), ("edge_bp", False)]
)
def test_flags_and_probabilities_keep_their_scale(name, raw):
    assert is_raw(feature_name(name, 5)) is raw
    assert not is_raw("log_return_5")
