import json
import math

import empyrical
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from rlplatform.evaluation.metrics import sharpe_ratio, sharpe_standard_error, sortino_ratio, summarize, worst_mean
from tests.evaluation.conftest import dates, track_of


def test_a_year_that_doubles_has_cagr_one_and_half_a_year_that_doubles_has_three():
    daily = 2 ** (1 / 252) - 1
    assert_allclose(summarize(track_of([daily] * 252)).cagr, 1.0)
    assert_allclose(summarize(track_of([2 ** (1 / 126) - 1] * 126)).cagr, 3.0)


def test_sharpe_of_two_and_zero_percent_is_root_252_over_root_2():
    # mean 1 %, sample deviation √2 % → √252 / √2
    assert_allclose(sharpe_ratio(np.array([0.02, 0.0])), math.sqrt(126))


def test_sharpe_error_of_symmetric_coin_flips_around_zero_is_one_over_root_years():
    returns = np.array([0.01, -0.01] * 126)
    assert_allclose(sharpe_standard_error(returns), 1.0)


def test_sharpe_error_of_normal_returns_is_lo():
    returns = np.random.default_rng(0).normal(0.001, 0.01, 200_000)
    ratio = sharpe_ratio(returns, 1)
    assert_allclose(sharpe_standard_error(returns, 1), math.sqrt((1 + ratio**2 / 2) / 200_000), rtol=2e-3)


def test_sharpe_error_is_the_spread_of_sharpe_over_many_skewed_histories():
    rng = np.random.default_rng(0)
    draws = 0.003 + 0.01 * (1.0 - rng.exponential(size=(4_000, 500)))  # skew −2, per-bar Sharpe 0.3
    ratios = [sharpe_ratio(returns) for returns in draws]
    errors = [sharpe_standard_error(returns) for returns in draws[:200]]
    assert_allclose(np.std(ratios), np.mean(errors), rtol=0.05)
    lo = math.sqrt(252 * (1 + 0.3**2 / 2) / 500)
    assert np.mean(errors) > 1.2 * lo  # the correction matters here


def test_sortino_counts_all_bars_in_the_downside():
    # mean 1 %, downside √(1 %² / 4) = 0.5 %
    assert_allclose(sortino_ratio(np.array([0.03, -0.01, 0.02, 0.0])), 2 * math.sqrt(252))


def test_drawdown_calmar_and_hit_rate_by_hand():
    metrics = summarize(track_of([0.25, -0.2, 0.1, 0.0]), bars_per_year=4)  # 1 → 1.25 → 1.00 → 1.10 → 1.10
    assert_allclose(metrics.max_drawdown, -0.2)
    assert_allclose(metrics.cagr, 0.1)
    assert_allclose(metrics.calmar, 0.5)
    assert_allclose(metrics.hit_rate, 0.5)
    assert_allclose(metrics.total_return, 0.1)
    assert metrics.bars == 4


def test_cvar_is_the_mean_of_the_worst_twentieth_and_negative_for_a_loss():
    returns = np.zeros(40)
    returns[[3, 17]] = -0.04, -0.02
    assert_allclose(worst_mean(returns), -0.03)


def test_costs_are_summed_as_fractions_and_in_money():
    track = track_of([1.0, 0.0], cost=[0.01, 0.02], financing=[0.001, 0.002], turnover=[1.0, 0.5])
    metrics = summarize(track)
    assert_allclose(metrics.cost_paid, 0.03)
    assert_allclose(metrics.cost_paid_money, 0.01 * 1 + 0.02 * 2)  # the second trade is of twice the wealth
    assert_allclose(metrics.financing_paid, 0.003)
    assert_allclose(metrics.turnover_per_day, 0.75)


def test_turnover_of_several_bars_a_day_is_summed_over_the_day():
    closes = np.array(["2020-01-01T10", "2020-01-01T12", "2020-01-02T10", "2020-01-02T12", "2020-01-03T10"], "datetime64[h]")
    assert_allclose(summarize(track_of([0.0] * 4, turnover=np.full(4, 0.2), dates=closes)).turnover_per_day, 0.4)


def test_cash_has_no_sharpe_and_its_json_has_null_in_place_of_nan():
    metrics = summarize(track_of([0.0] * 10)).to_dict()
    assert metrics["sharpe"] is None
    assert metrics["sharpe_se"] is None
    assert metrics["calmar"] is None
    assert metrics["max_drawdown"] == 0.0
    json.dumps(metrics, allow_nan=False)


def test_ruin_loses_everything():
    metrics = summarize(track_of([0.1, -1.0, 0.0], ruined=True))
    assert (metrics.total_return, metrics.cagr, metrics.max_drawdown) == (-1.0, -1.0, -1.0)


@pytest.mark.parametrize("seed", range(5))
def test_every_figure_that_empyrical_knows_agrees_with_it(seed):
    rng = np.random.default_rng(seed)
    values = 0.0004 + 0.01 * rng.standard_t(4, size=700 + seed)
    metrics = summarize(track_of(values))
    returns = pd.Series(values, index=dates(len(values)))
    assert_allclose(metrics.total_return, empyrical.cum_returns_final(returns))
    assert_allclose(metrics.cagr, empyrical.cagr(returns))
    assert_allclose(metrics.volatility, empyrical.annual_volatility(returns))
    assert_allclose(metrics.sharpe, empyrical.sharpe_ratio(returns))
    assert_allclose(metrics.sortino, empyrical.sortino_ratio(returns))
    assert_allclose(metrics.max_drawdown, empyrical.max_drawdown(returns))
    assert_allclose(metrics.calmar, empyrical.calmar_ratio(returns))
    assert_allclose(metrics.cvar_5, empyrical.conditional_value_at_risk(returns))
