"""Context inside the FeatureCube: joined, scaled on training rows, silent where unknown, and never ahead of its time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, MarketDataError
from rlplatform.features import FeatureBuilder
from rlplatform.features.context import asof
from rlplatform.features.context.panel import named_columns
from rlplatform.features.context.publication import bar_closes
from rlplatform.features.context.schema import BY_NAME
from rlplatform.features.lookahead import LookaheadError, PricesAndSeries, assert_causal, with_changed_future
from rlplatform.features.scaler import keeps_scale
from tests.features.conftest import short_windows
from tests.features.context.conftest import context_of

ALL = context_of(columns=tuple(BY_NAME))
DATES_ALONE = ("series_age", "series_known")  # say when, not what


def build_with(config):
    builder = FeatureBuilder(short_windows(context=config))
    return lambda source: builder.build(source.prices, series=source.series)


def late(series, days: int):
    """The series as if nothing had been known before so many days after its start."""
    kept = series.days >= series.days[0] + np.timedelta64(days, "D")
    return replace(series, days=series.days[kept], values=series.values[kept], published=series.published[kept])


@pytest.fixture(scope="module")
def source(market, series):
    return PricesAndSeries(prices=market, series=series)


@pytest.fixture(scope="module")
def cube(source):
    return build_with(ALL)(source)


@pytest.fixture(scope="module")
def changed(source):
    """The cube of a market whose prices and news differ after row 77."""
    return build_with(ALL)(with_changed_future(source, 77, np.random.default_rng(2)))


def test_context_stands_behind_all_other_columns(cube, source):
    plain = FeatureBuilder(short_windows()).build(source.prices)
    asset = tuple(each.name for each in named_columns(ALL) if each.entry.scope == "asset")
    market = tuple(each.name for each in named_columns(ALL) if each.entry.scope == "market")
    assert cube.feature_names == (*plain.feature_names, *asset)
    assert cube.context_names == (*plain.context_names, *market)
    assert_array_equal(cube.features[..., : len(plain.feature_names)], plain.features)
    assert_array_equal(cube.context[:, : len(plain.context_names)], plain.context)


def test_flags_shares_and_vix_keep_their_scale_and_all_else_is_scaled_by_training_rows(cube):
    scaled = cube.scaled(cube.fit_scaler("2015-05-29"))
    for name in ("vix", "series_known_DXY", "risk_regime_calm", "cluster_change"):
        assert_array_equal(scaled.column(name), cube.column(name))
        assert keeps_scale(name)
    for name in ("risk_share", "risk_contribution", "cluster_share", "cluster_correlation"):
        assert_array_equal(scaled.column(name), cube.column(name))
    training = cube.timestamps <= np.datetime64("2015-05-29")
    for name in ("vix_log", "treasury_slope", "dollar_return_4", "series_level_mood", "series_age_VIX", "target_exposure"):
        assert_allclose(scaled.column(name)[training].mean(), 0.0, atol=0.05)
    assert not keeps_scale("vix_change_5")  # an environment's own column


def test_unknown_cells_are_0_when_scaled_and_no_part_of_the_fit(source):
    series = dict(source.series) | {"DGS2": late(source.series["DGS2"], 60)}
    cube = build_with(ALL)(replace(source, series=series))
    known = cube.column("series_known_DGS2") == 1
    assert 0 < (~known).sum() < 60
    scaler = cube.fit_scaler("2015-05-29")
    scaled = cube.scaled(scaler).column("treasury_slope")
    assert_array_equal(scaled[~known], 0.0)
    position = scaler.context_names.index("treasury_slope")
    training = known & (cube.timestamps <= np.datetime64("2015-05-29"))
    assert_allclose(scaler.context_mean[position], cube.column("treasury_slope")[training].mean(), rtol=0.02)


def test_a_column_that_training_never_sees_is_refused_with_the_day_it_begins(source):
    series = dict(source.series) | {"mood": late(source.series["mood"], 120)}
    cube = build_with(ALL)(replace(source, series=series))
    with pytest.raises(
        MarketDataError, match=r"series_level_mood is known on 0 training rows, 21 are needed; it is known from"
    ):
        cube.fit_scaler("2015-03-31")
    assert cube.fit_scaler("2015-07-31")


def test_a_training_of_few_rows_needs_no_more_than_these(cube):
    assert cube.fit_scaler("2015-01-09")


def test_a_column_of_the_same_name_given_by_hand_is_refused(source):
    builder = FeatureBuilder(short_windows(context=ALL))
    with pytest.raises(ConfigError, match="two columns are named 'vix'"):
        builder.build(source.prices, context={"vix": np.ones(160)}, series=source.series)


def test_no_column_moves_when_prices_series_and_revisions_after_a_bar_change(source):
    refits = [27, 76, 139]  # rows at which clusters are drawn: a window one bar too long shows there alone
    assert_causal(build_with(ALL), source, refits, np.random.default_rng(0), tolerance=0.0)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in DATES_ALONE])
def test_every_column_by_itself_does_see_what_was_known_at_its_own_close(cube, changed, name):
    """Else the test above would pass for a column that sees nothing."""
    columns = [each.name for each in named_columns(ALL) if each.entry.name == name]
    if name.startswith("risk_regime"):  # a market may be in one of them for long
        columns = ["risk_regime_crisis"]
    moved = [cube.column(column) != changed.column(column) for column in columns]
    moved = [m if m.ndim == 1 else m.any(1) for m in moved]
    assert not any(m[:78].any() for m in moved)
    assert all(m[78:].any() for m in moved)


def test_changed_news_keeps_what_was_public_and_adds_revisions(source):
    changed = with_changed_future(source, 77, np.random.default_rng(0))
    close = bar_closes(source.prices)[77]
    for name, before in source.series.items():
        after, known = changed.series[name], before.published <= close
        assert len(after) == len(before) + 10
        assert_array_equal(after.values[: len(before)][known], before.values[known])
        assert (after.values[: len(before)][~known] != before.values[~known]).all()
        assert (after.published[len(before) :] > close).all()
        assert set(after.days[len(before) :]) <= set(before.days[known])


def by_date(series, closes, days):
    """A leaking rule: a value counts as known on the day it is about."""
    return asof_of(replace(series, published=series.days.astype("datetime64[ns]")), closes, days)


def latest_vintage(series, closes, days):
    """A leaking rule: every day has its last revision from the start."""
    last = {day: value for day, _, value in sorted(zip(series.days, series.published, series.values, strict=True))}
    return asof_of(replace(series, values=np.array([last[day] for day in series.days])), closes, days)


asof_of = asof.as_of


@pytest.mark.parametrize(("rule", "row"), [(by_date, 67), (latest_vintage, 68)])
def test_a_leaking_rule_is_caught_with_its_column_and_row(monkeypatch, source, rule, row):
    monkeypatch.setattr(asof, "as_of", rule)
    config = context_of(columns=("treasury_slope",))
    with pytest.raises(LookaheadError, match=rf"treasury_slope\[row {row}, 'market'\] moves from .* after row 77 change"):
        assert_causal(build_with(config), source, [77], np.random.default_rng(0))
