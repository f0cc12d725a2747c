import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError, MarketDataError
from rlplatform.data import FolderConfig, YahooConfig, check_folder, download, load_prices

NOW = pd.Timestamp("2024-12-31")


@pytest.fixture
def yahoo(monkeypatch, bars):
    """A stand-in for yfinance: a table per ticker in `tables`, and the calls it got in `calls`."""
    table = bars.rename(columns=lambda name: name.replace("_", " ").title()).set_index("Date")
    table.index = pd.to_datetime(table.index).tz_localize("America/New_York")
    fake = ModuleType("yfinance")
    fake.tables, fake.calls, fake.__version__ = {"SPY": table, "QQQ": table * 2, "GONE": table.head(0)}, [], "0.0-fake"

    def ticker(symbol):
        def history(**arguments):
            fake.calls.append((symbol, arguments))
            return fake.tables[symbol]

        return SimpleNamespace(history=history)

    fake.Ticker = ticker
    monkeypatch.setitem(sys.modules, "yfinance", fake)
    return fake


@pytest.fixture
def config(tmp_path) -> YahooConfig:
    return YahooConfig(path=tmp_path / "snap", symbols=["SPY", "QQQ"], start="2020-03-12", end="2020-03-17")


def test_a_download_is_a_folder_of_files_and_their_hashes(yahoo, config):
    path = download(config, NOW)
    manifest = json.loads((path / "snapshot.json").read_text())
    assert sorted(p.name for p in path.iterdir()) == ["QQQ.csv", "SPY.csv", "snapshot.json"]
    assert sorted(manifest["files"]) == ["QQQ.csv", "SPY.csv"]
    assert manifest["request"]["symbols"] == ["QQQ", "SPY"]
    assert manifest["request"]["yfinance"] == "0.0-fake"
    assert [p.name for p in path.parent.iterdir()] == ["snap"]  # nothing half-written is left beside it


def test_yahoo_is_asked_for_unadjusted_prices_and_the_day_after_the_last(yahoo, config):
    download(config, NOW)
    symbol, asked = yahoo.calls[0]
    assert (symbol, asked["start"], asked["end"], asked["auto_adjust"]) == ("SPY", "2020-03-12", "2020-03-18", False)


def test_the_snapshot_loads_as_total_return_prices_and_is_fetched_once(yahoo, config):
    prices = load_prices(config)
    assert_allclose(prices.close[:, 0], [99.99, 101.97, 100, 101])
    assert_allclose(prices.close[:, 1], [199.98, 203.94, 200, 202])
    assert load_prices(config).sha256 == prices.sha256
    assert len(yahoo.calls) == 2
    assert load_prices(FolderConfig(path=config.path, symbols=config.symbols)).sha256 == prices.sha256


def test_a_snapshot_that_was_changed_is_refused_by_every_reader(yahoo, config):
    path = download(config, NOW)
    file = path / "SPY.csv"
    file.write_text(file.read_text().replace("103.0", "103.5"))
    for source in (config, FolderConfig(path=config.path)):
        with pytest.raises(MarketDataError, match=r"SPY.csv has changed since the download"):
            load_prices(source)
    assert "has changed" in check_folder(path, now=NOW).problems[0]
    file.unlink()
    with pytest.raises(MarketDataError, match=r"SPY.csv is missing; snapshot.json lists it"):
        load_prices(config)


def test_a_snapshot_of_another_request_is_not_overwritten(yahoo, config, tmp_path):
    download(config, NOW)
    other = YahooConfig(path=config.path, symbols=["SPY"], start="2020-03-12", end="2020-03-17")
    with pytest.raises(ConfigError, match=r"is a snapshot of .* Choose another data.path"):
        load_prices(other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="exists and is no snapshot"):
        download(YahooConfig(path=str(tmp_path / "mine"), symbols=["SPY"]), NOW)


def test_a_manifest_that_cannot_be_read_is_refused(yahoo, config):
    path = download(config, NOW)
    (path / "snapshot.json").write_text("{")
    with pytest.raises(MarketDataError, match=r"snapshot.json is no snapshot manifest"):
        load_prices(config)


def test_an_unknown_ticker_writes_nothing(yahoo, tmp_path):
    config = YahooConfig(path=str(tmp_path / "snap"), symbols=["SPY", "GONE"])
    with pytest.raises(MarketDataError, match=r"Yahoo GONE: no rows inside \[None, None\]. Check the ticker"):
        download(config, NOW)
    assert list(tmp_path.iterdir()) == []


def test_bad_data_from_yahoo_writes_nothing(yahoo, config, tmp_path):
    yahoo.tables["QQQ"] = yahoo.tables["QQQ"].assign(Close=float("nan"))
    with pytest.raises(MarketDataError, match=r"Yahoo QQQ: row 2: close\[2020-03-12, 'QQQ'\] is nan"):
        download(config, NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_behind(yahoo, config, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(MarketDataError, match="cannot be written: No space left"):
        download(config, NOW)
    assert list(tmp_path.iterdir()) == []


def test_without_yfinance_one_line_says_how_to_get_it(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "yfinance", None)
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match=r"needs yfinance, which is not installed: pip install rlplatform\[yahoo\]"):
        load_prices(config)


@pytest.mark.parametrize(("symbols", "message"), [([], "data.symbols is empty"), (["../SPY"], "becomes a file name")])
def test_symbols_must_be_named_and_be_file_names(symbols, message):
    with pytest.raises(ConfigError, match=message):
        YahooConfig(path="snap", symbols=symbols)
