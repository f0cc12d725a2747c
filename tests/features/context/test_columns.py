"""Every context column: numbers a reader can check, the catalogue whole, and none that cannot be made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError
from envs.indicators import momentum
from rlplatform.features import FeatureConfig
from rlplatform.features.context import ContextConfig, SeriesConfig
from rlplatform.features.context.asof import AlignedSeries, align
from rlplatform.features.context.columns import FUNCTIONS
from rlplatform.features.context.panel import catalogue, context_panel, named_columns
from rlplatform.features.context.reading import RULES
from rlplatform.features.context.schema import BY_NAME, COLUMNS, entry_of
from rlplatform.features.technical import ASSET_FEATURES, MARKET_FEATURES
from tests.features.context.conftest import LEVELS, context_of, series_of, session_prices

NAN = np.nan


def aligned(**values: list[float]) -> AlignedSeries:
    columns = {name: np.array(v, float) for name, v in values.items()}
    prices = ("DXY", "EURUSD", "XLK")
    levels = {name: np.log(v) if name in prices else v for name, v in columns.items()}
    steps = {name: np.diff(v, prepend=NAN) for name, v in levels.items()}
    return AlignedSeries(values=columns, steps=steps, ages={name: 0 * v + 1 for name, v in columns.items()})


def built(config: ContextConfig, series: AlignedSeries, rows: int):
    return context_panel(session_prices(rows), FeatureConfig(context=config), series)


def test_vix_its_logarithm_and_its_term_structure():
    panel = built(
        ContextConfig(series={"VIX": SeriesConfig(), "VIX3M": SeriesConfig()}, columns=("vix", "vix_log", "vix_term")),
        aligned(VIX=[NAN, 20.0, 30.0], VIX3M=[NAN, 25.0, 24.0]),
        3,
    )
    assert_allclose(panel.market["vix"][1:], [20, 30])
    assert_allclose(panel.market["vix"][0], 0.0)  # unknown: the market's own volatility, none at the first bar
    assert_allclose(panel.market["vix_log"], [NAN, np.log(20), np.log(30)])
    assert_allclose(panel.market["vix_term"], [NAN, np.log(20 / 25), np.log(30 / 24)])


def test_the_treasury_slope_and_its_change():
    config = ContextConfig(
        series={"DGS2": SeriesConfig(), "DGS10": SeriesConfig()},
        columns=("treasury_slope", "treasury_slope_change"),
        change_windows=(2,),
    )
    panel = built(config, aligned(DGS2=[1.0, 1.1, 1.3, 1.4], DGS10=[NAN, 2.1, 2.5, 2.2]), 4)
    assert_allclose(panel.market["treasury_slope"], [NAN, 1.0, 1.2, 0.8])
    assert_allclose(panel.market["treasury_slope_change_2"], [NAN, 0.0, 0.2, -0.2])  # the window expands


def test_the_dollar_its_trend_and_a_currency_pair():
    config = ContextConfig(
        series={"DXY": SeriesConfig(), "EURUSD": SeriesConfig()},
        columns=("dollar_return", "dollar_trend", "fx_return"),
        change_windows=(1,),
        trend_windows=(3,),
    )
    panel = built(config, aligned(DXY=[100.0, 110.0, 90.0], EURUSD=[1.0, 1.25, NAN]), 3)
    assert_allclose(panel.market["dollar_return_1"], [0, np.log(1.1), np.log(90 / 110)])
    assert_allclose(panel.market["dollar_trend_3"], [0, 110 / 105 - 1, 90 / 100 - 1])
    assert_allclose(panel.market["fx_return_EURUSD_1"], [0, np.log(1.25), NAN])


def test_a_series_of_one_s_own_shows_level_change_age_and_whether_it_is_known():
    config = ContextConfig(
        series={"mood": SeriesConfig(published="same_close")},
        columns=("series_level", "series_change", "series_age", "series_known"),
        change_windows=(1,),
    )
    panel = built(config, aligned(mood=[NAN, 0.5, 0.2]), 3)
    assert list(panel.market) == ["series_level_mood", "series_change_mood_1", "series_age_mood", "series_known_mood"]
    assert_allclose(panel.market["series_level_mood"], [NAN, 0.5, 0.2])
    assert_allclose(panel.market["series_change_mood_1"], [NAN, 0, -0.3])
    assert_allclose(panel.market["series_age_mood"], [NAN, 1, 1])
    assert_array_equal(panel.market["series_known_mood"], [0, 1, 1])


def test_a_sector_is_its_members_mean_or_the_series_of_its_name():
    config = ContextConfig(
        series={"XLK": SeriesConfig()},
        sectors={"A": "XLK", "B": "oil", "C": "XLK", "D": "oil"},
        columns=("sector_momentum", "sector_strength"),
        strength_windows=(2,),
    )
    prices = session_prices(4)
    panel = context_panel(prices, FeatureConfig(context=config), aligned(XLK=[NAN, 10.0, 11.0, 12.0]))
    moved = momentum(prices.gross(), 2)
    oil = moved[-1, [1, 3]].mean()
    assert_allclose(panel.asset["sector_momentum_2"][-1, [0, 1]], np.array([np.log(1.2), oil]) - moved[-1].mean())
    assert_allclose(panel.asset["sector_strength_2"][-1], moved[-1] - [np.log(1.2), oil, np.log(1.2), oil])
    assert_array_equal(panel.asset["sector_momentum_2"][0, [0, 2]], 0.0)  # unknown


def test_strength_and_momentum_of_clusters_add_up_to_strength_against_all(market, series, features):
    panel = context_panel(market, features, series)
    moved = momentum(market.gross(), 5)
    total = panel.asset["cluster_strength_5"] + panel.asset["cluster_momentum_5"]
    assert_allclose(total, moved - moved.mean(1, keepdims=True), atol=1e-12)
    assert np.abs(panel.asset["cluster_momentum_5"][30:]).max() > 0.01


def test_each_bar_is_in_one_risk_regime(market, series, features):
    panel = context_panel(market, features, series)
    flags = np.stack([panel.market[f"risk_regime_{name}"] for name in ("calm", "choppy", "crisis")])
    assert_array_equal(flags.sum(0), 1.0)
    assert (flags.sum(1) > 0).all()


def test_every_entry_of_the_catalogue_has_a_function_a_unit_and_a_place_in_the_panel(market, series):
    assert list(FUNCTIONS) == [entry.name for entry in COLUMNS]
    assert all(entry.unit and entry.description for entry in COLUMNS)
    config = context_of(columns=tuple(BY_NAME))
    names = [each.name for each in named_columns(config)]
    assert len(set(names)) == len(names)
    assert [row["name"] for row in catalogue(config)] == names
    panel = context_panel(market, FeatureConfig(context=config), series)
    assert set(names) == {*panel.market, *panel.asset}
    assert {entry_of(name).name for name in names} == set(BY_NAME)
    assert {values.shape for values in panel.market.values()} == {(160,)}
    assert {values.shape for values in panel.asset.values()} == {(160, 4)}


def test_without_a_choice_all_columns_are_made_that_the_series_and_sectors_allow():
    def names(**settings):
        return {each.entry.name for each in named_columns(ContextConfig(**settings))}

    free = {"target_exposure", "cluster_change", "risk_share", "risk_contribution", "cluster_momentum", "cluster_strength"}
    free |= {"cluster_share", "cluster_correlation", "risk_regime_calm", "risk_regime_choppy", "risk_regime_crisis"}
    assert names() == free
    assert names(series={"VIX": SeriesConfig()}) - free == {"vix", "vix_log", "series_known"}
    assert names(sectors={"A": "x"}) - free == {"sector_momentum", "sector_strength"}
    assert names(series={"EURUSD": SeriesConfig()}) - free == {"fx_return", "series_known"}


def test_prices_of_one_s_own_have_no_level(market):
    config = ContextConfig(series={"gold": SeriesConfig(kind="price", published="same_close")}, change_windows=(1,))
    names = {each.name for each in named_columns(config)}
    assert "series_change_gold_1" in names
    assert not {name for name in names if name.startswith("series_level")}


def test_an_asset_without_a_sector_is_named(market, series):
    features = FeatureConfig(context=ContextConfig(sectors={"A": "x", "B": "x", "D": "y"}))
    with pytest.raises(ConfigError, match=r"sectors has no 'C', which data.symbols names; it has A, B, D\."):
        context_panel(market, features, align({}, market))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": ("vix_trm",)}, r"columns = 'vix_trm'; expected one of vix, .*Did you mean vix_term\?"),
        ({"columns": "vix"}, r"expected a list, for instance \[vix\]"),
        ({"columns": ("target_exposure",) * 2}, "names one twice"),
        (
            {"columns": ("vix_term",), "series": {"VIX": SeriesConfig()}},
            "names vix_term, which needs the series VIX3M; features.context.series has VIX. Add it",
        ),
        ({"columns": ("treasury_slope",)}, "needs the series DGS2, DGS10; .* has none. Add them"),
        ({"columns": ("sector_momentum",)}, "needs features.context.sectors"),
        ({"columns": ("fx_return",), "series": {"VIX": SeriesConfig()}}, "needs a currency pair such as EURUSD"),
        ({"columns": ("series_age",)}, "needs a series in"),
        ({"series": {"a b": SeriesConfig()}}, "series names 'a b'; expected letters"),
        ({"sectors": {"A": "VIX"}, "series": {"VIX": SeriesConfig()}}, "measures by series VIX, a level"),
        ({"clusters": 0}, "clusters = 0; expected a whole number, at least 1"),
        ({"cluster_window": 5}, "cluster_window = 5; expected a whole number, at least 20"),
        ({"change_windows": (0,)}, "change_windows = 0"),
        ({"target_volatility": 15.0}, "expected a fraction"),
    ],
)
def test_a_setting_without_meaning_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ContextConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "rate"}, "kind = 'rate'; expected one of level, price"),
        ({"published": "tomorrow"}, "expected one of same_close, next_session, after, column"),
        ({"published": "after", "lag_days": -1}, "nothing is known before it happened"),
        ({"published": "after", "at": "4pm"}, "expected a time of day such as '16:15'"),
        ({"lag_days": 2}, "lag_days and at belong to published: after; found published: None"),
        ({"published": "after", "lag_days": 45}, "every value would be too old when it comes. Raise max_age_days"),
        ({"zone": "Wall Street"}, "is no time zone"),
        ({"calendar": "XNYZ"}, "is not an exchange calendar"),
        ({"max_age_days": 0}, "at least 1 calendar day"),
    ],
)
def test_a_series_setting_without_meaning_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SeriesConfig(**settings)


def test_every_series_of_these_tests_is_used(series):
    assert set(series) == set(LEVELS)
    assert len(series_of("VIX")) == 200


def test_the_page_on_features_has_every_column_and_every_well_known_series():
    page = (Path(__file__).parents[3] / "docs" / "FEATURES.md").read_text(encoding="utf-8")
    for entry in (*COLUMNS, *ASSET_FEATURES, *MARKET_FEATURES):
        assert f"| `{entry.name}" in page
        assert entry.unit in page
    for rule in RULES:
        assert f"| `{rule}` |" in page
