"""FeatureBuilder → FeatureCube → MarketTape: shapes, dates, values that cannot be lost, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, MarketDataError, ShapeError
from rlplatform.features import FeatureBuilder, FeatureConfig
from rlplatform.features.technical import ASSET_FEATURES, TechnicalFeature
from tests.features.conftest import prices_of, random_prices, short_windows


def test_a_cube_has_one_row_per_close_one_column_per_asset_and_one_layer_per_feature(prices, cube):
    t, n, f = len(prices), 3, len(cube.feature_names)
    assert cube.features.shape == (t, n, f)
    assert cube.features.dtype == np.float32
    assert cube.realized_returns.shape == cube.forecast_cvar.shape == cube.forecast_uncertainty.shape == (t, n)
    assert cube.context.shape == (t, len(cube.context_names))
    assert_array_equal(cube.timestamps, prices.dates)
    assert cube.symbols == prices.symbols


def test_a_rise_from_100_to_101_is_a_realized_return_of_one_percent_at_the_later_close():
    cube = FeatureBuilder(short_windows()).build(prices_of(np.array([[100.0], [101.0]])))
    assert_allclose(cube.realized_returns[:, 0], [0, 0.01], atol=1e-15)


def test_the_tape_has_every_row_and_the_prices_own_gross_returns_to_the_last_bit(prices, cube):
    tape = cube.to_tape()
    assert_array_equal(tape.gross, prices.gross())
    assert_array_equal(tape.dates, prices.dates)
    assert_array_equal(tape.features, cube.features)
    assert_array_equal(tape.context, cube.context)
    assert_array_equal(tape.forecast_cvar, cube.forecast_cvar)
    assert (tape.feature_names, tape.context_names, tape.symbols) == (cube.feature_names, cube.context_names, cube.symbols)


def test_extra_context_such_as_vix_stands_behind_the_built_columns(prices):
    vix = np.linspace(10, 40, len(prices))
    cube = FeatureBuilder(short_windows()).build(prices, context={"vix": vix})
    assert cube.context_names[-1] == "vix"
    assert_allclose(cube.column("vix"), vix, rtol=1e-6)


def test_extra_context_of_the_wrong_length_or_a_taken_name_or_with_gaps_is_refused(prices):
    builder = FeatureBuilder(short_windows())
    with pytest.raises(ShapeError, match=r"context\['vix'\] has shape \(5,\); expected \(120,\)"):
        builder.build(prices, context={"vix": np.ones(5)})
    with pytest.raises(ConfigError, match="two columns are named 'volatility_proxy'"):
        builder.build(prices, context={"volatility_proxy": np.ones(120)})
    gaps = np.where(np.arange(120) == 3, np.nan, 20.0)
    with pytest.raises(MarketDataError, match=r"vix\[2015-01-04\] is nan.*1 such cell"):
        builder.build(prices, context={"vix": gaps})


def test_a_feature_of_ones_own_is_one_more_entry_and_a_nan_in_it_is_named(prices):
    def own(values):
        entry = TechnicalFeature(
            name="own", group="trend", unit="−", description="test", function=lambda bars, window, config: values
        )
        return FeatureBuilder(short_windows(), asset_features=(*ASSET_FEATURES, entry)).build(prices)

    values = np.ones((120, 3))
    assert own(values).feature_names[-1] == "own"
    values[7, 1] = np.nan
    with pytest.raises(MarketDataError, match=r"own\[2015-01-08, 'QQQ'\] is nan"):
        own(values)


def test_the_hash_follows_every_value_and_the_config(prices, cube):
    again = FeatureBuilder(short_windows()).build(prices)
    assert again.sha256 == cube.sha256
    close = prices.close.copy()
    close[-1, -1] *= 1.0001
    assert FeatureBuilder(short_windows()).build(replace(prices, close=close)).sha256 != cube.sha256
    assert FeatureBuilder(short_windows(clip=4.0)).build(prices).sha256 != cube.sha256


def test_a_cube_is_read_only_and_names_what_it_has(cube):
    with pytest.raises(ValueError, match="read-only"):
        cube.features[0] = 1
    with pytest.raises(ConfigError, match="no 'momentum'; it has log_return_1"):
        cube.column("momentum")


def test_axes_that_disagree_are_refused(cube):
    with pytest.raises(ShapeError, match=r"features has shape \(119, 3, .*expected \(120, 3"):
        replace(cube, features=cube.features[1:])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 40), assets=st.integers(1, 3), wild=st.floats(0, 1))
def test_every_feature_is_finite_at_prices_that_jump_by_a_million(seed, rows, assets, wild):
    rng = np.random.default_rng(seed)
    jumps = rng.choice([1e-6, 1e-3, 1.0, 1.0, 1e3, 1e6], (rows, assets))
    jumps = np.where(rng.random(jumps.shape) < wild, jumps, rng.lognormal(0, 0.01, jumps.shape))
    log_close = np.clip(np.cumsum(np.log(jumps), axis=0), -300, 300)
    volume = rng.choice([0.0, 1.0, 1e15], (rows, assets))
    cube = FeatureBuilder(short_windows()).build(prices_of(np.exp(log_close), volume))
    scaled = cube.scaled(cube.fit_scaler("2030-01-01"))
    assert np.isfinite(scaled.to_tape().features).all()
    assert abs(scaled.features).max() <= cube.config.clip


def test_default_features_of_500_rows_build_from_prices_with_and_without_volume():
    with_volume, without = (FeatureBuilder(FeatureConfig()).build(random_prices(2, 500, volume=v)) for v in (True, False))
    assert set(with_volume.feature_names) - set(without.feature_names) == {"volume_zscore_63"}
