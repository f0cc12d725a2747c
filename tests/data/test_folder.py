import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from envs.errors import ConfigError, MarketDataError
from rlplatform.data import FolderConfig, load_prices

DOW_TRIO = ["AAPL", "MSFT", "JPM"]


def test_a_folder_of_one_file_per_symbol_loads_in_the_order_asked_for(write, bars):
    path = write(SPY=bars, QQQ=bars.assign(close=bars["close"] * 2, adj_close=bars["adj_close"] * 2, high=300.0))
    prices = load_prices(FolderConfig(path=path, symbols=["SPY", "QQQ"]))
    assert prices.symbols == ("SPY", "QQQ")
    assert_allclose(prices.close, [[99.99, 199.98], [101.97, 203.94], [100, 200], [101, 202]])
    assert prices.calendar == "XNYS"
    assert load_prices(FolderConfig(path=path)).symbols == ("QQQ", "SPY")  # every file, by name


def test_open_high_and_low_stand_on_the_basis_of_the_adjusted_close(write, bars):
    prices = load_prices(FolderConfig(path=write(SPY=bars)))
    assert_allclose(prices.open[:, 0], [99, 100.98, 98, 99])  # 1 % of dividends taken off before it was paid


def test_a_long_file_in_finrls_form_loads(write, bars):
    long = pd.concat([bars.assign(tic=tic) for tic in ("SPY", "NA", "TRUE")]).sort_values(["date", "tic"])
    path = write(long=long.assign(day=0))
    assert load_prices(FolderConfig(path=path)).symbols == ("NA", "SPY", "TRUE")
    assert load_prices(FolderConfig(path=f"{path}/long.csv", symbols=["TRUE"])).symbols == ("TRUE",)


@pytest.mark.parametrize("columns", [str.upper, str.title, {"date": "timestamps", "adj_close": "Adj Close"}.get])
def test_column_names_may_be_in_the_fields_other_spellings(write, bars, columns):
    renamed = bars.rename(columns=lambda name: columns(name) or name)
    assert len(load_prices(FolderConfig(path=write(SPY=renamed)))) == 4


def test_parquet_loads_with_the_date_as_a_column_or_as_the_index(tmp_path, bars):
    bars["date"] = pd.to_datetime(bars["date"])
    bars.to_parquet(tmp_path / "SPY.parquet", index=False)
    bars.set_index("date").rename_axis(None).tz_localize("America/New_York").to_parquet(tmp_path / "QQQ.parquet")
    prices = load_prices(FolderConfig(path=str(tmp_path), symbols=["SPY", "QQQ"]))
    assert_allclose(prices.close[:, 0], prices.close[:, 1])


def test_an_empty_line_does_not_shift_the_row_that_an_error_names(tmp_path, bars):
    bars.loc[2, "close"] = -1
    lines = bars.to_csv(index=False).splitlines()
    (tmp_path / "SPY.csv").write_text("\n".join([*lines[:2], "", *lines[2:], "", ""]))
    with pytest.raises(MarketDataError, match=r"SPY.csv: row 5: close\[2020-03-16, 'SPY'\] is -1"):
        load_prices(FolderConfig(path=str(tmp_path)))


def test_a_missing_symbol_says_which_there_are(write, bars):
    with pytest.raises(MarketDataError, match=r"has no 'spi'; it has QQQ, SPY\. Did you mean SPY\?"):
        load_prices(FolderConfig(path=write(SPY=bars, QQQ=bars), symbols=["spi"]))


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(MarketDataError, match="does not exist; expected a folder"):
        load_prices(FolderConfig(path=str(tmp_path / "nowhere")))
    with pytest.raises(MarketDataError, match=r"holds no .csv or .parquet file"):
        load_prices(FolderConfig(path=str(tmp_path)))


@pytest.mark.parametrize("content", ["", "date,close\n", "\x00\x01", '"a,b\n1'])
def test_a_file_without_a_table_is_refused_by_name(tmp_path, content):
    (tmp_path / "SPY.csv").write_text(content)
    with pytest.raises(MarketDataError, match=r"SPY\.csv"):
        load_prices(FolderConfig(path=str(tmp_path)))


def test_a_parquet_file_that_is_none_is_refused_by_name(tmp_path):
    (tmp_path / "SPY.parquet").write_text("date,close")
    with pytest.raises(MarketDataError, match=r"SPY\.parquet cannot be read"):
        load_prices(FolderConfig(path=str(tmp_path)))


def test_a_symbol_in_two_files_is_refused(write, bars):
    path = write(SPY=bars, all=bars.assign(tic="SPY"))
    with pytest.raises(MarketDataError, match="'SPY' is in another file"):
        load_prices(FolderConfig(path=path, symbols=["SPY"]))


