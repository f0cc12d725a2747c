"""Target weights of another system, one row a day, from a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from envs import ledger
from envs.errors import ConfigError
from envs.tape import MarketTape
from envs.terms import CapsConfig
from rlplatform.data.request import did_you_mean
from rlplatform.evaluation.backtest import gross_caps

Array = np.ndarray
DATE = "date"
NEAR = 1e-6  # how far weights may lie outside the caps: a few decimals in a file


def read_weights(path: Path, tape: MarketTape, caps: CapsConfig) -> Array:
    """(T, N) weights for every close of a tape; the last row, which is never traded, repeats the one before.

    The file has a column `date` (a trading day, any order) and one for each symbol that is ever held: the fraction of wealth
    to hold from that close on, decided with what was known then. What is not in a symbol is cash. Days outside the tape are
    ignored.

    Raises:
        ConfigError: unreadable, a symbol that the tape lacks, a day twice, a trading day without a row, a row on no trading
            day, a weight that is no number, or weights outside the caps; names file, day and column.
    """
    where = Path(path).name
    table = _table(Path(path), where)
    days = _days(table, where)
    columns = [name for name in table.columns if name != DATE]
    _check_symbols(columns, tape.symbols, where)
    wanted = tape.dates.astype("datetime64[D]")
    _check_days(days, wanted, where)
    rows = {day: row for row, day in enumerate(days)}
    order = [rows[day] for day in wanted[:-1]]
    values = np.column_stack([_numbers(table, name, days, where)[order] for name in columns])
    weights = np.zeros(tape.gross.shape)
    weights[:-1, [tape.symbols.index(name) for name in columns]] = values
    _check_caps(weights[:-1], tape, caps, where)
    weights[-1] = weights[-2]
    return weights


def _table(path: Path, where: str) -> pd.DataFrame:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist. Give a CSV file with a column date and one for each symbol.")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read as CSV: {error}. Expected a column date and one for each symbol.") from None
    table.columns = [str(name).strip() for name in table.columns]
    if DATE not in table.columns or len(table.columns) < 2:
        raise ConfigError(f"{where} has the columns {', '.join(table.columns)}; expected date and one for each symbol.")
    return table


def _days(table: pd.DataFrame, where: str) -> Array:
    parsed = pd.to_datetime(table[DATE], format="%Y-%m-%d", errors="coerce")
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy().argmax())
        raise ConfigError(f"{where}: line {row + 2}: date is {table[DATE].iloc[row]!r}; write it as 2020-01-31.")
    if parsed.duplicated().any():
        raise ConfigError(f"{where}: {parsed[parsed.duplicated()].iloc[0].date()} stands there twice. Keep one row a day.")
    return parsed.to_numpy().astype("datetime64[D]")


def _check_symbols(columns: Sequence[str], known: Sequence[str], where: str) -> None:
    for name in columns:
        if name not in known:
            cure = " Cash is what the others leave: drop the column." if name.upper() == "CASH" else did_you_mean(name, known)
            raise ConfigError(f"{where}: unknown symbol {name}; the prices hold {', '.join(known)}.{cure}")


def _check_days(days: Array, wanted: Array, where: str) -> None:
    missing = wanted[:-1][~np.isin(wanted[:-1], days)]
    if len(missing):
        raise ConfigError(
            f"{where} has no weights for {missing[0]} ({len(missing)} of {len(wanted) - 1} decisions from {wanted[0]} to "
            f"{wanted[-2]} missing). Write a row for every trading day, also where nothing changes, or shorten `period`."
        )
    inside = days[(days >= wanted[0]) & (days <= wanted[-1])]
    strange = inside[~np.isin(inside, wanted)]
    if len(strange):
        raise ConfigError(
            f"{where}: {strange.min()} is no trading day of the prices ({len(strange)} such rows). Date each row by the close "
            "at which it was decided."
        )


def _numbers(table: pd.DataFrame, name: str, days: Array, where: str) -> Array:
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        raise ConfigError(
            f"{where}: {name} on {days[row]} is {table[name].iloc[row]!r}; expected a fraction of wealth (0 for none)."
        )
    return values


def _check_caps(weights: Array, tape: MarketTape, caps: CapsConfig, where: str) -> None:
    limits = gross_caps(tape, caps)[:-1]
    apart = np.abs(ledger.project(weights, caps, limits) - weights).max(1)
    if apart.max() <= NEAR:
        return
    row = int((apart > NEAR).argmax())
    held = ", ".join(f"{s} {w:g}" for s, w in zip(tape.symbols, weights[row], strict=True) if w)
    allowed = "long only, " if caps.long_only else ""
    raise ConfigError(
        f"{where}: {str(tape.dates[row])[:10]} holds {held}, outside the caps ({allowed}gross ≤ {limits[row]:g}, net ≤ "
        f"{caps.net:g}, each ≤ {caps.per_asset:g}; {int((apart > NEAR).sum())} such days). Weights are fractions of wealth, "
        "half of it is 0.5; widen `caps` if the system may hold that."
    )
