"""Bars: the long table every file becomes, its schema, and what is wrong with it in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pandera.pandas as pa

from envs.errors import MarketDataError
from rlplatform.data.prices import show_date

COLUMN_NAMES = {
    "date": ("date", "timestamp", "timestamps", "datetime"),
    "symbol": ("symbol", "tic", "ticker"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "adj_close": ("adjclose", "adjustedclose"),
    "volume": ("volume",),
}
PRICE_COLUMNS = ("open", "high", "low", "close", "adj_close")
ROUNDING = 1e-4  # adjusted files round open and low apart; a basis point is not an error

# Kind of failure → (what was expected, the cure). The order is the order of reporting.
RULES = {
    "date": ("every row needs a date such as 2020-03-16", "Correct or delete the row"),
    "symbol": ("every row needs a symbol", "Correct or delete the row"),
    "duplicated": ("a symbol has one row per date", "Delete the repeated row"),
    "unsorted": ("a symbol's dates must increase down the file", "Sort the file by date"),
    "price": ("prices must be finite and > 0", "Fill or drop it first"),
    "volume": ("volumes must be finite and ≥ 0", "Fill or drop it, or delete the volume column"),
    "low_above_high": ("low must not be above high", "Correct the row"),
    "low_not_lowest": ("low must not be above open or close", "Correct the row"),
    "high_not_highest": ("high must not be below open or close", "Correct the row"),
    "future": ("a price cannot be known before its day", "Delete the row or correct its date"),
}


@dataclass(frozen=True)
class Problem:
    """One kind of bad data in one file.

    Attributes:
        kind: a key of `RULES`.
        symbol: of the first bad row.
        row: first bad row as an editor counts it: the header is row 1.
        count: rows with this problem.
        message: where, found, expected, cure.
    """

    kind: str
    symbol: str
    row: int
    count: int
    message: str


def normalise_columns(raw: pd.DataFrame, where: str, symbol: str | None = None) -> pd.DataFrame:
    """The bars of a raw table under the platform's names; other columns are left out.

    Args:
        raw: a table with the field's column names in any case; its index counts rows as an editor does.
        where: file name for messages.
        symbol: name for a file that has no symbol column.

    Returns:
        date (datetime64[ns], wall-clock time of the file; NaT if unreadable), symbol, close and whatever of open, high,
        low, adj_close and volume there is, as float64 (nan if unreadable).

    Raises:
        MarketDataError: date or close (or symbol) is missing, or two columns mean the same.
    """
    named: dict[str, str] = {}
    for column in raw.columns:
        name = column_name(column)
        if name in named:
            raise MarketDataError(f"{where}: columns {named[name]!r} and {column!r} both mean {name}. Delete one of them.")
        if name:
            named[name] = column
    missing = [name for name in ("date", "close") if name not in named] + ["symbol"] * (
        "symbol" not in named and symbol is None
    )
    if missing:
        raise MarketDataError(
            f"{where} has no column {' or '.join(missing)}; found {', '.join(map(str, raw.columns))}; expected "
            f"{' | '.join(COLUMN_NAMES[missing[0]])} in a comma-separated table. Rename the column."
        )
    bars = pd.DataFrame(index=raw.index)
    bars["date"] = parse_dates(raw[named["date"]])
    bars["symbol"] = (
        raw[named["symbol"]].astype(object).where(raw[named["symbol"]].notna(), "") if "symbol" in named else symbol
    )
    bars["symbol"] = bars["symbol"].astype(str).str.strip()
    for name in (*PRICE_COLUMNS, "volume"):
        if name in named:
            bars[name] = pd.to_numeric(raw[named[name]], errors="coerce").astype("float64")
    return bars


def column_name(column: object) -> str | None:
    """The platform's name for a column of a file, or None: 'Adj Close' → 'adj_close', 'tic' → 'symbol'."""
    bare = re.sub(r"[\s_.\-]", "", str(column)).lower()
    return next((name for name, known in COLUMN_NAMES.items() if bare in known), None)


