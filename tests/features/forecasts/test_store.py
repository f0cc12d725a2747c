"""The feature store: what is computed once stays, what is missing, changed or damaged is made again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.features.forecasts.forecast import key_of
from rlplatform.features.forecasts.panel import forecast_panel, log_returns_of
from rlplatform.features.forecasts.registry import leaf
from rlplatform.features.forecasts.shards import ShardDamagedError, read_shard
from rlplatform.features.forecasts.store import FeatureStore
from tests.features.forecasts.conftest import prices_with, small

CONFIG = small(backend="bootstrap")
BACKEND = leaf("bootstrap", CONFIG)


def build(store: FeatureStore, prices, backend=BACKEND) -> list:
    """What a build does, in this process; the units it worked on."""
    log_returns = log_returns_of(prices)
    stock = store.stock(backend, prices.dates, prices.symbols, log_returns)
    for unit in stock.units:
        store.complete(backend, prices.dates, log_returns[:, prices.symbols.index(unit.symbol)], unit)
    return list(stock.units)


def files(store: FeatureStore) -> dict:
    return {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}


@pytest.fixture
def market(returns):
    return prices_with(returns)


@pytest.fixture
def built(tmp_path, market) -> FeatureStore:
    store = FeatureStore(tmp_path / "store")
    build(store, market)
    return store


def test_a_build_makes_one_file_for_each_symbol_and_year(tmp_path, market):
    store = FeatureStore(tmp_path / "store")
    units = build(store, market)
    assert [(u.symbol, u.year, u.why) for u in units] == [(s, y, "absent") for s in ("SPY", "BTC/USD") for y in (2018, 2019)]
    names = sorted(str(path.relative_to(store.folder(BACKEND))) for path in files(store))
    assert names[0] == "symbol=BTC%2FUSD/year=2018/quantiles.parquet"
    assert len(names) == 4


def test_a_second_build_touches_nothing(built, market):
    before = files(built)
    assert build(built, market) == []
    assert files(built) == before


def test_the_day_that_is_appended_is_the_only_one_forecast(tmp_path, market):
    store = FeatureStore(tmp_path / "store")
    short = replace(market, dates=market.dates[:-1], close=market.close[:-1])
    build(store, short)
    units = build(store, market)
    assert [(u.rows, u.why) for u in units] == [((419,), "new rows")] * 2
    fresh = FeatureStore(tmp_path / "fresh")
    build(fresh, market)
    stocks = [s.stock(BACKEND, market.dates, market.symbols, log_returns_of(market)) for s in (store, fresh)]
    assert_array_equal(stocks[0].forecast.quantiles, stocks[1].forecast.quantiles)


def test_fewer_days_or_symbols_are_served_from_what_is_there(built, market):
    before = files(built)
    early = replace(market, dates=market.dates[:300], close=market.close[:300])
    assert build(built, early) == []
    assert build(built, market.select(("BTC/USD",))) == []
    assert files(built) == before


def test_a_corrected_price_makes_its_own_and_later_days_anew_and_no_earlier_ones(built, market):
    close = market.close.copy()
    close[250, 0] *= 1.01
    units = build(built, replace(market, close=close))
    assert [(u.symbol, u.year, u.why) for u in units] == [("SPY", 2019, "changed data")]
    assert units[0].rows == tuple(range(250, 420))


@pytest.mark.parametrize("damage", ["flipped byte", "cut short", "emptied"])
def test_a_damaged_file_is_noticed_and_made_again(built, market, damage):
    truth = built.stock(BACKEND, market.dates, market.symbols, log_returns_of(market)).forecast
    path = sorted(files(built))[0]
    content = bytearray(path.read_bytes())
    if damage == "flipped byte":
        content[len(content) // 2] ^= 1
    path.write_bytes(b"" if damage == "emptied" else content[: len(content) // 2] if damage == "cut short" else content)
    with pytest.raises(ShardDamagedError, match=r"quantiles\.parquet"):
        read_shard(path, CONFIG.horizons)
    assert [u.why for u in build(built, market)] == ["damaged"]
    again = built.stock(BACKEND, market.dates, market.symbols, log_returns_of(market))
    assert again.units == ()
    assert_array_equal(again.forecast.quantiles, truth.quantiles)


def test_a_value_changed_behind_the_checksum_is_noticed(built):
    path = sorted(files(built))[0]
    table = pq.read_table(path, partitioning=None)
    column = table.column_names.index("q50")
    forged = table.set_column(column, table.schema.field(column), [pd.Series(table["q50"].to_numpy() + 0.01)])
    pq.write_table(forged.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ShardDamagedError, match="checksum"):
        read_shard(path, CONFIG.horizons)


def test_another_setting_is_another_folder(built, market):
    other = leaf("bootstrap", small(backend="bootstrap", seed=1))
    assert key_of(other) != key_of(BACKEND)
    assert len(build(built, market, other)) == 4
    assert build(built, market) == []


def test_the_panel_takes_what_the_store_has_computes_the_rest_and_keeps_none_of_it(built, market, monkeypatch):
    before = files(built)
    from_store = forecast_panel(market, CONFIG, built)
    computed = forecast_panel(market, CONFIG, FeatureStore(built.root / "nowhere"))
    for name, values in from_store.statistics.items():
        assert_array_equal(values, computed.statistics[name])
    assert files(built) == before

    def refuse(*_):
        raise AssertionError("a forecast was computed although the store has it")

    monkeypatch.setattr(type(BACKEND), "forecast", refuse)
    forecast_panel(market, CONFIG, built)


def test_statistics_are_written_with_units_once_and_read_as_one_table(built, market):
    panel = forecast_panel(market, CONFIG, built)
    folder, written = built.write_statistics("bootstrap", market, CONFIG, panel.statistics)
    assert written == 4
    assert built.write_statistics("bootstrap", market, CONFIG, panel.statistics) == (folder, 0)
    table = pd.read_parquet(folder)
    assert len(table) == 420 * 2 * 2
    schema = pq.read_schema(next(folder.rglob("*.parquet")))
    assert schema.field("spread").metadata[b"unit"] == b"fraction of price"
    assert all(field.metadata[b"unit"] for field in schema)


def test_the_figures_of_version_1_are_these():
    """The store trusts `version` in each identity. When this fails, the figures have changed: raise the version, then these."""
    returns = np.zeros((300, 1))
    returns[1:, 0] = 0.01 * np.sin(np.arange(1, 300) ** 1.5)
    dates = prices_with(returns, ("A",)).dates
    figures = {
        name: leaf(name, small()).forecast(dates, returns, np.array([299])).quantiles[0, 0, 1, [1, 10, 19]].tolist()
        for name in ("gaussian", "iid", "bootstrap")
    }
    expected = {
        "gaussian": [-0.022049, 0.0, 0.022049],
        "iid": [-0.024992, -0.004183, 0.01766],
        "bootstrap": [-0.025798, -0.004119, 0.01827],
    }
    assert_allclose(list(figures.values()), list(expected.values()), atol=1e-6)
