"""The look-ahead checker passes every feature of ours and catches every planted leak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from envs.errors import ConfigError
from envs.indicators import momentum
from rlplatform.features import FeatureBuilder
from rlplatform.features.lookahead import LookaheadError, assert_causal, find_leak, with_changed_future
from rlplatform.features.technical import ASSET_FEATURES, MARKET_FEATURES, TechnicalFeature
from tests.features.conftest import random_prices, short_windows

BUILDER = FeatureBuilder(short_windows())


def with_feature(function):
    entry = TechnicalFeature(name="planted", group="trend", unit="−", description="a leak", function=function)
    return FeatureBuilder(short_windows(), asset_features=(*ASSET_FEATURES, entry))


@pytest.mark.parametrize("seed", range(5))
def test_no_feature_context_or_forecast_moves_when_later_prices_change(seed):
    rng = np.random.default_rng(seed)
    prices = random_prices(seed)
    assert_causal(BUILDER.build, prices, [0, *rng.integers(1, 118, 4), 118], rng, tolerance=0.0)


@pytest.mark.parametrize("entry", [*ASSET_FEATURES, *MARKET_FEATURES], ids=lambda entry: entry.name)
def test_every_feature_by_itself_does_see_prices_up_to_its_own_close(entry, prices):
    """Else the test above would pass for a feature that sees nothing."""
    assets, market = ((entry,), ()) if entry in ASSET_FEATURES else ((), (entry,))
    builder = FeatureBuilder(short_windows(), assets, market)
    true = builder.build(prices)
    changed = builder.build(with_changed_future(prices, 60, np.random.default_rng(0)))
    moved = (true.features != changed.features).any((1, 2)) | (true.context != changed.context).any(1)
    assert not moved[:61].any()
    assert moved[61:80].any()


def test_a_scaler_fitted_before_the_cut_is_causal_and_a_full_sample_scaler_is_caught(prices):
    def scaled_until(train_end):
        def build(p):
            cube = BUILDER.build(p)
            return cube.scaled(cube.fit_scaler(train_end))

        return build

    assert_causal(scaled_until("2015-02-01"), prices, [40, 90], np.random.default_rng(0))
    with pytest.raises(LookaheadError, match=r"\[row 0, 'SPY'\].*statistic of the whole sample"):
        assert_causal(scaled_until("2015-12-31"), prices, [40, 90], np.random.default_rng(0))


def test_a_centred_window_is_caught_at_its_row_symbol_and_name(prices):
    def centred(bars, window, config):
        values = np.zeros_like(bars.gross)
        values[:, 1] = pd.Series(bars.gross[:, 1]).rolling(5, center=True, min_periods=1).mean()
        return values

    leak = find_leak(with_feature(centred).build, prices, [50], np.random.default_rng(0))
    assert (leak.feature, leak.symbol, leak.row, leak.changed_after) == ("planted", "QQQ", 49, 50)  # row 49 sees row 51


def test_tomorrows_return_is_caught_on_the_last_row_before_the_cut(prices):
    def tomorrow(bars, window, config):
        return np.roll(bars.gross, -1, axis=0)

    with pytest.raises(LookaheadError, match=r"planted\[row 30, 'SPY'\] moves from .* when prices after row 30 change"):
        assert_causal(with_feature(tomorrow).build, prices, [30], np.random.default_rng(0))


def test_a_leak_through_volume_or_the_market_wide_context_is_caught_too(prices):
    leak = find_leak(
        with_feature(lambda bars, w, c: bars.volume / bars.volume.max()).build, prices, [20], np.random.default_rng(1)
    )
    assert leak.feature == "planted"
    entry = TechnicalFeature(
        name="final", group="market", unit="−", description="a leak", function=lambda bars, w, c: bars.market / bars.market[-1]
    )
    builder = FeatureBuilder(short_windows(), market_features=(*MARKET_FEATURES, entry))
    leak = find_leak(builder.build, prices, [20], np.random.default_rng(1))
    assert (leak.feature, leak.symbol, leak.row) == ("final", "market", 0)


def test_arrays_and_mappings_are_checked_like_cubes():
    gross, rng = np.exp(np.random.default_rng(0).normal(0, 0.01, (50, 2))), np.random.default_rng(1)
    assert find_leak(lambda g: momentum(g, 5), gross, [10, 30], rng) is None
    leak = find_leak(lambda g: {"fine": momentum(g, 5), "peek": momentum(g, 5)[::-1]}, gross, [10], rng)
    assert (leak.feature, leak.row) == ("peek", 0)


def test_a_build_that_ignores_its_argument_shows_nothing_and_is_not_passed(prices, cube):
    with pytest.raises(LookaheadError, match="nothing at all moved"):
        assert_causal(lambda _: cube, prices, [10, 50], np.random.default_rng(0))


@pytest.mark.parametrize("rows", [[], [119], [-1]])
def test_rows_without_a_later_one_are_refused(prices, rows):
    with pytest.raises(ConfigError, match=r"in \[0, 118\]"):
        find_leak(BUILDER.build, prices, rows, np.random.default_rng(0))


def test_changed_prices_keep_their_past_and_their_bars_in_order(prices):
    whole = replace(prices, open=prices.close, high=prices.close * 1.01, low=prices.close * 0.99)
    changed = with_changed_future(whole, 30, np.random.default_rng(0))
    for name in ("close", "open", "high", "low", "volume"):
        before, after = getattr(whole, name), getattr(changed, name)
        assert (before[:31] == after[:31]).all()
        assert (before[31:] != after[31:]).all()
    assert (changed.low < changed.close).all()
    assert (changed.close < changed.high).all()
