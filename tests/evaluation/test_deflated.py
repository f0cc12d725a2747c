"""The worked examples of the papers, then agreement with skfolio and with our own standard error."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.deflated import (
    Trials,
    deflated_from_error,
    expected_max_sharpe,
    judge_sharpe,
    min_track_record,
    moments,
    probabilistic_sharpe,
)
from rlplatform.evaluation.metrics import sharpe_ratio, sharpe_standard_error


def noise(bars=1_000, seed=0, mean=0.0):
    return mean + 0.01 * np.random.default_rng(seed).standard_normal(bars)


@pytest.mark.parametrize(("skew", "kurtosis", "probability"), [(0.0, 3.0, 0.982), (-2.448, 10.164, 0.913)])
def test_the_hedge_fund_of_bailey_and_lopez_de_prado_2012(skew, kurtosis, probability):
    """24 months, Sharpe 0.458 a month: 98.2 % if returns were normal, 91.3 % with their skew and kurtosis (§4)."""
    assert_allclose(probabilistic_sharpe(0.458, 0.0, skew, kurtosis, 24), probability, atol=5e-4)


@pytest.mark.parametrize(
    ("bars_per_year", "skew", "kurtosis", "years"),
    [(250, 0.0, 3.0, 2.73), (52, 0.0, 3.0, 2.83), (12, 0.0, 3.0, 3.24), (12, -0.72, 5.78, 4.99)],
)
def test_years_to_show_that_a_sharpe_of_two_is_above_one(bars_per_year, skew, kurtosis, years):
    """Bailey and López de Prado (2012): 2.73 years of days, 2.83 of weeks, 3.24 of months, 4.99 with a hedge fund's tails."""
    annual = math.sqrt(bars_per_year)
    assert_allclose(min_track_record(2 / annual, 1 / annual, skew, kurtosis) / bars_per_year, years, atol=5e-3)


@pytest.mark.parametrize(
    ("trials", "skew", "kurtosis", "deflated"), [(100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)]
)
def test_the_analyst_of_bailey_and_lopez_de_prado_2014(trials, skew, kurtosis, deflated):
    """Sharpe 2.5 over 1,250 days, trials with variance 1/2 a year: 0.9004 after 100, 0.9505 after 46 (88 if it were normal)."""
    hurdle = expected_max_sharpe(trials, math.sqrt(0.5 / 250))
    assert_allclose(probabilistic_sharpe(2.5 / math.sqrt(250), hurdle, skew, kurtosis, 1_250), deflated, atol=5e-5)


def test_the_hurdle_of_a_hundred_trials_is_that_of_the_paper():
    assert_allclose(expected_max_sharpe(100, math.sqrt(0.5 / 250)), 0.1132, atol=5e-5)


def test_the_expected_maximum_is_that_of_drawing_many_normals():
    drawn = np.random.default_rng(0).standard_normal((20_000, 50)).max(1).mean()
    assert_allclose(expected_max_sharpe(50, 1.0), drawn, rtol=0.02)


def test_our_figures_are_those_of_skfolio():
    from skfolio.measures import deflated_sharpe_ratio, probabilistic_sharpe_ratio

    returns = np.random.default_rng(1).standard_t(4, (600, 30)) * 0.01 + 0.0005
    found = judge_sharpe(returns[:, 3], Trials.of_returns(returns))
    sharpes = [sharpe_ratio(column, 1) for column in returns.T]
    assert_allclose(found.probabilistic, probabilistic_sharpe_ratio(returns[:, 3]), rtol=1e-9)
    assert_allclose(found.deflated, deflated_sharpe_ratio(returns[:, 3], sharpes), rtol=1e-9)


def test_a_table_of_metrics_is_enough_to_deflate():
    returns, trials = noise(700, seed=2, mean=0.0008), Trials(count=25, deviation=0.4)
    error = sharpe_standard_error(returns)
    found = deflated_from_error(sharpe_ratio(returns), error, 700, trials)
    assert_allclose(found, judge_sharpe(returns, trials).deflated, rtol=1e-12)


def test_without_a_spread_the_hurdle_is_that_of_trials_without_skill():
    returns = noise(1_000, mean=0.001)
    drawn = [sharpe_ratio(noise(1_000, seed)) for seed in range(300)]
    blind, seen = judge_sharpe(returns, Trials(count=300)), judge_sharpe(returns, Trials(count=300, deviation=np.std(drawn)))
    assert_allclose(blind.hurdle, seen.hurdle, rtol=0.1)


def test_one_trial_needs_no_deflation_and_a_loss_never_gets_long_enough():
    found = judge_sharpe(noise(500, mean=-0.001))
    assert found.hurdle == 0
    assert found.deflated == found.probabilistic < 0.05
    assert math.isinf(found.min_track_record_years)
    assert not found.convincing
    assert found.to_dict()["min_track_record_years"] is None


def test_a_track_as_long_as_the_minimum_has_just_the_confidence():
    returns = noise(800, mean=0.0006)
    sharpe, skew, kurtosis = moments(returns)
    bars = min_track_record(sharpe, 0.0, skew, kurtosis, 0.9)
    assert_allclose(probabilistic_sharpe(sharpe, 0.0, skew, kurtosis, bars), 0.9, rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 10_000), st.floats(0.01, 2.0))
def test_more_trials_never_make_a_ratio_more_convincing(count, deviation):
    returns = noise(300, mean=0.001)
    fewer, more = (judge_sharpe(returns, Trials(count=n, deviation=deviation)) for n in (count, count + 1))
    assert more.deflated <= fewer.deflated <= fewer.probabilistic


def test_cash_proves_nothing():
    found = judge_sharpe(np.zeros(100), Trials(count=3))
    assert math.isnan(found.deflated)
    assert not found.convincing


def test_trials_that_never_traded_count_too():
    returns = np.column_stack([np.zeros(100), noise(100, 1), noise(100, 2)])
    assert Trials.of_returns(returns).count == 3
    with pytest.raises(ShapeError, match=r"expected \(bars, trials\)"):
        Trials.of_returns(returns[:, 0])


@pytest.mark.parametrize("wrong", [{"count": 0}, {"deviation": -1.0}, {"deviation": math.nan}])
def test_impossible_trials_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"trials\.(count|deviation)"):
        Trials(**wrong)
