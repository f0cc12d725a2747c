"""Reading series: any usual file, every mistake one line with file and row, and no value before its publication."""

from __future__ import annotations

import numpy as np
import pytest

from envs.errors import ConfigError, MarketDataError
from rlplatform.features.context import SeriesConfig
from tests.features.context.conftest import write_series

DATES = ["2024-01-04", "2024-01-05", "2024-01-08"]


def load(folder, name="CPI", config=None, since=None, **columns):
    write_series(folder, name, **columns)
    return (config or SeriesConfig(published="same_close")).load(name, str(folder), since)


def instants(series) -> list[str]:
    return [str(instant)[:16] for instant in series.published]


def test_dates_and_values_are_found_under_their_usual_names(tmp_path):
    plain = load(tmp_path, date=DATES, close=[1.0, 2.0, 3.0])
    fred = load(tmp_path, observation_date=DATES, CPI=["1.0", "2.0", "3.0"])
    chosen = load(
        tmp_path, config=SeriesConfig(column="mean", published="same_close"), Date=DATES, close=[9, 9, 9], mean=[1.0, 2.0, 3.0]
    )
    assert plain.sha256 == fred.sha256 == chosen.sha256
    assert plain.values.tolist() == [1.0, 2.0, 3.0]
    assert plain.described()["first"] == "2024-01-04"


def test_parquet_is_read_like_csv(tmp_path):
    import pandas as pd

    expected = load(tmp_path / "csv", date=DATES, value=[1.0, 2.0, 3.0])
    (tmp_path / "parquet").mkdir()
    pd.DataFrame({"date": pd.to_datetime(DATES), "value": [1.0, 2.0, 3.0]}).to_parquet(tmp_path / "parquet" / "CPI.parquet")
    assert SeriesConfig(published="same_close").load("CPI", str(tmp_path / "parquet")).sha256 == expected.sha256


def test_a_total_return_price_is_preferred_and_days_without_a_value_are_left_out(tmp_path):
    found = load(tmp_path, "XLK", SeriesConfig(), date=DATES, close=[9, 9, 9], adj_close=[1, ".", 3])
    assert (found.kind, found.values.tolist()) == ("price", [1.0, 3.0])
    assert found.days.astype(str).tolist() == ["2024-01-04", "2024-01-08"]


def test_a_well_known_name_brings_its_rule(tmp_path):
    assert instants(load(tmp_path, "VIX", SeriesConfig(), date=DATES[:1], close=[13.0])) == ["2024-01-04T21:00"]
    assert instants(load(tmp_path, "DGS10", SeriesConfig(), date=DATES[1:2], close=[4.0])) == ["2024-01-08T21:00"]
    assert instants(load(tmp_path, "EURUSD", SeriesConfig(), date=DATES[:1], close=[1.1])) == ["2024-01-04T22:00"]


def test_a_rule_of_one_s_own_counts_days_and_hours(tmp_path):
    late = SeriesConfig(published="after", lag_days=30, at="08:30", max_age_days=60)
    assert instants(load(tmp_path, config=late, date=DATES[:1], value=[3.1])) == ["2024-02-03T13:30"]
    end_of_day = SeriesConfig(published="after")
    assert instants(load(tmp_path, config=end_of_day, date=DATES[:1], value=[3.1])) == ["2024-01-05T04:59"]


def test_published_at_is_taken_where_there_is_one_with_or_without_a_time_or_a_zone(tmp_path):
    published = ["2024-01-04", "2024-01-05 16:15", "2024-01-08T12:00:00+00:00"]
    found = load(tmp_path, config=SeriesConfig(), date=DATES, value=[1, 2, 3], published_at=published)
    assert instants(found) == ["2024-01-05T04:59", "2024-01-05T21:15", "2024-01-08T12:00"]


def test_revisions_of_one_date_are_kept_side_by_side(tmp_path):
    found = load(
        tmp_path, config=SeriesConfig(), date=DATES[:1] * 2, value=[1.0, 1.5], published_at=["2024-01-05", "2024-02-05"]
    )
    assert found.values.tolist() == [1.0, 1.5]


