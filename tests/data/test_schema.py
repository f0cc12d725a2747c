import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import MarketDataError
from rlplatform.data.schema import check_bars, column_name, find_problems, normalise_columns, parse_dates

NOW = pd.Timestamp("2024-12-31 12:00")


def check(table: pd.DataFrame, symbol: str | None = "SPY") -> pd.DataFrame:
    raw = table.copy()
    raw.index = range(2, len(raw) + 2)
    bars = normalise_columns(raw, "SPY.csv", symbol)
    check_bars(bars, "SPY.csv", NOW, raw)
    return bars


@pytest.mark.parametrize(
    ("found", "name"),
    [("Date", "date"), ("timestamps", "date"), ("DateTime", "date"), ("TIC", "symbol"), ("Ticker", "symbol"),
     ("Adj Close", "adj_close"), ("adjclose", "adj_close"), ("Adj_Close", "adj_close"), (" VOLUME ", "volume"), ("day", None)],
)  # fmt: skip
def test_the_fields_column_names_are_understood_in_any_case(found, name):
    assert column_name(found) == name


def test_good_bars_pass_unchanged(bars):
    checked = check(bars)
    assert list(checked["close"]) == [101, 103, 100, 101]
    assert set(checked["symbol"]) == {"SPY"}


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "adj_close"])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (0, "0.0"), (-5, "-5.0"), (np.inf, "inf")])
def test_a_bad_price_is_refused_by_file_row_column_and_cure(bars, column, value, shown):
    bars.loc[2, column] = value
    with pytest.raises(MarketDataError) as refusal:
        check(bars)
    found = f"SPY.csv: row 4: {column}[2020-03-16, 'SPY'] is {shown}; "
    assert str(refusal.value).startswith(found + "prices must be finite and > 0 (1 such cell). Fill or drop it first.")


def test_a_price_that_is_no_number_is_shown_as_it_stands_in_the_file(bars):
    bars["close"] = ["101", "n/a", "1,000", "101"]
    with pytest.raises(MarketDataError, match=r"row 3: close\[2020-03-13, 'SPY'\] is 'n/a'; .*\(2 such cells\)"):
        check(bars)


def test_a_negative_or_missing_volume_is_refused_and_zero_is_not(bars):
    assert check(bars)["volume"].iloc[-1] == 0
    bars.loc[1, "volume"] = -1
    with pytest.raises(MarketDataError, match=r"row 3: volume\[2020-03-13, 'SPY'\] is -1.0; volumes must be finite and ≥ 0"):
        check(bars)


def test_a_repeated_date_is_refused_and_its_twin_named(bars):
    with pytest.raises(
        MarketDataError, match=r"row 6: \[2020-03-17, 'SPY'\] stands in row 5 already; .* Delete the repeated row"
    ):
        check(pd.concat([bars, bars.tail(1)]))


def test_unsorted_dates_are_refused(bars):
    with pytest.raises(
        MarketDataError, match=r"row 4: 'SPY' goes back from 2020-03-16 to 2020-03-13; .* Sort the file by date"
    ):
        check(bars.iloc[[0, 2, 1, 3]])


def test_low_above_high_is_refused(bars):
    bars.loc[1, ["low", "high"]] = [104.0, 100.0]
    with pytest.raises(MarketDataError, match=r"row 3: low\[2020-03-13, 'SPY'\] = 104 is above high = 100"):
        check(bars)


def test_low_above_open_or_close_is_refused_but_not_for_rounding(bars):
    bars.loc[1, "low"] = 102 * (1 + 5e-5)
    check(bars)
    bars.loc[1, "low"] = 102.5
    with pytest.raises(MarketDataError, match=r"low\[2020-03-13, 'SPY'\] = 102.5 is above open = 102 or close = 103"):
        check(bars)


