import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError
from envs.ledger import project
from envs.terms import CostConfig
from rlplatform.data import SyntheticConfig, load_prices, make_market
from rlplatform.data.markets import MARKETS, MomentumMarket, PairMarket, RegimeMarket

SIGNALS = ["momentum", "regimes", "pair"]
LONG = 3_000


@pytest.fixture(scope="module")
def markets():
    """One long path of each market, with its optimum."""
    return {name: make_market(SyntheticConfig(market=name, bars=LONG, seed=7)) for name in MARKETS}


def test_ar1_forecast_is_phi_times_the_last_return():
    close = 100 * np.exp(np.cumsum([[0.0], [0.02], [-0.01]], axis=0))
    forecast = MomentumMarket(phi=0.5, sigma=0.01).forecast(close)
    mean = np.einsum("tq,tqn->t", np.broadcast_to(forecast.probability, (3, 7)), np.log1p(forecast.returns))
    assert_allclose(mean, [0.0, 0.01, -0.005], atol=1e-12)
    second = np.einsum("q,tqn->t", forecast.probability[0], np.log1p(forecast.returns) ** 2)
    assert_allclose(second - mean**2, 0.01**2, rtol=1e-9)


def test_the_momentum_optimum_is_the_kelly_fraction_of_a_small_edge():
    close = 100 * np.exp(np.cumsum([[0.0], [0.0004]], axis=0))
    weak = make_market(SyntheticConfig(market="momentum", bars=2, parameters={"phi": 0.5, "sigma": 0.04}))
    optimum = type(weak)(prices=weak.prices.__class__(dates=weak.prices.dates, symbols=("MOM",), close=close), model=weak.model)
    assert_allclose(optimum.optimal_weights[1, 0], 0.0002 / 0.04**2 + 0.5, atol=2e-3)  # (m + σ²/2) / σ²


def test_the_momentum_path_has_the_autocorrelation_and_volatility_it_says(markets):
    log_return = np.log(markets["momentum"].prices.gross()[1:, 0])
    assert_allclose(np.corrcoef(log_return[1:], log_return[:-1])[0, 1], 0.5, atol=0.05)
    assert_allclose(log_return.std(), 0.02 / np.sqrt(1 - 0.5**2), rtol=0.05)


def test_the_momentum_optimum_earns_what_its_docstring_says(markets):
    model = markets["momentum"].model
    promised = model.phi * model.sigma / np.sqrt(2 * np.pi * (1 - model.phi**2))
    assert_allclose(markets["momentum"].expected_log_growth(), promised, rtol=0.1)


def test_one_large_return_of_one_asset_moves_the_belief_to_its_regime():
    close = 100 * np.exp(np.cumsum([[0.0, 0, 0], [0.03, 0.0, 0.0]], axis=0))
    beliefs = RegimeMarket().beliefs(close)
    assert_array_equal(beliefs[0], [0.25] * 4)
    assert beliefs[1].argmax() == 0
    assert_allclose(beliefs.sum(axis=1), 1)


def test_the_filter_is_bayes_rule_by_hand():
    model = RegimeMarket(drift_best=0.01, drift_other=-0.01, sigma=0.01, correlation=0.0, stay=0.7)
    close = 100 * np.exp(np.array([[0.0, 0, 0], [0.01, -0.01, -0.01]]))
    likelihood = np.exp([0.0, -4.0, -4.0, -2.0])  # two, two, and one coordinate two deviations off: −½·(2²)·k
    assert_allclose(model.beliefs(close)[1], likelihood / likelihood.sum(), rtol=1e-9)


def test_the_filter_mostly_knows_the_regime_and_its_beliefs_are_calibrated(markets):
    market = markets["regimes"]
    beliefs = market.model.beliefs(market.prices.close)[1:]
    states = market.states[1:]
    assert (beliefs.argmax(1) == states).mean() > 0.75
    assert_allclose(beliefs.max(1).mean(), (beliefs.argmax(1) == states).mean(), atol=0.04)


def test_regimes_last_as_long_as_stay_says(markets):
    changes = (np.diff(markets["regimes"].states) != 0).mean()
    assert_allclose(changes, 0.02, atol=0.006)


def test_whoever_sees_the_regime_earns_more_than_the_filter(markets):
    market = markets["regimes"]
    assert market.realised_log_growth(market.clairvoyant_weights).mean() > market.optimal_log_growth
    assert markets["pair"].clairvoyant_weights is None


def test_a_wide_spread_is_sold_with_both_legs_at_one():
    close = 100 * np.exp([[0.01, -0.01], [-0.01, 0.01]])
    market = make_market(SyntheticConfig(market="pair", bars=2))
    optimum = type(market)(
        prices=type(market.prices)(dates=market.prices.dates, symbols=("A", "B"), close=close), model=PairMarket()
    )
    assert_allclose(optimum.optimal_weights, [[-0.99, 1.01], [1.01, -0.99]], atol=0.005)


def test_the_spread_reverts_at_kappa(markets):
    close = markets["pair"].prices.close
    spread = np.log(close[:, 0] / close[:, 1])
    assert_allclose(np.polyfit(spread[:-1], spread[1:], 1)[0], 0.8, atol=0.04)
    assert_allclose(spread.std(), 0.02 / np.sqrt(1 - 0.8**2), rtol=0.1)


