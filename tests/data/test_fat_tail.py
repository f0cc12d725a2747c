import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.terms import CapsConfig
from rlplatform.data import SyntheticConfig, make_market
from rlplatform.data.fat_tail import FatTailMarket
from rlplatform.data.log_optimal import Forecast
from rlplatform.data.tail_optimal import tail_frontier, tail_optimal_weights, tail_point, worst_share
from rlplatform.evaluation.metrics import worst_mean

MODEL = FatTailMarket()
LONG = CapsConfig(long_only=True)


def test_the_worst_share_counts_the_scenario_at_its_edge_in_part():
    # Worst 40 % of −3 (0.1), −1 (0.5), 2 (0.4): all of the first, 0.3 of the second.
    assert_allclose(worst_share(np.array([2.0, -3.0, -1.0]), np.array([0.4, 0.1, 0.5]), 0.4), [0.0, 0.25, 0.75])


def test_figures_of_a_coin_by_hand():
    coin = Forecast(returns=np.array([[[0.21], [-0.1]]]), probability=np.array([[0.5, 0.5]]))
    point = tail_point(coin, np.array([1.0]), alpha=0.5)
    assert point.log_growth == pytest.approx(np.log(1.21 * 0.9) / 2)
    assert point.return_cvar == pytest.approx(-0.1)
    assert point.log_growth_cvar == pytest.approx(np.log(0.9))


def test_a_bet_is_refused_where_its_tail_counts_for_more_than_its_mean():
    # x of the coin's wealth: (1 − w) E + w · worst. Worth it while (1 − w)(0.21 − 0.1)/2 > w · 0.1, so up to w = 0.355.
    coin = Forecast(returns=np.array([[[0.21], [-0.1]]]), probability=np.array([[0.5, 0.5]]))
    assert tail_optimal_weights(coin, LONG, 0.5, 0.34)[0] > 0.05
    assert tail_optimal_weights(coin, LONG, 0.5, 0.37)[0] == pytest.approx(0.0, abs=1e-6)


def test_scenarios_have_the_moments_of_the_law_and_of_the_coarse_forecast():
    fine, coarse = MODEL.scenarios(), MODEL.forecast(np.ones((2, 2)))
    assert fine.probability.sum() == pytest.approx(1.0)
    assert_allclose(coarse.probability.sum(1), 1.0)
    for order in (1, 2):
        means = [f.probability[0] @ np.log1p(f.returns[0]) ** order for f in (fine, coarse)]
        assert_allclose(*means, rtol=5e-3)
    assert_allclose(fine.probability[0] @ np.log1p(fine.returns[0]), [0.0075 - 0.02 * 0.02, 0.004], rtol=1e-6)


def test_the_path_follows_its_law():
    market = make_market(SyntheticConfig(market="fat_tail", bars=40_000, seed=1))
    log_return, crashed = np.log(market.prices.gross()[1:]), market.states[1:] == 1
    assert crashed.mean() == pytest.approx(0.02, abs=0.002)
    assert_allclose(log_return[~crashed].mean(0), [0.0075, 0.004], atol=1e-4)
    assert_allclose(log_return[crashed].mean(0), [-0.0125, 0.004], atol=6e-4)
    assert_allclose(log_return[crashed].std(0), [0.005, 0.0018], atol=4e-4)
    assert abs(np.corrcoef(log_return[1:, 0], log_return[:-1, 0])[0, 1]) < 0.02
    worst = worst_mean(market.prices.gross()[1:] @ np.array([0.5, 0.5]) - 1)
    assert worst == pytest.approx(tail_point(MODEL.scenarios(), np.array([0.5, 0.5]), 0.05).return_cvar, abs=1.5e-4)


def test_the_growth_optimum_holds_carry_alone_and_the_tail_optimum_a_seventh_of_it():
    market = make_market(SyntheticConfig(market="fat_tail", bars=100))
    assert_allclose(market.optimal_weights[0], [1.0, 0.0], atol=1e-6)
    growth, tail = tail_frontier(MODEL.scenarios(), MODEL.caps, 0.05, (0.0, 1.0))
    assert_allclose(growth.weights, [1.0, 0.0], atol=1e-6)
    assert_allclose(tail.weights, [0.144, 0.856], atol=0.01)
    assert tail.log_growth < growth.log_growth
    assert tail.return_cvar > 0 > growth.return_cvar


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_no_weights_on_a_grid_are_better_than_the_optimum(weight):
    scenarios = MODEL.scenarios(24)
    best = tail_optimal_weights(scenarios, MODEL.caps, 0.05, weight)

    def objective(weights):
        point = tail_point(scenarios, np.asarray(weights), 0.05)
        return (1 - weight) * point.log_growth + weight * point.log_growth_cvar

    grid = [(a / 20, b / 20) for a in range(21) for b in range(21 - a)]
    assert objective(best) >= max(map(objective, grid)) - 1e-8


def test_along_the_frontier_growth_falls_and_the_tail_improves():
    points = tail_frontier(MODEL.scenarios(), MODEL.caps, 0.05, (0.0, 0.25, 0.5, 0.75, 1.0))
    assert (np.diff([p.log_growth for p in points]) < 0).all()
    assert (np.diff([p.log_growth_cvar for p in points]) > 0).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"crash_probability": 0.0}, r"crash_probability = 0.0 of market 'fat_tail'; expected in \(0, 1\)"),
        ({"crash": -0.1}, r"crash = -0.1 of market 'fat_tail'"),
        ({"sigma_safe": 0.3}, r"sigma_safe = 0.3 of market 'fat_tail'"),
    ],
)
def test_laws_that_cannot_be_are_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(market="fat_tail", parameters=parameters)


def test_shorts_are_refused():
    with pytest.raises(ConfigError, match="long-only caps alone"):
        tail_optimal_weights(MODEL.scenarios(4), CapsConfig(long_only=False), 0.05, 0.5)