def parse_dates(column: pd.Series) -> pd.Series:
    """Dates as datetime64[ns] without a zone (the file's own wall clock); NaT where unreadable.

    Numbers are 20200316, or seconds or milliseconds since 1970 by their number of digits.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_localize(None).astype("datetime64[ns]")
    if pd.api.types.is_datetime64_dtype(column.dtype):
        return column.astype("datetime64[ns]")
    text = column.astype(str).str.strip()
    for digits, unit in ((10, "s"), (13, "ms")):
        if text.str.fullmatch(rf"\d{{{digits}}}").all() and len(text):
            return pd.to_datetime(pd.to_numeric(text), unit=unit).astype("datetime64[ns]")
    text = text.str.replace(r"(:\d\d(?:\.\d+)?)\s*(?:Z|UTC|[+-]\d\d:?\d\d)$", r"\1", regex=True)
    parsed = pd.to_datetime(text, errors="coerce", format="ISO8601")
    return parsed.astype("datetime64[ns]")


def bars_schema(columns: pd.Index, today: pd.Timestamp) -> pa.DataFrameSchema:
    """Schema of bars in long form, one row per (date, symbol).

    Args:
        columns: the columns present; date, symbol and close always, the others are checked where they are.
        today: no date may lie after this day.
    """
    last = today.normalize() + pd.Timedelta(days=1)

    def each(name: str, good) -> pa.Check:
        return pa.Check(good, name=name, ignore_na=False)

    price = each("price", lambda x: np.isfinite(x) & (x > 0))
    volume = each("volume", lambda x: np.isfinite(x) & (x >= 0))
    date = [each("date", lambda x: x.notna()), each("future", lambda x: ~(x >= last))]
    kinds = {"date": date, "symbol": [each("symbol", lambda x: x != "")], "volume": [volume]}
    rows = [
        each("duplicated", lambda bars: ~(bars.duplicated(["symbol", "date"]) & bars["date"].notna())),
        each("unsorted", lambda bars: ~(bars.groupby("symbol")["date"].diff() < pd.Timedelta(0))),
        *(each(name, good) for name, good in _range_checks(columns).items()),
    ]
    return pa.DataFrameSchema(
        {name: pa.Column(checks=kinds.get(name, [price]), nullable=True) for name in COLUMN_NAMES if name in columns},
        checks=rows,
    )


def _range_checks(columns: pd.Index) -> dict:
    """Checks between open, high, low and close; nan is left to the price check."""
    checks = {}
    inner = [name for name in ("open", "close") if name in columns]
    if "low" in columns and "high" in columns:
        checks["low_above_high"] = lambda bars: ~(bars["low"] > bars["high"] * (1 + ROUNDING))
    if "low" in columns:
        checks["low_not_lowest"] = lambda bars: ~(bars["low"] > bars[inner].min(axis=1) * (1 + ROUNDING))
    if "high" in columns:
        checks["high_not_highest"] = lambda bars: ~(bars["high"] < bars[inner].max(axis=1) * (1 - ROUNDING))
    return checks


def find_problems(bars: pd.DataFrame, where: str, now: pd.Timestamp, raw: pd.DataFrame | None = None) -> list[Problem]:
    """Everything wrong with the bars of one file, one entry per kind and symbol; empty if all is well.

    Args:
        bars: from `normalise_columns`.
        where: file name for messages.
        now: the present, to tell prices from the future.
        raw: the table as read, to show an unreadable cell as it stands in the file.
    """
    try:
        bars_schema(bars.columns, now).validate(bars, lazy=True)
    except pa.errors.SchemaErrors as failure:
        cases = failure.failure_cases[["check", "column", "index"]].copy()
    else:
        return []
    cases["symbol"] = bars.loc[cases["index"].astype(int), "symbol"].to_numpy()
    problems = []
    for (kind, symbol), group in cases.groupby(["check", "symbol"], sort=False):
        first = group.loc[group["index"].astype(int).idxmin()]
        count = group["index"].nunique() if kind != "price" else len(group)
        problems.append(_problem(kind, symbol, int(first["index"]), first["column"], count, bars, where, raw))
    order = list(RULES)
    return sorted(problems, key=lambda problem: (order.index(problem.kind), problem.row))


def _problem(kind: str, symbol: str, row: int, column: str, count: int, bars: pd.DataFrame, where: str, raw) -> Problem:
    expected, cure = RULES[kind]
    cases = f"{count} such {'cell' if kind == 'price' else 'row'}{'s' if count > 1 else ''}"
    found = _found(kind, row, column, bars, raw)
    return Problem(kind, symbol, row, count, f"{where}: row {row}: {found}; {expected} ({cases}). {cure}.")


def _found(kind: str, row: int, column: str, bars: pd.DataFrame, raw: pd.DataFrame | None) -> str:
    """What stands in the first bad row."""
    bar = bars.loc[row]
    cell = f"[{show_date(bar['date'])}, {bar['symbol']!r}]"
    if kind == "duplicated":
        twin = bars.index[(bars["symbol"] == bar["symbol"]) & (bars["date"] == bar["date"])][0]
        return f"{cell} stands in row {twin} already"
    if kind == "unsorted":
        before = bars.loc[: row - 1].query("symbol == @bar.symbol").iloc[-1]
        return f"{bar['symbol']!r} goes back from {show_date(before['date'])} to {show_date(bar['date'])}"
    if kind == "low_above_high":
        return f"low{cell} = {bar['low']:g} is above high = {bar['high']:g}"
    if kind in ("low_not_lowest", "high_not_highest"):
        name = kind.split("_")[0]
        return f"{name}{cell} = {bar[name]:g} is {'above' if name == 'low' else 'below'} {_describe(bar, ('open', 'close'))}"
    if kind == "future":
        return f"the date {show_date(bar['date'])} of {bar['symbol']!r} is in the future"
    value = bar[column]
    if raw is not None and pd.isna(value):
        same = next((name for name in raw.columns if column_name(name) == column), None)
        value = value if same is None or pd.isna(raw.loc[row, same]) else repr(raw.loc[row, same])
    return f"{column} is {value!s}" if kind in ("date", "symbol") else f"{column}{cell} is {value!s}"


def _describe(bar: pd.Series, names: tuple[str, ...]) -> str:
    return " or ".join(f"{name} = {bar[name]:g}" for name in names if name in bar.index)


def check_bars(bars: pd.DataFrame, where: str, now: pd.Timestamp, raw: pd.DataFrame | None = None) -> None:
    """Refuse bad bars.

    Raises:
        MarketDataError: the first kind of problem in the order of `RULES`, and how many others there are.
    """
    problems = find_problems(bars, where, now, raw)
    if problems:
        others = len(problems) - 1
        more = f" ({others} other kind{'s' if others > 1 else ''} of problem: see `rlplatform data check`.)" if others else ""
        raise MarketDataError(problems[0].message + more)
