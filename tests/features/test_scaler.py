"""FeatureScaler: what it learns, from which rows, and how it travels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, ShapeError
from rlplatform.features import FeatureBuilder, FeatureScaler
from rlplatform.features.scaler import column_scales
from tests.features.conftest import random_prices, short_windows

TRAIN_END = "2015-03-01"  # row 59 of prices that start on 2015-01-01


def test_values_1_and_3_have_mean_2_and_deviation_1_whatever_asset_they_belong_to():
    x = np.array([[[1.0], [3.0]], [[3.0], [1.0]]], np.float32)  # (T, N, F) = (2, 2, 1)
    assert column_scales(x, ("a",), clip=5) == ((2.0,), (1.0,))


def test_one_wild_row_among_a_hundred_does_not_set_the_scale():
    x = np.append(np.tile([-1.0, 1.0], 50), 1e6)[:, None]
    (mean,), (std,) = column_scales(x, ("a",), clip=3)
    plain = x.std()
    assert mean < x.mean()
    assert std < 0.4 * plain


def test_a_column_that_is_constant_in_training_is_centred_and_not_blown_up():
    assert column_scales(np.full((5, 1), 0.1), ("a",), clip=5) == ((0.1,), (1.0,))


def test_training_rows_come_out_with_mean_0_and_deviation_1_and_nothing_passes_the_clip(cube):
    scaler = cube.fit_scaler(TRAIN_END)
    train = cube.scaled(scaler).features[:60].astype(float)
    assert_allclose(train.mean((0, 1)), 0, atol=0.05)
    assert_allclose(train.std((0, 1)), 1, atol=0.1)
    assert (scaler.fitted_from, scaler.fitted_to) == ("2015-01-01", "2015-03-01")
    shocked = scaler.scale_features(cube.features * 1e6)
    assert abs(shocked).max() == cube.config.clip


def test_regime_flags_forecasts_and_returns_keep_their_units_at_any_clip(prices):
    cube = FeatureBuilder(short_windows(clip=0.5)).build(prices)
    scaled = cube.scaled(cube.fit_scaler(TRAIN_END))
    for name in ("regime_calm", "regime_choppy", "regime_crisis"):
        assert_array_equal(scaled.column(name), cube.column(name))
    assert_array_equal(scaled.forecast_cvar, cube.forecast_cvar)
    assert_array_equal(scaled.gross, cube.gross)
    assert not np.allclose(scaled.column("volatility_proxy"), cube.column("volatility_proxy"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_scaler_does_not_change_when_any_later_price_does(seed):
    prices, rng = random_prices(0), np.random.default_rng(seed)
    close, volume = prices.close.copy(), prices.volume.copy()
    close[60:] *= rng.lognormal(0, 2, close[60:].shape)
    volume[60:] *= rng.lognormal(0, 2, volume[60:].shape)
    builder = FeatureBuilder(short_windows())
    fits = [builder.build(p).fit_scaler(TRAIN_END) for p in (prices, replace(prices, close=close, volume=volume))]
    assert fits[0] == fits[1]


def test_warm_up_rows_can_be_left_out_of_the_fit(cube):
    late = cube.fit_scaler(TRAIN_END, train_start="2015-01-21")
    assert late.fitted_from == "2015-01-21"
    assert_allclose(late.feature_mean[0], cube.features[20:60, :, 0].mean(), atol=1e-6)


def test_a_scaler_survives_json_to_the_last_bit(cube):
    scaler = cube.fit_scaler(TRAIN_END)
    again = FeatureScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert again == scaler
    assert_array_equal(cube.scaled(again).features, cube.scaled(scaler).features)


def test_a_scaler_from_another_version_is_refused(cube):
    data = cube.fit_scaler(TRAIN_END).to_dict()
    data["feature_median"] = data.pop("feature_mean")
    with pytest.raises(ConfigError, match=r"missing keys \['feature_mean'\], unknown keys \['feature_median'\]"):
        FeatureScaler.from_dict(data)


def test_a_scaler_fitted_on_other_columns_is_refused_and_says_which(cube):
    without_volume = FeatureBuilder(short_windows()).build(random_prices(0, volume=False))
    with pytest.raises(ConfigError, match=r"lacks \['volume_zscore_8'\] and adds \[\]"):
        without_volume.scaled(cube.fit_scaler(TRAIN_END))
    with pytest.raises(ShapeError, match="fitted on"):
        cube.fit_scaler(TRAIN_END).scale_features(cube.features[..., 1:])


def test_scaling_twice_and_training_rows_that_do_not_exist_are_refused(cube):
    scaler = cube.fit_scaler(TRAIN_END)
    with pytest.raises(ConfigError, match="scaled already"):
        cube.scaled(scaler).scaled(scaler)
    with pytest.raises(ConfigError, match="scaled already"):
        cube.scaled(scaler).fit_scaler(TRAIN_END)
    with pytest.raises(ConfigError, match="holds 0 of the rows from 2015-01-01 to 2015-04-30"):
        cube.fit_scaler("2014-12-31")
