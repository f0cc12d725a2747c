"""Yahoo Finance: prices fetched once into a snapshot, then read from it."""

from __future__ import annotations

import datetime
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import pandas as pd

from envs.errors import ConfigError, MarketDataError
from rlplatform.data.align import ALIGNMENTS, Align
from rlplatform.data.calendar import check_calendar
from rlplatform.data.folder import FolderConfig
from rlplatform.data.prices import Prices
from rlplatform.data.request import check_choice, clean_request
from rlplatform.data.schema import PRICE_COLUMNS, check_bars, normalise_columns
from rlplatform.data.snapshot import read_manifest, verify_snapshot, write_snapshot


@dataclass(frozen=True, kw_only=True)
class YahooConfig:
    """Daily prices from Yahoo Finance by yfinance (optional: `pip install rlplatform[yahoo]`).

    The first load downloads into the folder `path`; later loads read that folder and verify its hashes, so a run can be
    repeated although Yahoo rewrites its history. A snapshot is never overwritten.

    Attributes:
        path: folder of the snapshot.
        symbols: Yahoo's tickers, for instance SPY or ^VIX.
        start, end: first and last day, both included; all there is if not given.
        calendar, align: as in `FolderConfig`.
    """

    source: Literal["yahoo"] = "yahoo"
    path: str
    symbols: tuple[str, ...]
    start: str | datetime.date | None = None
    end: str | datetime.date | None = None
    calendar: str | None = "XNYS"
    align: Align = "strict"

    def __post_init__(self) -> None:
        check_choice("data.source", self.source, ["yahoo"])
        check_choice("data.align", self.align, ALIGNMENTS)
        check_calendar("data.calendar", self.calendar)
        object.__setattr__(self, "path", str(self.path))
        clean_request(self)
        if not self.symbols:
            raise ConfigError("data.symbols is empty; Yahoo needs to know which. Name them, for instance [SPY, QQQ].")
        for symbol in self.symbols:
            if not set(symbol).isdisjoint("/\\") or symbol.startswith("."):
                raise ConfigError(f"data.symbols names {symbol!r}; a ticker becomes a file name. Yahoo writes BRK-B, EURUSD=X.")

    def describe(self) -> str:
        """One line: what `load` returns."""
        return f"Yahoo Finance: {', '.join(self.symbols)} by yfinance, snapshot in {self.path}"

    def load(self, now: pd.Timestamp | None = None) -> Prices:
        """The snapshot's prices; downloads it first where there is none.

        Raises:
            ConfigError: a download is needed and yfinance is not installed, or the snapshot is of another request.
            MarketDataError: Yahoo sent nothing or bad data, or a file has changed since the download.
        """
        path = download(self, now)
        folder = FolderConfig(
            path=str(path), symbols=self.symbols, start=self.start, end=self.end, calendar=self.calendar, align=self.align
        )
        return folder.load(now)


def download(config: YahooConfig, now: pd.Timestamp | None = None) -> Path:
    """Fetch what `config` asks for into its snapshot folder, unless that snapshot is there already.

    Returns:
        The folder: one CSV per symbol, and snapshot.json with the request and the sha256 of each file.

    Raises:
        ConfigError: yfinance is not installed, or the folder holds a snapshot of another request.
        MarketDataError: Yahoo sent nothing or bad data for a symbol (nothing is written then), or a file has changed.
    """
    path = Path(config.path)
    request = {"symbols": sorted(config.symbols), "start": config.start, "end": config.end}
    manifest = read_manifest(path)
    if manifest is not None:
        if {key: manifest["request"].get(key) for key in request} != request:
            raise ConfigError(
                f"{path} is a snapshot of {manifest['request']}, not of {request}. Choose another data.path or delete it."
            )
        verify_snapshot(path)
        return path
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"data.path = {config.path!r} exists and is no snapshot. Choose a folder that does not exist yet.")
    yfinance = _import_yfinance()
    now = pd.Timestamp.now() if now is None else pd.Timestamp(now)
    tables = {symbol: _fetch(yfinance, symbol, config, now) for symbol in config.symbols}
    return write_snapshot(path, tables, {**request, "source": "yahoo", "yfinance": getattr(yfinance, "__version__", "unknown")})


def _import_yfinance() -> ModuleType:
    try:
        return importlib.import_module("yfinance")
    except ImportError as error:
        raise ConfigError(
            "data.source = 'yahoo' needs yfinance, which is not installed: pip install rlplatform[yahoo]"
        ) from error


def _fetch(yfinance: ModuleType, symbol: str, config: YahooConfig, now: pd.Timestamp) -> pd.DataFrame:
    """One symbol's checked bars. Yahoo's `end` is not included, ours is."""
    where = f"Yahoo {symbol}"
    after = None if config.end is None else str((pd.Timestamp(config.end).normalize() + pd.Timedelta(days=1)).date())
    period = (
        {"period": "max"} if config.start is None and after is None else {"start": config.start or "1900-01-01", "end": after}
    )
    table = yfinance.Ticker(symbol).history(interval="1d", auto_adjust=False, actions=False, **period)
    if table is None or table.empty:
        raise MarketDataError(f"{where}: no rows inside [{config.start}, {config.end}]. Check the ticker and the dates.")
    raw = table.rename_axis("date").reset_index()
    raw.index = range(2, len(raw) + 2)
    bars = normalise_columns(raw, where, symbol)
    if config.end is not None:
        bars = bars[bars["date"] < pd.Timestamp(after)]
    check_bars(bars, where, now)
    return bars[["date", *(name for name in (*PRICE_COLUMNS, "volume") if name in bars)]]
