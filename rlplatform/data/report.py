"""What `rlplatform data check` finds in a folder: every problem, not the first only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from envs.errors import MarketDataError
from rlplatform.data.calendar import check_calendar, check_sessions, list_dates
from rlplatform.data.folder import list_files, read_raw
from rlplatform.data.prices import show_date
from rlplatform.data.schema import find_problems, normalise_columns
from rlplatform.data.snapshot import verify_snapshot


@dataclass(frozen=True, kw_only=True)
class SymbolReport:
    """One symbol of a folder.

    Attributes:
        symbol, file: name, and the file it stands in.
        rows: number of bars.
        first, last: dates of the first and last bar.
        basis: "total return" where adj_close exists, else "close as given".
        problems: what is wrong, each with row and cure; empty if all is well.
    """

    symbol: str
    file: str
    rows: int
    first: str
    last: str
    basis: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """Every symbol of a folder, and what is wrong with the folder itself.

    Attributes:
        path: the folder or file.
        calendar: exchange calendar the dates were held against, or None.
        symbols: one report per symbol and file.
        problems: files that cannot be read, symbols in two files, changed snapshots.
    """

    path: str
    calendar: str | None
    symbols: tuple[SymbolReport, ...]
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No problem anywhere."""
        return not self.problems and not any(report.problems for report in self.symbols)


def check_folder(path: str | Path, calendar: str | None = "XNYS", now: pd.Timestamp | None = None) -> FolderReport:
    """Hold every file at `path` against schema and calendar, and collect all problems.

    Args:
        path: a folder of CSV or Parquet files, or one such file.
        calendar: exchange calendar; None for markets that trade every day.
        now: the present, to tell prices from the future; the clock's if not given.

    Raises:
        ConfigError: the calendar is not known.
        MarketDataError: there is nothing to check at `path`.
    """
    check_calendar("calendar", calendar)
    now = pd.Timestamp.now() if now is None else pd.Timestamp(now)
    reports: list[SymbolReport] = []
    problems: list[str] = []
    files = list_files(path)
    try:
        verify_snapshot(Path(path))
    except MarketDataError as error:
        problems.append(str(error))
    for file in files:
        try:
            reports.extend(_check_file(file, calendar, now))
        except MarketDataError as error:
            problems.append(str(error))
    problems.extend(_repeated(reports))
    return FolderReport(path=str(path), calendar=calendar, symbols=tuple(reports), problems=tuple(problems))


def _check_file(file: Path, calendar: str | None, now: pd.Timestamp) -> list[SymbolReport]:
    raw = read_raw(file)
    bars = normalise_columns(raw, file.name, file.stem)
    found: dict[str, list[str]] = {}
    for problem in find_problems(bars, file.name, now, raw):
        found.setdefault(problem.symbol, []).append(problem.message)
    reports = []
    for symbol, table in bars.groupby("symbol", sort=False):
        dates = table["date"].dropna().sort_values().to_numpy()
        gaps = _check_calendar_days(file.name, str(symbol), dates, calendar)
        reports.append(
            SymbolReport(
                symbol=str(symbol),
                file=file.name,
                rows=len(table),
                first=show_date(dates[0]) if len(dates) else "",
                last=show_date(dates[-1]) if len(dates) else "",
                basis="total return" if "adj_close" in table else "close as given",
                problems=(*found.get(symbol, []), *gaps),
            )
        )
    return reports


def _check_calendar_days(where: str, symbol: str, dates, calendar: str | None) -> list[str]:
    if calendar is None or not len(dates):
        return []
    check = check_sessions(dates, calendar)
    gaps = []
    if len(check.missing):
        gaps.append(f"{where}: {symbol!r} has no row for {list_dates(check.missing)}, session(s) of {calendar}. Add the rows.")
    if len(check.extra):
        cure = "Delete the rows, or set calendar: null for a market that trades every day."
        gaps.append(f"{where}: {symbol!r} has rows on {list_dates(check.extra)}; not a session of {calendar}. {cure}")
    return gaps


def _repeated(reports: list[SymbolReport]) -> list[str]:
    files: dict[str, list[str]] = {}
    for report in reports:
        files.setdefault(report.symbol, []).append(report.file)
    shared: dict[tuple[str, ...], list[str]] = {}
    for symbol, names in files.items():
        if len(names) > 1:
            shared.setdefault(tuple(names), []).append(symbol)
    cure = "Load one of the files by its path, or delete one."
    return [f"{', '.join(symbols)}: in {' and '.join(names)} alike. {cure}" for names, symbols in shared.items()]
