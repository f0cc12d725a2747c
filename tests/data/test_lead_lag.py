import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.data import SyntheticConfig, make_market
from rlplatform.data.lead_lag import LeadLagMarket


def test_neighbours_are_the_others_of_the_sector():
    model = LeadLagMarket(assets=6, sectors=2)
    assert model.symbols == ("L01", "L02", "L03", "L04", "L05", "L06")
    assert_allclose(model.neighbours[0], [0, 0, 0.5, 0, 0.5, 0])
    assert_allclose(model.neighbours[3], [0, 0.5, 0, 0, 0, 0.5])
    assert_allclose(model.covariance[0] / model.covariance[0, 0], [1, 0, 0.3, 0, 0.3, 0])


def test_the_forecast_is_phi_times_what_the_neighbours_did():
    model = LeadLagMarket(assets=4, sectors=2, phi=0.5, sigma=0.01)
    close = 100 * np.exp([[0.0] * 4, [0.02, 0.01, -0.04, 0.03]])
    forecast = model.forecast(close)
    scenarios = np.log1p(forecast.returns[1])
    mean = forecast.probability[0] @ scenarios
    assert_allclose(mean, [-0.02, 0.015, 0.01, 0.005], atol=1e-12)
    deviations = scenarios - mean
    assert_allclose(np.einsum("q,qi,qj->ij", forecast.probability[0], deviations, deviations), model.covariance, atol=1e-15)


def test_the_path_follows_its_law():
    market = make_market(SyntheticConfig(market="lead_lag", bars=6_000, seed=3, parameters={"assets": 6, "sectors": 2}))
    model, log_return = market.model, np.log(market.prices.gross()[1:])
    shocks = log_return[1:] - model.phi * log_return[:-1] @ model.neighbours.T
    assert_allclose(np.cov(shocks.T) / model.sigma**2, model.covariance / model.sigma**2, atol=0.06)
    assert np.abs(np.corrcoef(shocks[1:].T, shocks[:-1].T)[:6, 6:]).max() < 0.05


def test_an_assets_own_last_return_says_less_than_its_neighbours():
    market = make_market(SyntheticConfig(market="lead_lag", bars=6_000, seed=3))
    log_return = np.log(market.prices.gross()[1:])
    heard = log_return @ market.model.neighbours.T

    def correlation(past):
        return np.corrcoef(past[:-1, 0], log_return[1:, 0])[0, 1]

    assert correlation(heard) > 0.5 > 0.4 > correlation(log_return)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"assets": 5.5}, r"assets = 5.5 of market 'lead_lag'; expected a whole number from 1"),
        ({"assets": 4, "sectors": 3}, r"assets = 4 of market 'lead_lag'; expected at least two in each of 3 sectors"),
        ({"phi": 1.0}, r"phi = 1.0 of market 'lead_lag'; expected in \(-1, 1\)"),
    ],
)
def test_laws_that_cannot_be_are_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(market="lead_lag", parameters=parameters)
