import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from envs.errors import ShapeError
from envs.terms import CapsConfig
from rlplatform.data.log_optimal import Forecast, log_optimal_weights, project_to_gross

LONG_ONLY = CapsConfig(long_only=True, gross=1.0)


def bet(win: float, lose: float, chance: float) -> Forecast:
    return Forecast(returns=np.array([[[win], [-lose]]]), probability=np.array([[chance, 1 - chance]]))


def test_a_coin_that_wins_six_times_in_ten_is_worth_a_fifth_of_wealth():
    assert_allclose(log_optimal_weights(bet(1.0, 1.0, 0.6), LONG_ONLY), [[0.2]], atol=1e-6)  # Kelly: 0.6 − 0.4


def test_a_fair_coin_is_worth_nothing_and_a_sure_thing_the_cap():
    assert_allclose(log_optimal_weights(bet(1.0, 1.0, 0.5), LONG_ONLY), [[0.0]], atol=1e-9)
    assert_allclose(log_optimal_weights(bet(0.01, -0.01, 0.5), LONG_ONLY), [[1.0]])


def test_a_losing_bet_is_sold_short_where_that_is_allowed():
    signed = CapsConfig(long_only=False, gross=2.0, net=2.0, per_asset=2.0)
    assert_allclose(log_optimal_weights(bet(1.0, 1.0, 0.4), signed), [[-0.2]], atol=1e-6)


def test_expected_log_growth_of_half_a_double_or_nothing_is_a_quarter_log_of_three_quarters():
    assert_allclose(bet(1.0, 1.0, 0.5).expected_log_growth(np.array([[0.5]])), [0.5 * np.log(1.5 * 0.5)])


def test_weights_outside_the_cap_shrink_to_the_nearest_inside():
    assert_allclose(project_to_gross(np.array([[2.0, 1.0]]), 1.0, long_only=True), [[1.0, 0.0]])
    assert_allclose(project_to_gross(np.array([[1.5, -1.5]]), 2.0, long_only=False), [[1.0, -1.0]])


@given(seed=st.integers(0, 2**32 - 1), long_only=st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_projection_is_feasible_idempotent_and_nearest(seed, long_only):
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 2, (1, 4))
    near = project_to_gross(weights, 1.5, long_only)
    assert np.abs(near).sum() <= 1.5 + 1e-12
    assert not long_only or near.min() >= 0
    assert_allclose(project_to_gross(near, 1.5, long_only), near, atol=1e-12)
    others = project_to_gross(rng.normal(0, 2, (200, 4)), 1.5, long_only)
    assert np.linalg.norm(weights - near) <= np.linalg.norm(weights - others, axis=1).min() + 1e-12


@given(seed=st.integers(0, 2**32 - 1), long_only=st.booleans())
@settings(max_examples=15, deadline=None)
def test_no_feasible_weights_grow_faster_than_the_optimum_by_scipy(seed, long_only):
    rng = np.random.default_rng(seed)
    returns = rng.normal(0, 0.02, 3) + rng.normal(0, 0.03, (60, 3))
    forecast = Forecast(returns=returns[None], probability=np.full((1, 60), 1 / 60))
    best = log_optimal_weights(forecast, CapsConfig(long_only=long_only, gross=1.0))
    # Long legs minus short legs turns Σ|w| ≤ 1 into a smooth problem.
    legs = returns if long_only else np.hstack([returns, -returns])
    start = np.full(legs.shape[1], 0.1)
    room = {"type": "ineq", "fun": lambda w: 1.0 - w.sum()}
    scipy = minimize(
        lambda w: -1e3 * np.log1p(legs @ w).mean(), start, bounds=[(0, 1)] * len(start), constraints=room, tol=1e-12
    )
    assert_allclose(forecast.expected_log_growth(best)[0], -1e-3 * scipy.fun, atol=1e-8)


def test_forecasts_whose_axes_disagree_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(T, Q, N\) and \(T, Q\)"):
        Forecast(returns=np.ones((1, 3, 2)), probability=np.ones((1, 2)))