def test_bad_rows_of_symbols_not_asked_for_do_not_matter(write, bars):
    long = pd.concat([bars.assign(tic="SPY"), bars.assign(tic="BAD", close=-1)])
    assert len(load_prices(FolderConfig(path=write(long=long), symbols=["SPY"]))) == 4
    with pytest.raises(MarketDataError, match="'BAD'"):
        load_prices(FolderConfig(path=write(long=long)))


def test_the_present_is_an_argument(write, bars):
    with pytest.raises(MarketDataError, match="the date 2020-03-17 of 'SPY' is in the future"):
        FolderConfig(path=write(SPY=bars)).load(now=pd.Timestamp("2020-03-16 23:59"))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"align": "forward_fill"}, r"data.align = 'forward_fill'; expected one of strict, intersection"),
        ({"calendar": "NYSE!"}, "data.calendar = 'NYSE!' is not an exchange calendar"),
        ({"symbols": "SPY,QQQ"}, r"is one text; expected a list such as \[SPY, QQQ\]"),
        ({"symbols": ["SPY", "SPY"]}, "names 'SPY' 2 times"),
        ({"symbols": [True]}, "Put it in quotes"),
        ({"start": "2020-13-01"}, "data.start = '2020-13-01' is not a date"),
        ({"start": "2021-01-01", "end": "2020-01-01"}, "start = 2021-01-01 is after end = 2020-01-01"),
        ({"source": "csv"}, "data.source = 'csv'; expected one of folder"),
    ],
)
def test_a_setting_outside_its_meaning_is_refused(settings_, message):
    with pytest.raises(ConfigError, match=message):
        FolderConfig(path="prices", **settings_)


@pytest.mark.parametrize(
    ("start", "end", "spy", "qqq", "iwm"),
    [("2015-01-01", "2019-12-31", 72.89, 116.44, 49.17), ("2020-01-01", "2024-12-31", 94.58, 143.86, 42.16)],
)
def test_total_returns_of_the_real_prices_are_the_published_ones(shared_data, start, end, spy, qqq, iwm):
    config = FolderConfig(path=str(shared_data / "equities"), symbols=["SPY", "QQQ", "IWM"], start=start, end=end)
    prices = load_prices(config)
    assert len(prices) == 1258
    assert_allclose(100 * (prices.gross().prod(0) - 1), [spy, qqq, iwm], atol=0.01)
    assert "total return" in prices.source


def test_the_finrl_file_loads_and_its_gaps_are_named(shared_data):
    path = str(shared_data / "finrl" / "dow30_2009_2022.csv")
    with pytest.raises(MarketDataError, match="'CRM' has no row for 2011-02-17, a session of XNYS; 'CVX' lacks 2010-11-19"):
        load_prices(FolderConfig(path=path))
    prices = load_prices(FolderConfig(path=path, align="intersection"))
    assert (len(prices), prices.num_assets) == (945, 30)
    assert "begins with DOW" in prices.source
    trio = load_prices(FolderConfig(path=path, symbols=DOW_TRIO, start="2009-01-01"))
    assert len(trio) == 3524
    with pytest.raises(MarketDataError, match="'V' has rows from 2011-02-18 to 2022-12-30 only; the others from 2009-01-02"):
        load_prices(FolderConfig(path=path, symbols=["AAPL", "V"], start="2009-01-01"))


def test_a_stock_beside_bitcoin_loads_on_the_stocks_sessions(shared_data):
    config = {"path": str(shared_data / "equities"), "symbols": ["SPY", "BTCUSD"], "start": "2020-01-01"}
    with pytest.raises(MarketDataError, match="'BTCUSD' has rows on 2020-01-01, 2020-01-04"):
        load_prices(FolderConfig(**config))
    assert len(load_prices(FolderConfig(**config, align="intersection"))) == 1258
    alone = load_prices(FolderConfig(**config | {"symbols": ["BTCUSD"]}, calendar=None))
    assert len(alone) == 1827


@given(seed=st.integers(0, 2**32 - 1), suffix=st.sampled_from(["csv", "parquet"]))
@settings(max_examples=10, deadline=None)
def test_what_is_written_is_what_is_read(tmp_path_factory, seed, suffix):
    close = np.exp(np.random.default_rng(seed).normal(0, 2, 8))
    table = pd.DataFrame({"date": pd.date_range("2024-07-08", periods=8), "close": close})
    file = tmp_path_factory.mktemp("written") / f"X.{suffix}"
    table.to_csv(file, index=False) if suffix == "csv" else table.to_parquet(file)
    prices = load_prices(FolderConfig(path=str(file), calendar=None))
    assert_allclose(prices.close[:, 0], close, rtol=1e-15)