def test_high_below_open_or_close_is_refused(bars):
    bars.loc[1, "high"] = 102.5
    with pytest.raises(MarketDataError, match=r"high\[2020-03-13, 'SPY'\] = 102.5 is below open = 102 or close = 103"):
        check(bars)


def test_a_price_in_the_future_is_refused_and_todays_is_not(bars):
    bars["date"] = ["2024-12-27", "2024-12-30", "2024-12-31", "2025-01-02"]
    check(bars.head(3))
    with pytest.raises(MarketDataError, match=r"row 5: the date 2025-01-02 of 'SPY' is in the future"):
        check(bars)


def test_an_unreadable_date_and_an_empty_symbol_are_refused(bars):
    with pytest.raises(MarketDataError, match=r"row 3: date is '13/03/20x'; every row needs a date"):
        check(bars.assign(date=["2020-03-12", "13/03/20x", "2020-03-16", "2020-03-17"]))
    with pytest.raises(MarketDataError, match="row 4: symbol is ; every row needs a symbol"):
        check(bars.assign(tic=["SPY", "SPY", None, "SPY"]))


def test_a_missing_column_says_which_columns_there_are(bars):
    with pytest.raises(MarketDataError, match=r"SPY.csv has no column close; found date, open, high, low, price"):
        check(bars.rename(columns={"close": "price"}))
    with pytest.raises(MarketDataError, match=r"no column date; .* expected date \| timestamp \| timestamps \| datetime"):
        check(bars.drop(columns="date"))
    with pytest.raises(MarketDataError, match="no column symbol"):
        check(bars, symbol=None)


def test_two_columns_of_one_meaning_are_refused(bars):
    with pytest.raises(MarketDataError, match="columns 'date' and 'timestamp' both mean date"):
        check(bars.assign(timestamp=bars["date"]))


def test_one_error_counts_the_other_kinds(bars):
    bars.loc[0, "close"] = -1
    bars.loc[2, "volume"] = np.nan
    with pytest.raises(MarketDataError, match=r"close\[2020-03-12.*other kinds? of problem"):
        check(bars)


@pytest.mark.parametrize(
    "text",
    ["2024-01-02 09:31:00", "2024-01-02T09:31:00Z", "2024-01-02 09:31:00-05:00", "2024-01-02T09:31:00.000+0000"],
)
def test_a_time_zone_is_dropped_and_the_files_wall_clock_kept(text):
    assert parse_dates(pd.Series([text])).iloc[0] == pd.Timestamp("2024-01-02 09:31")


@pytest.mark.parametrize("number", [20240102, 1704153600, 1704153600000])
def test_dates_may_be_numbers(number):
    assert parse_dates(pd.Series([number])).iloc[0] == pd.Timestamp("2024-01-02")


def test_summer_and_winter_offsets_may_stand_in_one_file():
    dates = parse_dates(pd.Series(["2024-03-08 00:00:00-05:00", "2024-03-11 00:00:00-04:00"]))
    assert list(dates) == [pd.Timestamp("2024-03-08"), pd.Timestamp("2024-03-11")]


@given(
    row=st.integers(0, 19),
    column=st.sampled_from(["open", "high", "low", "close"]),
    value=st.sampled_from([np.nan, 0.0, -1e-9, np.inf, -np.inf]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_whichever_cell_is_spoiled_its_row_and_column_are_named(row, column, value, seed):
    close = 100 * np.exp(np.random.default_rng(seed).normal(0, 0.02, 20).cumsum())
    table = pd.DataFrame({"open": close, "high": close * 1.01, "low": close * 0.99, "close": close}, index=range(2, 22))
    table = table.assign(date=pd.bdate_range("2020-01-01", periods=20), symbol="X")
    assert not find_problems(table, "X.csv", NOW)
    table.loc[row + 2, column] = value
    problems = find_problems(table, "X.csv", NOW)
    assert problems[0].kind == "price"
    assert problems[0].row == row + 2
    assert f"{column}[" in problems[0].message
