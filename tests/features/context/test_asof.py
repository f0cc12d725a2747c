"""The as-of join: at each close the newest value in the newest vintage that was public, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.features.context import ContextConfig, SeriesConfig
from rlplatform.features.context.asof import align, as_of, load_series
from rlplatform.features.context.series import Series
from tests.features.context.conftest import session_prices, write_series

NAN = np.nan


def series(*rows: tuple[str, float, str], kind: str = "level", max_age_days: int = 30) -> Series:
    days, values, published = zip(*rows, strict=True)
    return Series(
        name="x",
        days=np.array(days, "datetime64[D]"),
        values=np.array(values, float),
        published=np.array(published, "datetime64[ns]"),
        kind=kind,
        max_age_days=max_age_days,
        origin="test",
    )


def seen(each: Series, *closes: str) -> list[float]:
    instants = np.array(closes, "datetime64[ns]")
    return as_of(each, instants, instants.astype("datetime64[D]"))[0].tolist()


def test_a_value_is_seen_from_its_publication_on_to_the_very_instant():
    each = series(("2024-01-04", 7.0, "2024-01-05T21:00"))
    assert_array_equal(seen(each, "2024-01-04T21:00", "2024-01-05T20:59:59", "2024-01-05T21:00"), [NAN, NAN, 7.0])


def test_each_bar_sees_the_vintage_of_its_day_and_an_old_day_s_late_revision_does_not_displace_a_newer_day():
    gdp = series(
        ("2024-01-01", 1.0, "2024-01-03"),
        ("2024-01-02", 3.0, "2024-01-05"),
        ("2024-01-01", 2.0, "2024-01-04"),  # revised while newest
        ("2024-01-01", 9.0, "2024-01-06"),  # revised when no longer newest
        ("2024-01-02", 4.0, "2024-01-07"),
    )
    found = seen(gdp, *(f"2024-01-0{day}" for day in range(2, 9)))
    assert_array_equal(found, [NAN, 1.0, 2.0, 3.0, 3.0, 4.0, 4.0])


def test_of_values_published_together_the_newest_day_is_seen():
    assert seen(series(("2024-01-02", 2.0, "2024-01-05"), ("2024-01-01", 1.0, "2024-01-05")), "2024-01-05") == [2.0]


def test_a_value_too_old_is_unknown_and_ages_count_calendar_days():
    each = series(("2024-01-01", 5.0, "2024-01-02"), max_age_days=3)
    closes = np.array(["2024-01-03", "2024-01-04", "2024-01-05"], "datetime64[ns]")
    values, ages = as_of(each, closes, closes.astype("datetime64[D]"))
    assert_array_equal(values, [5.0, 5.0, NAN])
    assert_array_equal(ages, [2.0, 3.0, NAN])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=12, unique=True))
def test_the_join_is_what_a_reader_of_the_papers_would_say(rows):
    """Day d published at d + lag; at each close the newest day known, and of it the latest print."""
    first = np.datetime64("2024-01-01")
    each = series(*((str(first + day), i + 1.0, str(first + day + lag)) for i, (day, lag) in enumerate(rows)))
    closes = (first + np.arange(20)).astype("datetime64[ns]")
    expected = []
    for t in range(20):
        known = [(day, day + lag, i + 1.0) for i, (day, lag) in enumerate(rows) if day + lag <= t]
        expected.append(max(known)[2] if known else NAN)
    assert_array_equal(as_of(each, closes, closes.astype("datetime64[D]"))[0], expected)


def test_beside_daily_bars_vix_is_seen_the_same_day_and_yields_and_currencies_the_session_after(tmp_path):
    market = session_prices(rows=6)  # 2015-01-02 is a Friday
    days = market.dates.astype("datetime64[D]").astype(str).tolist()
    for name in ("VIX", "DGS10", "EURUSD", "IPO"):
        write_series(tmp_path, name, date=days, close=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    config = ContextConfig(
        path=str(tmp_path),
        series={name: SeriesConfig() for name in ("VIX", "DGS10", "EURUSD")}
        | {"IPO": SeriesConfig(published="after", lag_days=3)},
    )
    aligned = align(load_series(config, market), market)
    assert_array_equal(aligned.values["VIX"], [1, 2, 3, 4, 5, 6])
    assert_array_equal(aligned.values["DGS10"], [NAN, 1, 2, 3, 4, 5])
    assert_array_equal(aligned.values["EURUSD"], [NAN, 1, 2, 3, 4, 5])
    assert_array_equal(aligned.values["IPO"], [NAN, NAN, 1, 1, 1, 2])  # of Friday on Monday night: Tuesday's bar
    assert_allclose(aligned.steps["DGS10"], [NAN, NAN, 1, 1, 1, 1])
    assert_allclose(aligned.steps["EURUSD"], [NAN, NAN, *np.log([2, 3 / 2, 4 / 3, 5 / 4])])
    assert_array_equal(aligned.ages["DGS10"], [NAN, 3, 1, 1, 1, 1])


def test_drawn_bars_bring_their_day_s_value_and_change_and_invented_ones_know_nothing(market, series):
    aligned = align(series, market)
    drawn = aligned.redrawn(np.array([50, 51, 90, -1]))
    assert_array_equal(drawn.values["DXY"], [*aligned.values["DXY"][[50, 51, 90]], NAN])
    assert_array_equal(drawn.steps["DXY"], [*aligned.steps["DXY"][[50, 51, 90]], NAN])
    assert drawn.known("DXY").tolist() == [True, True, True, False]
