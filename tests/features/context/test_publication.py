"""When a value becomes known, and when a bar closes: to the minute, in UTC."""

from __future__ import annotations

import numpy as np
import pytest

from envs.errors import ConfigError
from rlplatform.data.prices import Prices
from rlplatform.features.context.publication import after, bar_closes, next_session, same_close
from rlplatform.features.context.releases import RELEASES, release_of


def days(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[D]")


def text(instants: np.ndarray) -> list[str]:
    return [str(instant)[:16] for instant in instants]


def bars(*dates: str, calendar: str | None = "XNYS") -> Prices:
    return Prices(dates=np.array(dates, "datetime64[ns]"), symbols=("A",), close=np.ones((len(dates), 1)), calendar=calendar)


def test_the_same_close_is_four_in_new_york_one_on_a_half_day_and_the_next_session_s_on_a_holiday():
    found = same_close(days("2024-01-05", "2024-07-02", "2024-07-03", "2024-07-04"), "XNYS")
    assert text(found) == ["2024-01-05T21:00", "2024-07-02T20:00", "2024-07-03T17:00", "2024-07-05T20:00"]


def test_the_next_session_skips_the_weekend_and_the_holiday():
    found = next_session(days("2024-01-05", "2024-01-06", "2024-07-03"), "XNYS")
    assert text(found) == ["2024-01-08T21:00", "2024-01-08T21:00", "2024-07-05T20:00"]


def test_a_time_of_day_follows_the_clocks_of_its_zone_and_a_repeated_or_skipped_hour_is_the_later_one():
    assert text(after(days("2024-01-05", "2024-07-05"), 0, "17:00", "America/New_York")) == [
        "2024-01-05T22:00",
        "2024-07-05T21:00",
    ]
    assert text(after(days("2024-01-05"), 3, "08:30", "Europe/London")) == ["2024-01-08T08:30"]
    assert text(after(days("2024-11-03", "2024-03-10"), 0, "01:30", "America/New_York"))[0] == "2024-11-03T06:30"
    assert text(after(days("2024-03-10"), 0, "02:30", "America/New_York")) == ["2024-03-10T07:00"]


def test_a_bar_closes_with_its_session_or_its_utc_day():
    assert text(bar_closes(bars("2024-07-02", "2024-07-03"))) == ["2024-07-02T20:00", "2024-07-03T17:00"]
    assert text(bar_closes(bars("2024-07-03", "2024-07-04", calendar=None))) == ["2024-07-04T00:00", "2024-07-05T00:00"]


def test_a_bar_inside_a_day_closes_at_the_earlier_reading_of_its_clock():
    dates = ("2024-01-05T10:00", "2024-01-05T16:00")
    assert text(bar_closes(bars(*dates))) == list(dates)  # as UTC; New York's would be five hours later
    assert text(bar_closes(bars(*dates, calendar="XTKS"))) == ["2024-01-05T01:00", "2024-01-05T07:00"]
    assert text(bar_closes(bars(*dates, calendar=None))) == list(dates)


def test_a_calendar_that_does_not_reach_back_is_refused():
    with pytest.raises(ConfigError, match="does not cover 1850"):
        same_close(days("1850-01-02"), "XKRX")


@pytest.mark.parametrize(
    ("name", "kind", "published"),
    [
        ("VIX", "level", "same_close"),
        ("VIX3M", "level", "same_close"),
        ("DGS10", "level", "next_session"),
        ("DGS3MO", "level", "next_session"),
        ("SOFR", "level", "next_session"),
        ("DXY", "price", "after"),
        ("USDJPY", "price", "after"),
        ("SPX", "price", "same_close"),
        ("XLE", "price", "same_close"),
    ],
)
def test_well_known_series_have_their_kind_and_rule(name, kind, published):
    release = release_of(name)
    assert (release.kind, release.published) == (kind, published)


def test_no_other_name_is_well_known_and_every_rule_has_a_reason():
    assert [release_of(name) for name in ("CPI", "EURXXX", "XVIX", "DGS")] == [None] * 4
    assert all(release.why and (release.at or release.published != "after") for release in RELEASES)
