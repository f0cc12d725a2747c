"""Alignment: several symbols' bars on common dates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from envs.errors import MarketDataError
from rlplatform.data.calendar import check_sessions, list_dates, sessions
from rlplatform.data.prices import Prices, rows_between, show_date

Align = Literal["strict", "intersection"]
ALIGNMENTS = ("strict", "intersection")

Bars = Mapping[str, pd.DataFrame]  # symbol → checked bars of one symbol, sorted by date


def align_bars(
    bars: Bars,
    where: str,
    start: str | None = None,
    end: str | None = None,
    calendar: str | None = "XNYS",
    align: Align = "strict",
) -> Prices:
    """Bars of several symbols as `Prices`. Nothing is ever filled.

    "strict" refuses a symbol that lacks a date which others have, or a session, or has a row on a day that is no session.
    Without `start` the prices begin where the youngest symbol does; with it, a symbol that begins later than another is
    refused too, because a late listing would silently cut everyone's history. The same holds for `end`.
    "intersection" keeps the dates that every symbol has (and that are sessions); a return across a date left out spans both
    bars. What was left out is counted in `source`.

    Raises:
        MarketDataError: no symbol has rows inside [start, end], spans do not overlap, or a gap in strict alignment.
    """
    cut = {symbol: _inside(table, symbol, where, start, end) for symbol, table in bars.items()}
    dates = {symbol: table["date"].to_numpy() for symbol, table in cut.items()}
    first, last = _common_span(dates, where)
    if align == "strict":
        _refuse_calendar_gaps(dates, where, calendar)
        _refuse_uneven(dates, where, first if start is None else None, last if end is None else None)
    common = _common_dates(dates, calendar, where)
    left_out = _left_out(dates, common, first, last, calendar)
    columns = {name: _stack(cut, common, name) for name in ("close", "open", "high", "low", "volume", "dollar_volume")}
    youngest = max(dates, key=lambda symbol: dates[symbol][0])
    late = f", begins with {youngest}" if len({d[0] for d in dates.values()}) > 1 else ""
    source = f"{where}: {basis(cut)}{late}{left_out}"
    return Prices(dates=common, symbols=tuple(cut), source=source, calendar=calendar, **columns)


def basis(bars: Bars) -> str:
    """'total return', 'price only (no adj_close)', or which symbols are which."""
    price_only = [symbol for symbol, table in bars.items() if "adj_close" not in table]
    if not price_only:
        return "total return (adj_close)"
    if len(price_only) == len(bars):
        return "close as given (no adj_close)"
    return f"total return (adj_close), but close as given for {', '.join(price_only)}"


def _inside(table: pd.DataFrame, symbol: str, where: str, start: str | None, end: str | None) -> pd.DataFrame:
    cut = table[rows_between(table["date"].to_numpy(), start, end)]
    if cut.empty:
        span = f"{show_date(table['date'].iloc[0])} to {show_date(table['date'].iloc[-1])}" if len(table) else "none at all"
        raise MarketDataError(
            f"{where}: {symbol!r} has no row inside [{start}, {end}]; it has {len(table)} rows, {span}. Choose dates inside."
        )
    return cut


def _common_span(dates: Mapping[str, np.ndarray], where: str) -> tuple[np.datetime64, np.datetime64]:
    youngest = max(dates, key=lambda symbol: dates[symbol][0])
    oldest = min(dates, key=lambda symbol: dates[symbol][-1])
    first, last = dates[youngest][0], dates[oldest][-1]
    if first > last:
        raise MarketDataError(
            f"{where}: {oldest!r} ends {show_date(last)}, before {youngest!r} begins {show_date(first)}; "
            "symbols must overlap in time. Leave one of them out."
        )
    return first, last


def _refuse_calendar_gaps(dates: Mapping[str, np.ndarray], where: str, calendar: str | None) -> None:
    """Every row is on a session, and every session inside a symbol's span has a row."""
    if calendar is None:
        return
    checks = {symbol: check_sessions(days, calendar) for symbol, days in dates.items()}
    for symbol, check in checks.items():
        if len(check.extra):
            raise MarketDataError(
                f"{where}: {symbol!r} has rows on {list_dates(check.extra)}; not a session of {calendar}. Delete the rows, set "
                "calendar: null for a market that trades every day, or align: intersection to leave those days out."
            )
    gaps = {symbol: check.missing for symbol, check in checks.items() if len(check.missing)}
    if gaps:
        symbol, missing = next(iter(gaps.items()))
        others = "".join(f"; {other!r} lacks {list_dates(days, most=2)}" for other, days in list(gaps.items())[1:4])
        raise MarketDataError(
            f"{where}: {symbol!r} has no row for {list_dates(missing)}, {_sessions(missing)} of {calendar}{others}. "
            "Add the rows, choose other dates, or set align: intersection to leave those days out for every symbol."
        )


