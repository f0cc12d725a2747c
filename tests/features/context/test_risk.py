"""The risk regime, and what risk budgets hold."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.indicators import CALM, CHOPPY, CRISIS, ewma_volatility
from rlplatform.features.context.risk import (
    historical_var,
    inverse_volatility_share,
    risk_regime,
    target_exposure,
    variance_contribution,
)


def moves(*sizes: float) -> np.ndarray:
    """Gross returns that alternate up and down, by so much at each bar."""
    signs = np.where(np.arange(len(sizes)) % 2, -1.0, 1.0)
    return np.exp(signs * np.array(sizes))


def test_historical_var_is_the_worst_but_one_of_twenty_returns():
    returns = np.arange(21) / 100  # −0.20 … 0.00: the 5 % quantile of 21 values is the second smallest
    assert_allclose(historical_var(np.exp(-returns), 21)[-1], 0.19)
    assert_allclose(historical_var(np.exp(-returns), 21)[0], 0.0)


def test_a_market_is_calm_then_choppy_then_in_crisis_as_its_losses_grow_past_what_they_were():
    calm, wild = [0.004] * 100, [0.03] * 30
    regime = risk_regime(moves(*calm, *wild), window=20, min_history=40)
    assert_array_equal(regime[:100], CALM)
    assert regime[103] == CRISIS


def test_while_history_is_short_levels_of_15_and_30_percent_a_year_decide():
    for size, expected in ((0.01, CALM), (0.02, CHOPPY), (0.04, CRISIS)):
        assert risk_regime(moves(*[size] * 30), window=20, min_history=252)[-1] == expected


def test_an_inverted_term_structure_raises_a_calm_market_to_choppy_and_a_raised_one_to_crisis():
    calm, raised = moves(*[0.01] * 30), moves(*[0.02] * 30)
    inverted, unknown = np.full(30, 0.05), np.full(30, np.nan)
    assert risk_regime(calm, 20, 252, inverted)[-1] == CHOPPY
    assert risk_regime(raised, 20, 252, inverted)[-1] == CRISIS
    assert risk_regime(raised, 20, 252, unknown)[-1] == CHOPPY
    assert risk_regime(calm, 20, 252, -inverted)[-1] == CALM


def test_target_exposure_is_target_over_volatility_up_to_its_cap():
    gross = moves(*[0.02] * 200)
    volatility = ewma_volatility(gross, 0.94)[-1] * np.sqrt(252)
    assert_allclose(volatility, 0.02 * np.sqrt(252), rtol=1e-9)
    assert_allclose(target_exposure(gross, 0.10, 2.0, 0.94, 252)[-1], 0.10 / volatility)
    assert target_exposure(np.ones(5), 0.10, 2.0, 0.94, 252).tolist() == [2.0] * 5


def test_an_asset_of_half_the_volatility_has_twice_the_share():
    gross = np.column_stack([moves(*[0.01] * 100), moves(*[0.02] * 100)])
    assert_allclose(inverse_volatility_share(gross, 0.94)[-1], [2 / 3, 1 / 3])
    assert_allclose(inverse_volatility_share(np.ones((3, 2)), 0.94), 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_contributions_are_numpy_s_covariances_and_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, [0.01, 0.02, 0.03], (80, 3))
    found = variance_contribution(np.exp(x), 30)
    last, mean = x[-30:], x[-30:].mean(1)
    expected = [np.cov(last[:, i], mean)[0, 1] / (3 * mean.var(ddof=1)) for i in range(3)]
    assert_allclose(found[-1], expected, rtol=1e-9)
    assert_allclose(found.sum(1), 1.0, rtol=1e-9)
    assert_allclose(found[0], 1 / 3)