def test_without_a_signal_the_optimum_is_cash_and_grows_nothing(markets):
    market = markets["no_signal"]
    assert_allclose(market.optimal_weights, 0, atol=1e-9)
    assert_allclose(market.expected_log_growth(), 0, atol=1e-15)


def test_without_a_signal_mean_returns_over_many_seeds_are_zero():
    paths = [load_prices(SyntheticConfig(market="no_signal", bars=500, seed=seed)) for seed in range(100)]
    returns = np.concatenate([prices.gross()[1:] - 1 for prices in paths])
    assert_allclose(returns.mean(0), 0, atol=3.5 * 0.01 / np.sqrt(len(returns)))


@pytest.mark.parametrize("name", MARKETS)
def test_the_forecasts_are_the_distribution_that_the_path_was_drawn_from(markets, name):
    market = markets[name]
    returns = market.prices.gross()[1:] - 1
    forecast = market.forecast
    mean = np.einsum("tq,tqn->tn", *_both(forecast))[:-1]
    square = np.einsum("tq,tqn->tn", _both(forecast)[0], _both(forecast)[1] ** 2)[:-1]
    score = (returns - mean) / np.sqrt(square - mean**2)
    assert_allclose(score.mean(0), 0, atol=3.5 / np.sqrt(LONG))
    assert_allclose(score.std(0), 1, atol=0.06)


def _both(forecast):
    times = max(len(forecast.probability), len(forecast.returns))
    spread = [np.broadcast_to(array, (times, *array.shape[1:])) for array in (forecast.probability, forecast.returns)]
    return spread


@pytest.mark.parametrize("name", SIGNALS)
def test_the_optimum_clearly_beats_holding_and_earns_what_it_expects(markets, name):
    market = markets[name]
    hold = np.full_like(market.prices.close, 1 / market.prices.num_assets)
    assert market.expected_log_growth() > 0.002
    assert market.expected_log_growth() > 3 * abs(market.expected_log_growth(hold))
    realised = market.realised_log_growth()
    assert abs(realised.mean() - market.expected_log_growth()) < 4 * realised.std() / np.sqrt(LONG)


@pytest.mark.parametrize("name", SIGNALS)
def test_every_change_of_the_optimum_lowers_expected_log_growth(markets, name):
    market = markets[name]
    best, caps = market.optimal_weights, market.caps
    rng = np.random.default_rng(0)
    changed = {
        "half": best * 0.5,
        "nine tenths": best * 0.9,
        "one bar late": np.vstack([best[:1] * 0, best[:-1]]),
        "always": np.broadcast_to(best.mean(0), best.shape),
        "sign flipped": project(-best, caps),
        "noise": project(best + rng.normal(0, 0.05, best.shape), caps),
    }
    for how, weights in changed.items():
        assert market.expected_log_growth(weights) < market.expected_log_growth(), how


@pytest.mark.parametrize("name", MARKETS)
def test_the_optimum_is_feasible(markets, name):
    best = markets[name].optimal_weights
    assert best.shape == markets[name].prices.close.shape
    assert_allclose(project(best, markets[name].caps), best, atol=1e-9)


@pytest.mark.parametrize("name", MARKETS)
def test_later_prices_do_not_change_earlier_optimal_weights(name):
    market = make_market(SyntheticConfig(market=name, bars=120, seed=3))
    later = np.array(market.prices.close)
    later[61:] *= np.exp(np.random.default_rng(1).normal(0, 0.1, later[61:].shape))
    prices = type(market.prices)(dates=market.prices.dates, symbols=market.prices.symbols, close=later)
    other = type(market)(prices=prices, model=market.model)
    assert_allclose(other.optimal_weights[:61], market.optimal_weights[:61], atol=1e-6)
    if name not in ("no_signal", "fat_tail"):  # whose past says nothing
        assert np.abs(other.optimal_weights[61:] - market.optimal_weights[61:]).max() > 0.1


def test_realised_growth_is_the_log_of_one_plus_weighted_returns(markets):
    market = markets["pair"]
    by_hand = np.log1p((market.optimal_weights[:-1] * (market.prices.gross()[1:] - 1)).sum(-1))
    assert_allclose(market.realised_log_growth(), by_hand, rtol=1e-9, atol=1e-12)
    assert market.realised_log_growth(costs=CostConfig(proportional_bps=5)).sum() < by_hand.sum()


@pytest.mark.parametrize("name", MARKETS)
def test_a_seed_is_a_path(name):
    one, again, other = (load_prices(SyntheticConfig(market=name, bars=50, seed=seed)) for seed in (1, 1, 2))
    assert one.sha256 == again.sha256 != other.sha256
    assert_array_equal(one.close[0] / one.close[0], 1.0)
    assert one.calendar is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"market": "momentun"}, r"data.market = 'momentun'; .* Did you mean momentum\?"),
        ({"parameters": {"fi": 0.3}}, r"unknown key data.parameters.fi of market 'momentum'; it has mu, phi, sigma"),
        ({"parameters": {"phi": 1.0}}, r"data.parameters.phi = 1.0 of market 'momentum'; expected in \(-1, 1\)"),
        ({"bars": 1}, r"data.bars = 1; expected in \[2, 60000\]"),
        ({"seed": -1}, "data.seed = -1"),
        ({"start": "soon"}, "data.start = 'soon' is not a date"),
    ],
)
def test_a_setting_outside_its_meaning_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(**settings)


def test_the_longest_path_still_has_dates():
    prices = load_prices(SyntheticConfig(market="no_signal", bars=60_000))
    assert len(prices) == 60_000
