import numpy as np
import pandas as pd
import pytest

from envs.errors import ConfigError, MarketDataError
from rlplatform.data import check_folder

NOW = pd.Timestamp("2024-12-31")


def test_a_clean_folder_is_ok_and_each_symbol_is_described(write, bars):
    report = check_folder(write(SPY=bars, QQQ=bars.drop(columns="adj_close")), now=NOW)
    assert report.ok
    assert [(s.symbol, s.rows, s.first, s.last, s.basis) for s in report.symbols] == [
        ("QQQ", 4, "2020-03-12", "2020-03-17", "close as given"),
        ("SPY", 4, "2020-03-12", "2020-03-17", "total return"),
    ]


def test_every_problem_is_collected_not_the_first_only(write, bars):
    bad = bars.copy()
    bad.loc[0, "close"] = np.nan
    bad.loc[1, "low"] = 500.0
    bad = pd.concat([bad, bad.tail(1)])
    path = write(SPY=bad, QQQ=bars.drop(index=1), NOTES=pd.DataFrame({"a": [1]}), all=bars.assign(tic="QQQ"))
    report = check_folder(path, now=NOW)
    problems = {s.file: " | ".join(s.problems) for s in report.symbols}
    assert not report.ok
    for part in ("close[2020-03-12, 'SPY'] is nan", "= 500 is above high", "stands in row 5 already"):
        assert part in problems["SPY.csv"]
    assert "'QQQ' has no row for 2020-03-13" in problems["QQQ.csv"]
    assert problems["all.csv"] == ""
    assert any("NOTES.csv has no column date or close" in line for line in report.problems)
    assert any("QQQ: in QQQ.csv and all.csv alike" in line for line in report.problems)


def test_days_off_are_a_problem_only_with_a_calendar(write, bars):
    path = write(BTC=bars.assign(date=["2020-03-12", "2020-03-13", "2020-03-14", "2020-03-16"]))
    assert "rows on 2020-03-14; not a session of XNYS" in check_folder(path, now=NOW).symbols[0].problems[0]
    assert check_folder(path, calendar=None, now=NOW).ok


def test_nothing_to_check_and_unknown_calendars_are_refused(tmp_path):
    with pytest.raises(MarketDataError, match="holds no"):
        check_folder(tmp_path)
    with pytest.raises(ConfigError, match="not an exchange calendar"):
        check_folder(tmp_path, calendar="NOPE")


def test_the_real_finrl_file_is_reported_with_its_two_gaps(shared_data):
    report = check_folder(shared_data / "finrl" / "dow30_2009_2022.csv", now=NOW)
    assert {s.symbol: s.problems[0] for s in report.symbols if s.problems}.keys() == {"CRM", "CVX"}
    assert len(report.symbols) == 30