def _sessions(days: np.ndarray) -> str:
    return "a session" if len(days) == 1 else f"{len(days)} sessions"


def _refuse_uneven(
    dates: Mapping[str, np.ndarray], where: str, first: np.datetime64 | None, last: np.datetime64 | None
) -> None:
    """Every symbol has every date that another has between `first` and `last` (unbounded if None)."""
    union = np.unique(np.concatenate(list(dates.values())))
    union = union[(union >= (union[0] if first is None else first)) & (union <= (union[-1] if last is None else last))]
    for symbol, days in dates.items():
        lacking = np.setdiff1d(union, days)
        if not len(lacking):
            continue
        if days[0] > union[0] or days[-1] < union[-1]:
            found = f"{symbol!r} has rows from {show_date(days[0])} to {show_date(days[-1])} only; the others {_span(union)}"
            raise MarketDataError(
                f"{where}: {found}. Choose start and end inside, leave {symbol} out, or set align: intersection."
            )
        raise MarketDataError(
            f"{where}: {symbol!r} has no row for {list_dates(lacking)}, which others have. "
            "Add the rows, or set align: intersection to leave those dates out for every symbol."
        )


def _span(dates: np.ndarray) -> str:
    return f"from {show_date(dates[0])} to {show_date(dates[-1])}"


def _common_dates(dates: Mapping[str, np.ndarray], calendar: str | None, where: str) -> np.ndarray:
    arrays = list(dates.values())
    common = arrays[0]
    for days in arrays[1:]:
        common = np.intersect1d(common, days, assume_unique=True)
    if calendar is not None and len(common):
        days = common.astype("datetime64[D]")
        common = common[np.isin(days, sessions(calendar, days[0], days[-1]))]
    if not len(common):
        raise MarketDataError(f"{where}: {', '.join(dates)} share no date. Leave one of them out, or correct the dates.")
    return common


def _left_out(
    dates: Mapping[str, np.ndarray], common: np.ndarray, first: np.datetime64, last: np.datetime64, calendar: str | None
) -> str:
    """What the common dates lack inside the common span: dates of some symbols, and sessions that none has."""
    union = np.unique(np.concatenate(list(dates.values())))
    dropped = np.setdiff1d(union[(union >= first) & (union <= last)], common)
    if calendar is not None:
        dropped = np.union1d(dropped, check_sessions(common, calendar).missing.astype(dropped.dtype))
    return f", {list_dates(dropped, most=3)} left out by intersection" if len(dropped) else ""


def _stack(bars: Bars, common: np.ndarray, name: str) -> np.ndarray | None:
    """(T, N) of one column on the total-return basis, or None where a symbol lacks it."""
    if any(("volume" if name == "dollar_volume" else name) not in table for table in bars.values()):
        return None
    return np.column_stack([_column(table[np.isin(table["date"].to_numpy(), common)], name) for table in bars.values()])


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    if name == "dollar_volume":
        return table["close"].to_numpy(dtype=np.float64) * table["volume"].to_numpy(dtype=np.float64)
    values = table[name].to_numpy(dtype=np.float64)
    if name == "volume" or "adj_close" not in table:
        return values
    adjusted = table["adj_close"].to_numpy(dtype=np.float64)
    return adjusted if name == "close" else values * (adjusted / table["close"].to_numpy(dtype=np.float64))
