"""Forecasters by hand-checked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlplatform.features.forecasts import make_backend
from rlplatform.features.forecasts.combination import average, choose, first_known
from rlplatform.features.forecasts.config import AutoConfig, ChronosConfig, HistoricalConfig
from rlplatform.features.forecasts.forecast import LEVELS, Draws, quantiles_of_steps
from rlplatform.features.forecasts.garch import PERCENT, GarchParameters, fit, next_variance
from rlplatform.features.forecasts.historical import FilteredBootstrapBackend, IIDBootstrapBackend
from rlplatform.features.forecasts.learned import regrid
from rlplatform.features.forecasts.registry import leaf
from rlplatform.features.forecasts.volatility import devolatilised, floored_volatility
from tests.features.forecasts.conftest import ToyModel, days, forecast_of, returns_with_clusters, small

NINE = np.array(LEVELS)
ONE_BAR = Draws(paths=100, steps=1, seed=0)


def test_of_past_returns_of_1_to_100_bp_the_median_is_50_5_and_the_worst_twentieth_begins_at_5_5():
    returns = np.append(0.0, np.arange(1, 101))[:, None] * 1e-4
    backend = IIDBootstrapBackend(horizons=(1,), draws=ONE_BAR, config=HistoricalConfig(window=100, min_history=20))
    quantiles = backend.forecast(days(101), returns, np.array([100])).quantiles[0, 0, 0]
    assert_allclose(quantiles[LEVELS.index(0.5)], 50.5e-4, rtol=1e-6)
    assert_allclose(quantiles[LEVELS.index(0.05)], 5.5e-4, rtol=1e-6)


def test_a_return_is_divided_by_the_volatility_of_the_day_before():
    returns = np.zeros((30, 1))
    returns[1:] = 0.01
    returns[25] = 0.05
    z = devolatilised(returns, floored_volatility(returns, 0.94))[:, 0]
    assert_allclose(z[25], 5.0, rtol=0.05)  # of about 0.01, not of what it became by the move itself
    assert z[26] < 0.8
    assert np.isnan(z[:21]).all()


def test_after_a_calm_year_one_move_of_5_percent_widens_tomorrow_by_the_rise_of_its_volatility():
    signs = np.where(np.arange(301) % 2, 1.0, -1.0)[:, None]
    calm = 0.01 * signs
    calm[0] = 0.0
    moved = calm.copy()
    moved[-1] = 0.05
    backend = FilteredBootstrapBackend(horizons=(1,), draws=ONE_BAR, config=HistoricalConfig(window=100, min_history=20))
    before, after = (backend.forecast(days(301), r, np.array([300])).quantiles[0, 0, 0] for r in (calm, moved))
    assert_allclose(before[LEVELS.index(0.9)], 0.01, rtol=1e-3)
    rise = np.sqrt(0.94 * 0.01**2 + 0.06 * 0.05**2) / 0.01  # RiskMetrics: 1.56
    assert_allclose(after[LEVELS.index(0.9)] / before[LEVELS.index(0.9)], rise, rtol=1e-3)


def test_the_next_variance_follows_its_recursion_and_counts_a_loss_more():
    p = GarchParameters(mu=0.0, omega=0.1, alpha=0.1, gamma=0.2, beta=0.5, nu=8.0)
    assert_allclose(next_variance(np.array([1.0, -1.0]), p, 2.0), [0.1 + 0.1 + 0.5 * 2, 0.1 + 0.3 + 0.5 * 1.2])


def test_the_filtered_variance_is_the_one_arch_itself_finds():
    from arch import arch_model

    returns = PERCENT * returns_with_clusters(1, rows=800, symbols=1)[1:, 0]
    parameters = fit(returns)
    model = arch_model(returns, mean="Constant", p=1, o=1, q=1, dist="t", rescale=False)
    theirs = model.fix(list(parameters)).conditional_volatility[-1] ** 2
    assert_allclose(next_variance(returns, parameters, float(np.var(returns)))[-2], theirs, rtol=1e-6)


def test_a_price_that_stands_still_has_no_garch_and_says_so():
    answer = make_backend(small(backend="garch")).forecast(days(), np.zeros((420, 1)), np.array([300]))
    assert answer.reasons[0, 0] == "price stands still"


def test_garch_between_two_fits_hears_the_returns_but_keeps_its_parameters(returns, monkeypatch):
    fitted = []
    monkeypatch.setattr("rlplatform.features.forecasts.garch.fit", lambda past: fitted.append(len(past)) or fit(past))
    answer = make_backend(small(backend="garch")).forecast(days(), returns[:, :1], np.arange(200, 320))
    assert fitted == [200, 200]  # at rows 200 and 300; each reads its window
    assert answer.known.all()


def test_the_core_is_the_mean_of_its_members_quantiles_and_names_whoever_is_missing():
    one, three = (np.broadcast_to(k * NINE, (2, 1, 1, len(LEVELS))).copy() for k in (1.0, 3.0))
    three[1] = np.nan
    both = average({"bootstrap": forecast_of(one), "garch": forecast_of(three, "garch")})
    assert_allclose(both.quantiles[0, 0, 0], 2 * NINE, rtol=1e-6)
    assert_allclose(both.quantiles[1, 0, 0], NINE, rtol=1e-6)
    assert both.sources.ravel().tolist() == ["bootstrap+garch", "bootstrap"]
    assert both.reasons.ravel().tolist() == ["", "garch: none there"]
    assert both.fallback.ravel().tolist() == [False, True]


def test_where_nobody_was_asked_for_speaks_the_next_in_the_chain_does_and_is_marked():
    asked, other = np.full((2, 1, 1, len(LEVELS)), np.nan), np.broadcast_to(NINE, (2, 1, 1, len(LEVELS)))
    asked[0] = 5 * NINE
    chained = first_known([forecast_of(asked, "chronos"), forecast_of(other, "gaussian")])
    assert chained.sources.ravel().tolist() == ["chronos", "gaussian"]
    assert chained.fallback.ravel().tolist() == [False, True]
    assert chained.reasons[1, 0] == "none there"


def test_auto_takes_the_first_candidate_that_has_earned_it_and_says_by_how_much():
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 0.01, (200, 1))
    returns[0] = 0
    right = np.quantile(returns, LEVELS) + np.zeros((200, 1, 1, len(LEVELS)))
    candidates = {
        "toto": forecast_of(8 * right, "toto"),
        "chronos": forecast_of(right, "chronos"),
        "core": forecast_of(right, "core"),
        "bootstrap": forecast_of(3 * right),
    }
    chosen = choose(candidates, {"garch": "absent"}, returns, AutoConfig(window=60, min_rows=30))
    assert chosen.sources[:30, 0].tolist() == ["bootstrap"] * 30  # row 29 knows 29 outcomes, row 30 the thirtieth
    assert set(chosen.sources[40:, 0]) == {"chronos"}
    assert chosen.reasons[10, 0].startswith("garch absent; toto unproven (10 < 30 outcomes); chronos unproven")
    assert "chronos CRPS -" in chosen.reasons[100, 0]
    assert chosen.reasons[100, 0].endswith("earned it")


def test_auto_without_an_able_candidate_stays_with_bootstrap():
    rng = np.random.default_rng(1)
    returns = rng.normal(0, 0.01, (200, 1))
    right = np.quantile(returns, LEVELS) + np.zeros((200, 1, 1, len(LEVELS)))
    chosen = choose(
        {"chronos": forecast_of(5 * right, "chronos"), "bootstrap": forecast_of(right)},
        {},
        returns,
        AutoConfig(min_rows=30, window=60),
    )
    assert set(chosen.sources.ravel()) == {"bootstrap"}
    assert "of bootstrap's (t -" in chosen.reasons[150, 0]


def test_five_independent_bars_are_root_5_as_wide_as_one_not_5_times():
    from scipy.stats import norm

    steps = np.broadcast_to(0.01 * norm.ppf(LEVELS), (1, 5, len(LEVELS)))
    quantiles = quantiles_of_steps(steps, Draws(paths=20_000, steps=5, seed=0), (1, 5))[0]
    assert_allclose(quantiles[0], steps[0, 0])
    assert_allclose(quantiles[1, LEVELS.index(0.9)], np.sqrt(5) * 0.01 * norm.ppf(0.9), rtol=0.03)


def test_levels_beyond_those_a_model_learnt_get_exponential_tails():
    """Chronos-Bolt knows 10 % to 90 % and repeats q10 below; here q05 lies ln 2 · β further out, β = (q20 − q10)/ln 2."""
    learnt = np.arange(1, 10) / 10
    quantiles = regrid(np.linspace(-4, 4, 9), learnt)
    assert_allclose(quantiles[LEVELS.index(0.1)], -4)
    assert_allclose(quantiles[LEVELS.index(0.15)], -3.5)
    assert_allclose(quantiles[LEVELS.index(0.05)], -5, rtol=1e-9)
    assert_allclose(quantiles, -quantiles[::-1], atol=1e-9)


def test_a_learned_model_keeps_silent_about_the_days_it_learnt_from(returns):
    config = ChronosConfig(path="toy", context=40, min_history=30, train_end="2019-01-01")  # row 214
    toy = ToyModel(horizons=(1,), draws=ONE_BAR, config=config)
    answer = toy.forecast(days(), returns, np.array([213, 214]))
    assert answer.known[:, 0].tolist() == [False, True]
    assert answer.reasons[0, 0] == "has learnt from days up to 2019-01-01"


def test_a_devolatilised_model_answers_in_todays_volatility(returns):
    toy = ToyModel(horizons=(1,), draws=ONE_BAR, config=ChronosConfig(path="toy", context=40, min_history=30))
    doubled = returns.copy()
    doubled[300] = 0.08
    calm, wild = (toy.forecast(days(), r, np.array([300])).quantiles[0, 0, 0] for r in (returns, doubled))
    assert wild[-1] > 1.5 * calm[-1]


@pytest.mark.parametrize("name", ["bootstrap", "garch", "iid", "gaussian"])
def test_about_one_outcome_in_twenty_falls_below_q05(name):
    returns = returns_with_clusters(11, rows=1500, symbols=1)
    rows = np.arange(500, 1499)
    quantiles = leaf(name, small(draws=500)).forecast(days(1500), returns, rows).quantiles[:, 0, 0]
    share = (returns[rows + 1, 0] < quantiles[:, LEVELS.index(0.05)]).mean()
    assert 0.03 < share < 0.075
