"""Folder of CSV or Parquet files: one file per symbol, or one long file in FinRL's form."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow.parquet

from envs.errors import MarketDataError
from rlplatform.data.align import ALIGNMENTS, Align, align_bars
from rlplatform.data.calendar import check_calendar
from rlplatform.data.prices import Prices
from rlplatform.data.request import check_choice, clean_request, did_you_mean
from rlplatform.data.schema import check_bars, column_name, normalise_columns
from rlplatform.data.snapshot import verify_snapshot

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Prices from files of one's own.

    Columns, in any case: date | timestamp | timestamps | datetime, symbol | tic | ticker (else the file's name is the
    symbol), close, and where there are any open, high, low, adj_close, volume. Other columns are ignored. Where `adj_close`
    exists it is the price, and open, high and low are scaled by adj_close / close.

    Attributes:
        path: a folder of *.csv and *.parquet files, or one such file.
        symbols: which, in order; all there are if empty.
        start, end: first and last day, both included.
        calendar: exchange calendar whose sessions every symbol must have, all and only; None for markets that trade every day.
        align: "strict" refuses gaps; "intersection" keeps the dates that all symbols and the calendar share. See `align_bars`.
    """

    source: Literal["folder"] = "folder"
    path: str
    symbols: tuple[str, ...] = ()
    start: str | datetime.date | None = None
    end: str | datetime.date | None = None
    calendar: str | None = "XNYS"
    align: Align = "strict"

    def __post_init__(self) -> None:
        check_choice("data.source", self.source, ["folder"])
        check_choice("data.align", self.align, ALIGNMENTS)
        check_calendar("data.calendar", self.calendar)
        object.__setattr__(self, "path", str(self.path))
        clean_request(self)

    def describe(self) -> str:
        """One line: what `load` returns."""
        return f"folder {self.path}: {', '.join(self.symbols) or 'every symbol there is'}"

    def load(self, now: pd.Timestamp | None = None) -> Prices:
        """The prices asked for, checked.

        Args:
            now: the present, to tell prices from the future; the clock's if not given.

        Raises:
            MarketDataError: bad data; the message names file, row, what was expected and the cure.
        """
        now = pd.Timestamp.now() if now is None else pd.Timestamp(now)
        files = list_files(self.path)
        verify_snapshot(Path(self.path))
        symbols = self.symbols or tuple(list_symbols(files))
        bars: dict[str, pd.DataFrame] = {}
        for file in _files_of(files, symbols):
            for symbol, table in read_file(file, symbols, now).items():
                if symbol in bars:
                    raise MarketDataError(
                        f"{file.name}: {symbol!r} is in another file of {self.path} too. Give the path of one file."
                    )
                bars[symbol] = table
        _refuse_missing(symbols, bars, files, self.path)
        where = files[0].name if len(files) == 1 else self.path
        ordered = {symbol: bars[symbol] for symbol in symbols}
        return align_bars(ordered, where, self.start, self.end, self.calendar, self.align)


def list_files(path: str | Path) -> list[Path]:
    """The CSV and Parquet files at `path`, sorted.

    Raises:
        MarketDataError: there is no such path, or it holds no such file.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        near = [] if not path.parent.is_dir() else [p.name for p in path.parent.iterdir()]
        raise MarketDataError(
            f"{path} does not exist; expected a folder of CSV or Parquet files.{did_you_mean(path.name, near)}"
        )
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise MarketDataError(f"{path} holds no .csv or .parquet file; expected one per symbol, or one long file.")
    return files


def read_raw(file: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A file as it stands, its index counting rows as an editor does (the header is row 1).

    Raises:
        MarketDataError: the file cannot be read as what its name says, or has no rows.
    """
    with _naming(file):
        raw = _read_parquet(file, columns) if _is_parquet(file) else _read_csv(file, columns)
    raw.index = range(2, len(raw) + 2)
    raw = raw.dropna(how="all")
    if raw.empty:
        raise MarketDataError(f"{file.name} has a header and no rows. Delete the file or fetch it again.")
    return raw


def _read_parquet(file: Path, columns: list[str] | None) -> pd.DataFrame:
    raw = pd.read_parquet(file, columns=columns)
    if isinstance(raw.index, pd.RangeIndex):
        return raw
    return raw.reset_index().rename(columns={"index": "date"})  # a table whose index is the date


def _read_csv(file: Path, columns: list[str] | None) -> pd.DataFrame:
    """Tickers such as NA and TRUE stay text, and an empty line counts as a row."""
    text = {name: str for name in _header(file) if column_name(name) == "symbol"}
    options = {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""], "skip_blank_lines": False}
    return pd.read_csv(file, usecols=columns, converters=text, low_memory=False, **options)


def _header(file: Path) -> list[str]:
    with _naming(file):
        if _is_parquet(file):
            return list(pyarrow.parquet.read_schema(file).names)
        return list(pd.read_csv(file, nrows=0, encoding="utf-8-sig").columns)


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == ".parquet"


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Any failure to read becomes an error that names the file."""
    try:
        yield
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        if isinstance(error, MarketDataError):
            raise
        expected = f"expected a {file.suffix[1:]} table with a header"
        raise MarketDataError(f"{file.name} cannot be read: {error}; {expected}. Fetch the file again.") from error


def list_symbols(files: Iterable[Path]) -> dict[str, Path]:
    """Symbol → file: from the symbol column where there is one, else the file's name."""
    found: dict[str, Path] = {}
    for file in files:
        column = _symbol_column(file)
        names = [file.stem] if column is None else read_raw(file, columns=[column])[column].astype(str).str.strip().unique()
        for name in filter(None, map(str, names)):
            found.setdefault(name, file)
    return found


def _symbol_column(file: Path) -> str | None:
    return next((name for name in _header(file) if column_name(name) == "symbol"), None)


def _files_of(files: list[Path], symbols: Iterable[str]) -> list[Path]:
    """The files that may hold `symbols`: those named after them, and long ones."""
    symbols = set(symbols)
    return [file for file in files if file.stem in symbols or _symbol_column(file) is not None]


def read_file(file: Path, symbols: Iterable[str], now: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """Checked bars of those of `symbols` that a file holds.

    Raises:
        MarketDataError: bad data in the rows of these symbols.
    """
    raw = read_raw(file)
    bars = normalise_columns(raw, file.name, file.stem)
    bars = bars[bars["symbol"].isin([*symbols, ""])]  # a row without a symbol may belong to any
    check_bars(bars, file.name, now, raw)
    return {str(symbol): table for symbol, table in bars.groupby("symbol", sort=False)}


def _refuse_missing(symbols: Iterable[str], found: Iterable[str], files: list[Path], path: str) -> None:
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing:
        known = list(list_symbols(files))
        shown = ", ".join(known[:40]) + (f" … ({len(known)} in all)" if len(known) > 40 else "")
        raise MarketDataError(f"{path} has no {missing[0]!r}; it has {shown}.{did_you_mean(missing[0], known)}")
