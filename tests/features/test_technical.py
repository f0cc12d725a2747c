"""The catalogue: each feature against hand numbers, and the table that prints it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from rlplatform.features import FeatureBuilder, FeatureConfig
from rlplatform.features.builder import gaussian_forecasts
from rlplatform.features.technical import catalogue
from tests.features.conftest import prices_of, random_prices, short_windows


def build(close, volume=None, **config):
    close = np.asarray(close, dtype=float)
    return FeatureBuilder(short_windows(**config)).build(prices_of(close, volume))


def test_an_asset_that_rises_10_percent_beside_a_flat_one_is_stronger_by_half_of_it():
    cube = build([[100, 50], [110, 50]])
    half = math.log(1.1) / 2
    assert_allclose(cube.column("log_return_1")[1], [math.log(1.1), 0], rtol=1e-6)
    assert_allclose(cube.column("relative_strength_4")[1], [half, -half], rtol=1e-6)


def test_for_a_pair_the_spread_zscore_is_that_of_the_log_spread_with_opposite_signs():
    close = random_prices(1, rows=30, assets=2).close
    cube = build(close)
    spread = np.log(close[:, 0] / close[:, 1])
    expected = stats.zscore(spread[-11:])[-1]
    assert_allclose(cube.column("spread_zscore_11")[-1], [expected, -expected], rtol=1e-5)


def test_volume_zscore_is_taken_of_log_volume_and_needs_volume():
    volume = np.array([[0.0], [math.e - 1], [math.e**2 - 1]])  # log(1 + v) = 0, 1, 2
    assert_allclose(build([[1], [1], [1]], volume).column("volume_zscore_8")[:, 0], [0, 1, math.sqrt(1.5)], rtol=1e-6)
    assert not any("volume" in name for name in build([[1], [1], [1]]).feature_names)


def test_the_market_is_the_equal_weight_mean_of_the_assets():
    cube = build([[100, 100], [110, 100], [110, 80]])
    assert_allclose(cube.column("market_return_1"), np.log([1, 1.05, 0.9]), rtol=1e-5, atol=1e-9)
    assert_allclose(cube.column("market_drawdown_9"), [0, 0, -0.1], rtol=1e-5, atol=1e-9)


def test_exactly_one_regime_flag_is_up_at_every_close(cube):
    flags = np.stack([cube.column(f"regime_{name}") for name in ("calm", "choppy", "crisis")])
    assert_array_equal(flags.sum(0), 1)
    assert set(np.unique(flags)) == {0, 1}


def test_the_volatility_proxy_reads_like_vix():
    close = 100 * np.exp(np.cumsum(np.tile([0.01, -0.01], 100)))[:, None]
    assert_allclose(build(close).column("volatility_proxy")[-1], 100 * 0.01 * math.sqrt(252), rtol=1e-3)  # 15.9


def test_stand_in_forecasts_are_those_of_a_normal_with_riskmetrics_volatility():
    gross = np.exp(np.full((50, 1), 0.01))  # σ = 1 % at every close
    cvar, uncertainty = gaussian_forecasts(gross, decay=0.94)
    z = stats.norm.ppf(0.05)
    assert_allclose(cvar, 0.01 * stats.norm.pdf(z) / 0.05, rtol=1e-6)  # 2.06 %
    assert_allclose(uncertainty, 0.01 * (stats.norm.ppf(0.9) - stats.norm.ppf(0.1)), rtol=1e-6)  # 2.56 %
    assert gaussian_forecasts(np.array([[1.0], [1e-6]]), decay=0.94)[0].max() == 1


@pytest.mark.parametrize(
    ("field", "value", "columns"),
    [
        ("drawdown_lag", 3, {"drawdown_velocity_9"}),
        ("regime_window", 9, {"regime_calm", "regime_choppy", "regime_crisis"}),
        ("regime_history", 60, {"regime_calm", "regime_choppy", "regime_crisis"}),
        ("ewma_decay", 0.5, {"volatility_proxy"}),
        ("bars_per_year", 253, {"volatility_5", "market_volatility_5", "volatility_proxy"}),
    ],
)
def test_a_setting_changes_the_columns_it_speaks_of_and_no_other(prices, field, value, columns):
    before, after = (FeatureBuilder(config).build(prices) for config in (short_windows(), short_windows(**{field: value})))
    names = (*before.feature_names, *before.context_names)
    assert {name for name in names if (before.column(name) != after.column(name)).any()} == columns


@pytest.mark.parametrize("groups", [("returns",), ("trend", "market"), FeatureConfig().groups])
def test_the_catalogue_lists_the_cubes_columns_in_order(prices, groups):
    config = short_windows(groups=groups)
    cube, rows = FeatureBuilder(config).build(prices), catalogue(config)
    assert [row["name"] for row in rows if row["scope"] == "asset"] == list(cube.feature_names)
    assert [row["name"] for row in rows if row["scope"] == "market"] == list(cube.context_names)
    assert all(row["unit"] and row["description"] and row["group"] in groups for row in rows)
