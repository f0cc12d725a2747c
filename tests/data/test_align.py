from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, MarketDataError
from rlplatform.data.align import align_bars
from rlplatform.data.calendar import check_sessions, sessions


def one(dates, close=None, **columns) -> pd.DataFrame:
    dates = pd.to_datetime(list(dates)).astype("datetime64[ns]")
    close = np.arange(1.0, len(dates) + 1) if close is None else close
    return pd.DataFrame({"date": dates, "close": close, **columns})


def test_independence_day_and_weekends_are_no_sessions():
    days = sessions("XNYS", np.datetime64("2024-07-03"), np.datetime64("2024-07-08"))
    assert_array_equal(days, np.array(["2024-07-03", "2024-07-05", "2024-07-08"], dtype="datetime64[D]"))


def test_a_span_inside_one_holiday_has_no_session():
    assert len(sessions("XNYS", np.datetime64("2024-07-04"), np.datetime64("2024-07-04"))) == 0


def test_missing_sessions_and_extra_days_are_told_apart():
    check = check_sessions(np.array(["2024-07-03", "2024-07-04", "2024-07-08"], dtype="datetime64[ns]"), "XNYS")
    assert_array_equal(check.missing, np.array(["2024-07-05"], dtype="datetime64[D]"))
    assert_array_equal(check.extra, np.array(["2024-07-04"], dtype="datetime64[D]"))


def test_an_unknown_calendar_is_refused():
    with pytest.raises(ConfigError, match=r"'XNYSE' is not an exchange calendar; .* null .* Did you mean XNYS\?"):
        sessions("XNYSE", np.datetime64("2024-07-03"), np.datetime64("2024-07-08"))


def test_a_missing_session_is_refused_and_never_filled():
    bars = {"A": one(["2024-07-03", "2024-07-08"])}
    with pytest.raises(MarketDataError, match=r"x: 'A' has no row for 2024-07-05, a session of XNYS\. Add the rows"):
        align_bars(bars, "x")


def test_a_row_on_a_holiday_is_refused_with_both_cures():
    bars = {"A": one(["2024-07-03", "2024-07-04", "2024-07-05"])}
    with pytest.raises(
        MarketDataError, match=r"'A' has rows on 2024-07-04; not a session of XNYS.*calendar: null.*intersection"
    ):
        align_bars(bars, "x")


def test_without_a_calendar_every_day_may_trade():
    assert len(align_bars({"A": one(pd.date_range("2024-07-03", "2024-07-08"))}, "x", calendar=None)) == 6


def test_a_symbol_without_a_date_that_others_have_is_named():
    days = ["2024-07-06", "2024-07-07", "2024-07-08"]
    bars = {"A": one(days), "B": one([days[0], days[2]])}
    with pytest.raises(MarketDataError, match="'B' has no row for 2024-07-07, which others have"):
        align_bars(bars, "x", calendar=None)


def test_intersection_keeps_shared_sessions_and_its_returns_span_the_gap():
    bars = {
        "A": one(["2024-07-03", "2024-07-04", "2024-07-05", "2024-07-08"], [1.0, 2, 3, 6]),
        "B": one(["2024-07-03", "2024-07-08"]),
    }
    prices = align_bars(bars, "x", align="intersection")
    assert_array_equal(prices.dates, np.array(["2024-07-03", "2024-07-08"], dtype="datetime64[ns]"))
    assert_allclose(prices.gross()[1], [6, 2])
    assert "2024-07-04, 2024-07-05 left out" in prices.source


def test_a_session_that_no_symbol_has_is_reported_by_intersection():
    prices = align_bars({"A": one(["2024-07-03", "2024-07-08"])}, "x", align="intersection")
    assert "2024-07-05 left out" in prices.source


def test_without_a_start_prices_begin_where_the_youngest_symbol_does():
    old = one(["2024-07-03", "2024-07-05", "2024-07-08", "2024-07-09"])
    prices = align_bars({"OLD": old, "YOUNG": one(["2024-07-08", "2024-07-09"])}, "x")
    assert len(prices) == 2
    assert "begins with YOUNG" in prices.source


