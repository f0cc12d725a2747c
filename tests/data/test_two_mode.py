import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from envs.errors import ConfigError
from rlplatform.data import SyntheticConfig, make_market
from rlplatform.data.two_mode import CHOP, TREND, TwoModeMarket

SMALL = 100 * np.exp([[0.0, 0.0, 0.0], [0.02, -0.01, 0.001], [0.03, -0.03, 0.05], [0.01, -0.03, 0.08]])


def normal(x, mean, sigma):
    return np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))


def test_the_forecast_mixes_following_and_losing_by_hand():
    model = TwoModeMarket(phi=0.5, loss=0.01)
    forecast, close = model.forecast(SMALL), model.beliefs(SMALL) @ model.transition
    mean = np.einsum("tq,tqn->tn", forecast.probability, np.log1p(forecast.returns))
    trend, chop = close[1]
    assert_allclose(mean[1, :2], trend * np.array([0.01, -0.005]) - chop * 0.01, atol=1e-12)
    assert_allclose(np.einsum("tq,tq->t", forecast.probability, forecast.returns[..., 2]), 0, atol=1e-9)  # FEAR earns nothing


def test_the_filter_is_the_sum_over_all_histories_of_regimes():
    model = TwoModeMarket(stay=0.7)
    log_return, spread = np.diff(np.log(SMALL), axis=0, prepend=np.log(SMALL[:1])), (0.01, 0.02)

    def likelihood(t, regime):
        a_b = 0.5 * log_return[t - 1, :2] if regime == TREND else [-model.loss] * 2
        fear = normal(log_return[t, 2], -(spread[regime] ** 2) / 2, spread[regime])
        return normal(log_return[t, :2], a_b, 0.02).prod() * fear

    weight = np.zeros(2)
    for path in itertools.product((TREND, CHOP), repeat=4):  # of rows 0 to 3; row 0 is even
        steps = [0.7 if a == b else 0.3 for a, b in itertools.pairwise(path)]
        weight[path[-1]] += 0.5 * np.prod(steps) * np.prod([likelihood(t, path[t]) for t in (1, 2, 3)])
    assert_allclose(model.beliefs(SMALL)[3], weight / weight.sum(), rtol=1e-9)


def test_the_optimum_is_what_another_solver_finds_on_a_fine_grid():
    """Gauss-Hermite nodes in three dimensions and SLSQP, instead of sigma points and projected gradients."""
    market = make_market(SyntheticConfig(market="two_mode", bars=400, seed=1))
    model, close = market.model, market.prices.close
    log_return = np.diff(np.log(close), axis=0, prepend=np.log(close[:1]))
    ahead = model.beliefs(close) @ model.transition
    points, mass = np.polynomial.hermite_e.hermegauss(9)
    nodes = np.array(list(itertools.product(points, repeat=3)))
    share = np.array(list(itertools.product(mass / mass.sum(), repeat=3))).prod(1)
    for row in (17, 60, 150, 233, 399):
        means = np.array([[*(0.5 * log_return[row, :2]), -(0.01**2) / 2], [-model.loss, -model.loss, -(0.02**2) / 2]])
        spread = np.array([[0.02, 0.02, 0.01], [0.02, 0.02, 0.02]])
        gain = np.concatenate([np.expm1(means[s] + nodes * spread[s]) for s in (TREND, CHOP)])
        odds = np.concatenate([ahead[row, s] * share for s in (TREND, CHOP)])

        def loss(w, gain=gain, odds=odds):
            return -1e4 * odds @ np.log1p(gain @ w)

        bounds, budget = [(0, 1)] * 3, {"type": "ineq", "fun": lambda w: 1 - w.sum()}
        starts = [np.zeros(3), np.full(3, 0.3), *np.eye(3)]
        best = min((minimize(loss, s, bounds=bounds, constraints=budget, tol=1e-12) for s in starts), key=lambda r: r.fun)
        assert -loss(market.optimal_weights[row]) >= -best.fun - 1e-3  # 1e-7 of growth
        assert market.optimal_weights[row, 2] < 1e-3


def test_the_path_follows_its_law():
    market = make_market(SyntheticConfig(market="two_mode", bars=8_000, seed=5))
    log_return, states = np.log(market.prices.gross()), market.states
    for regime, (slope, fear) in enumerate([(0.5, 0.01), (0.0, 0.02)]):
        rows = np.flatnonzero(states[2:] == regime) + 2
        fitted = np.polyfit(log_return[rows - 1, 0], log_return[rows, 0], 1)[0]
        assert_allclose(fitted, slope, atol=0.05)
        assert_allclose(log_return[rows, 2].std(), fear, rtol=0.05)
    assert_allclose(log_return[1:][states[1:] == CHOP, :2].mean(), -0.008, atol=0.001)
    assert_allclose((np.diff(states) != 0).mean(), 0.02, atol=0.006)


def test_the_optimum_is_aggressive_in_a_trend_and_passive_in_a_chop_and_both_matter():
    market = make_market(SyntheticConfig(market="two_mode", bars=4_000, seed=2))
    held, following = market.optimal_weights.sum(1)[:-1], market.states[1:]
    assert held[following == TREND].mean() > 0.5 > 0.15 > held[following == CHOP].mean()
    always = np.where(np.log(market.prices.gross()) > 0, 1.0, 0.0) * [0.5, 0.5, 0.0]
    assert market.realised_log_growth(always).mean() < 0.7 * market.optimal_log_growth


@pytest.mark.parametrize(("name", "value"), [("phi", 1.0), ("stay", 1.0), ("fear_ratio", 1.0), ("loss", 0.2)])
def test_laws_that_cannot_be_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"data.parameters.{name} = {value} of market 'two_mode'; expected in"):
        SyntheticConfig(market="two_mode", parameters={name: value})