def test_values_from_before_the_market_are_left_out(tmp_path):
    assert len(load(tmp_path, date=DATES, close=[1, 2, 3], since=np.datetime64("2024-01-05"))) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"day": DATES, "close": [1, 2, 3]}, "CPI.csv has no column date; found day, close"),
        (
            {"date": DATES, "level": [1, 2, 3]},
            r"no column adj_close or close or value or CPI; found date, level\. Set features",
        ),
        ({"date": ["2024-01-04", "soon", "x"], "close": [1, 2, 3]}, "CPI.csv row 3: date 'soon'; expected one such as"),
        ({"date": DATES, "close": [1, "high", 3]}, "CPI.csv row 3: close = high; expected a finite number"),
        ({"date": DATES[:2] * 2, "close": [1, 2, 3, 4]}, "CPI.csv row 4: 2024-01-04 stands in row 2 already"),
        (
            {"date": DATES, "close": [1, 2, 3], "published_at": ["2024-01-04", "2024-01-04", "2024-01-08"]},
            r"CPI.csv row 3: published_at 2024-01-04 is before its own date 2024-01-05; expected that day or later \(1 such",
        ),
        (
            {"date": DATES, "close": [1, 2, 3], "published_at": ["2024-01-04 15:00", "2024-01-06", "2024-01-09"]},
            r"CPI.csv row 3: the value of 2024-01-05 was published 2024-01-07 04:59 UTC, but "
            r"features.context.series.CPI.published = same_close would show it at 2024-01-05 21:00 UTC; "
            r"expected no earlier \(2 such row",
        ),
    ],
)
def test_a_wrong_file_is_one_line_with_file_row_and_cure(tmp_path, columns, message):
    with pytest.raises(MarketDataError, match=message) as error:
        load(tmp_path, **columns)
    assert "\n" not in str(error.value)


def test_a_published_at_that_is_no_time_is_refused_with_its_row(tmp_path):
    with pytest.raises(MarketDataError, match=r"CPI\.csv row 3: published_at 'later'"):
        load(tmp_path, config=SeriesConfig(), date=DATES[:2], close=[1, 2], published_at=["2024-01-04", "later"])


@pytest.mark.parametrize(
    ("name", "config"), [("VIX", SeriesConfig()), ("CPI", SeriesConfig(kind="price", published="same_close"))]
)
def test_a_price_or_an_implied_volatility_of_zero_is_refused(tmp_path, name, config):
    with pytest.raises(MarketDataError, match="row 2: close = 0; expected a finite number > 0"):
        load(tmp_path, name, config, date=DATES, close=[0, 1, 2])


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("CPI", SeriesConfig(), "CPI.published is missing, and CPI.csv has no column published_at; expected one of same_close"),
        ("CPI", SeriesConfig(published="column"), "CPI.csv has no column published_at, which .* needs"),
        ("DGS10", SeriesConfig(published="same_close"), "DGS10.published = same_close is too early: the Treasury posts"),
        ("SOFR", SeriesConfig(published="same_close"), "too early: the New York Fed publishes .* Expected next_session"),
    ],
)
def test_a_rule_that_is_missing_or_knows_too_much_is_refused(tmp_path, name, config, message):
    with pytest.raises((ConfigError, MarketDataError), match=message):
        load(tmp_path, name, config, date=DATES, close=[1, 2, 3])


def test_a_missing_path_folder_file_or_span_says_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"series\.VIX has no path"):
        SeriesConfig().load("VIX", None)
    with pytest.raises(MarketDataError, match="does not exist"):
        SeriesConfig().load("VIX", str(tmp_path / "none"))
    write_series(tmp_path, "VIX3M")
    with pytest.raises(MarketDataError, match=r"has no VIX.csv or .parquet; it has VIX3M. Did you mean VIX3M\?"):
        SeriesConfig().load("VIX", str(tmp_path))
    with pytest.raises(MarketDataError, match="no value on or after 2030-01-01"):
        SeriesConfig().load("VIX3M", str(tmp_path), since=np.datetime64("2030-01-01"))