def test_a_late_listing_does_not_silently_cut_a_period_that_was_asked_for():
    old = one(["2024-07-03", "2024-07-05", "2024-07-08", "2024-07-09"])
    with pytest.raises(
        MarketDataError, match="'YOUNG' has rows from 2024-07-08 to 2024-07-09 only; the others from 2024-07-03"
    ):
        align_bars({"OLD": old, "YOUNG": one(["2024-07-08", "2024-07-09"])}, "x", start="2024-07-01")


def test_symbols_that_do_not_overlap_are_refused():
    bars = {"OLD": one(["2024-07-03"]), "YOUNG": one(["2024-07-08"])}
    for align in ("strict", "intersection"):
        with pytest.raises(
            MarketDataError, match="'OLD' ends 2024-07-03, before 'YOUNG' begins 2024-07-08; symbols must overlap"
        ):
            align_bars(bars, "x", align=align)


def test_symbols_that_interleave_without_a_shared_date_are_refused():
    bars = {"A": one(["2024-07-03", "2024-07-08"]), "B": one(["2024-07-05", "2024-07-09"])}
    with pytest.raises(MarketDataError, match="A, B share no date"):
        align_bars(bars, "x", align="intersection")


def test_a_period_without_rows_names_the_symbol_and_its_span():
    with pytest.raises(MarketDataError, match=r"'A' has no row inside \[2025-01-01, None\]; it has 1 rows, 2024-07-03"):
        align_bars({"A": one(["2024-07-03"])}, "x", start="2025-01-01")


def test_minute_bars_are_held_against_the_calendar_by_day():
    minutes = ["2024-07-03 09:31", "2024-07-03 09:32", "2024-07-05 09:31"]
    assert len(align_bars({"A": one(minutes)}, "x")) == 3
    with pytest.raises(MarketDataError, match="rows on 2024-07-04"):
        align_bars({"A": one([*minutes[:2], "2024-07-04 09:31", minutes[2]])}, "x")
    with pytest.raises(MarketDataError, match="'B' has no row for 2024-07-03 09:32, which others have"):
        align_bars({"A": one(minutes), "B": one([minutes[0], minutes[2]])}, "x")


def test_adjusted_prices_carry_open_high_and_low_with_them():
    table = one(
        ["2024-07-03", "2024-07-05"], [10.0, 20.0], open=[8.0, 18.0], high=[12.0, 22.0], low=[6.0, 16.0], adj_close=[5.0, 20.0]
    )
    prices = align_bars({"A": table}, "x")
    assert_allclose(prices.close[:, 0], [5, 20])
    assert_allclose(prices.open[:, 0], [4, 18])
    assert_allclose(prices.high[:, 0], [6, 22])
    assert_allclose(prices.low[:, 0], [3, 16])
    assert prices.volume is None


def test_the_source_says_which_symbols_lack_dividends():
    with_dividends = one(["2024-07-03"], [10.0], adj_close=[9.0])
    prices = align_bars({"A": with_dividends, "B": one(["2024-07-03"])}, "x")
    assert "close as given for B" in prices.source
    assert prices.open is None


def test_the_value_traded_is_that_of_the_close_as_quoted_for_later_dividends_change_the_other_one():
    days = ["2024-07-03", "2024-07-05"]
    bars = {"A": one(days, [10.0, 20.0], adj_close=[9.0, 20.0], volume=[100.0, 50.0]), "B": one(days, volume=[1.0, 0.0])}
    prices = align_bars(bars, "x")
    assert_array_equal(prices.dollar_volume, [[1000.0, 1.0], [1000.0, 0.0]])
    assert_array_equal(prices.select(["B"]).between("2024-07-05").dollar_volume, [[0.0]])
    assert align_bars({"A": bars["A"], "B": one(days)}, "x").dollar_volume is None  # one lacks volume
    assert replace(prices, dollar_volume=None).sha256 == prices.sha256
