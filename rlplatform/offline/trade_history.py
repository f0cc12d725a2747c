"""Trade history: somebody's weights or trades as target weights of every row of a tape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from envs import ledger
from envs.accounts import TradingTask
from envs.regime import RegimeTask
from envs.terms import FinancingConfig
from rlplatform.data.prices import Prices
from rlplatform.data.request import did_you_mean
from rlplatform.data.schema import parse_dates
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.weight_actions import feasible, nearest_regime

Array = np.ndarray

CAP_TOLERANCE = 1e-3  # weights beyond the caps by less are rounding [fraction of wealth]
REGIME_TOLERANCE = 0.02  # Σ|Δw| by which weights may miss the allocation they stand for
SIZES = ("weight", "quantity", "notional")


@dataclass(frozen=True, kw_only=True, eq=False)
class TradeHistory:
    """Target weights from one row of a tape to another.

    Attributes:
        first, last: rows; the first decision and the last.
        weights: (last − first + 1, N) [fraction of wealth after trading].
        source: the file, for the record.
        kind: "weights" or "trades".
    """

    first: int
    last: int
    weights: Array
    source: str
    kind: str

    def table(self, num_rows: int) -> Array:
        """(T, N) with nothing held outside the history."""
        table = np.zeros((num_rows, self.weights.shape[1]))
        table[self.first : self.last + 1] = self.weights
        return table


def read_history(path: Path, prices: Prices, financing: FinancingConfig, capital: float | None = None) -> TradeHistory:
    """Weights or trades from a CSV or Parquet file.

    | columns | meaning |
    |---|---|
    | date, symbol, weight | target weight at that close; symbols not named on a day with rows are 0 |
    | date, one column a symbol | the same, wide |
    | date, symbol, quantity | shares bought (< 0: sold) at that close; needs `capital` |
    | date, symbol, notional | the same in money |

    On days without a row nothing is traded: the portfolio drifts.

    Args:
        prices: T closes of the N symbols that may appear.
        financing: terms on which untouched weights drift.
        capital: money at the start of trades.

    Raises:
        DatasetError: file unreadable, a symbol or day that the prices do not have, numbers that are not finite.
    """
    path = Path(path)
    table = _table(path)
    size = next((name for name in SIZES if name in table.columns), None)
    if size is not None and "symbol" not in table.columns:
        raise DatasetError(f"{path}: has {size} but no column 'symbol'. Name the symbol in each row.")
    if size is None:
        table, size = _long(path, table, prices), "weight"
    table = table.reset_index(drop=True)
    rows, columns = _rows(path, table, prices), _columns(path, table, prices)
    values = pd.to_numeric(table[size], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _require(np.isfinite(values), path, table, f"{size} is no finite number")
    if size == "weight":
        twice = table.assign(row=rows).duplicated(["row", "symbol"]).to_numpy()
        _require(~twice, path, table, "names a symbol twice on one day")
        weights = _held(rows, columns, values, prices, financing)
        kind = "weights"
    else:
        weights, kind = _traded(path, rows, columns, values, size, prices, capital), "trades"
    return TradeHistory(first=int(rows.min()), last=int(rows.max()), weights=weights, source=path.name, kind=kind)


def check_history(history: TradeHistory, task: TradingTask) -> None:
    """Refuse weights that the environment would not hold.

    Raises:
        DatasetError: beyond the caps, or (MultiAssetRegime) none of the sixteen allocations.
    """
    dates = task.tape.dates[history.first : history.last + 1]
    wanted = history.table(len(task.tape))[history.first : history.last + 1]
    allowed = feasible(task, history.table(len(task.tape)))[history.first : history.last + 1]
    beyond = np.abs(wanted - allowed).max(1)
    if beyond.max() > CAP_TOLERANCE:
        row = int(beyond.argmax())
        caps = task.config.caps
        raise DatasetError(
            f"{history.source}: on {str(dates[row])[:10]} Σ|w| is {np.abs(wanted[row]).sum():.4g}, lowest weight "
            f"{wanted[row].min():.4g}; {task.config.id} allows gross {caps.gross:g}, {caps.per_asset:g} an asset"
            f"{', none below 0' * caps.long_only}. Choose another environment or caps, or correct the weights."
        )
    if isinstance(task, RegimeTask):
        actions, distance = nearest_regime(wanted)
        if distance.max() > REGIME_TOLERANCE:
            row = int(distance.argmax())
            raise DatasetError(
                f"{history.source}: on {str(dates[row])[:10]} the weights {np.round(wanted[row], 4).tolist()} are none of the "
                f"sixteen allocations; the nearest, {task.action_names[actions[row]]}, is Σ|Δw| = {distance[row]:.3g} away. "
                "Use Portfolio-v0 for free weights."
            )


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist. Give a CSV or Parquet file of weights or trades.")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' and arrow's parsers raise kinds of these two
        raise DatasetError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from None
    if "date" not in table.columns and table.index.name is not None:
        table = table.reset_index()
    named = {column: str(column).strip().lower() for column in table.columns}
    known = {"date", "symbol", *SIZES}
    table = table.rename(columns={column: name for column, name in named.items() if name in known})
    if "date" not in table.columns:
        raise DatasetError(f"{path} has no column 'date'; found {', '.join(map(str, table.columns))}.")
    if table.empty:
        raise DatasetError(f"{path} has no rows.")
    return table


def _long(path: Path, table: pd.DataFrame, prices: Prices) -> pd.DataFrame:
    """Wide weights as long ones."""
    symbols = [column for column in table.columns if column != "date"]
    for symbol in symbols:
        if symbol not in prices.symbols and str(symbol).upper() != "CASH":
            raise DatasetError(_unknown(path, symbol, prices))
    return table.drop(columns=[s for s in symbols if s not in prices.symbols]).melt(
        "date", var_name="symbol", value_name="weight"
    )


def _unknown(path: Path, symbol: object, prices: Prices) -> str:
    return (
        f"{path}: {symbol!r} is neither weight, quantity nor notional, nor a symbol of the prices "
        f"({', '.join(prices.symbols[:8])}{', …' * (len(prices.symbols) > 8)}).{did_you_mean(str(symbol), prices.symbols)}"
    )


def _rows(path: Path, table: pd.DataFrame, prices: Prices) -> Array:
    dates = parse_dates(table["date"])
    _require(dates.notna().to_numpy(), path, table, "date cannot be read; expected one such as 2020-01-31")
    days = prices.dates.astype("datetime64[D]")
    wanted = dates.to_numpy().astype("datetime64[D]")
    rows = np.searchsorted(days, wanted)
    known = (rows < len(days)) & (days[np.minimum(rows, len(days) - 1)] == wanted)
    span = f"{days[0]} to {days[-1]}"
    _require(known, path, table, f"is no day of the prices ({span}); they have trading days only. Move or delete it")
    if rows.max() >= len(days) - 1:
        kept = rows < len(days) - 1
        _require(kept, path, table, "is the last day of the prices, so its outcome is not known. Delete it")
    return rows


def _columns(path: Path, table: pd.DataFrame, prices: Prices) -> Array:
    column_of = {symbol: i for i, symbol in enumerate(prices.symbols)}
    names = table["symbol"].astype(str).str.strip()
    for symbol in names.unique():
        if symbol not in column_of:
            raise DatasetError(_unknown(path, symbol, prices))
    return names.map(column_of).to_numpy(dtype=np.int64)


def _require(good: Array, path: Path, table: pd.DataFrame, complaint: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        found = ", ".join(f"{name} {table[name].iloc[row]}" for name in ("date", "symbol") if name in table.columns)
        raise DatasetError(f"{path}: row {row + 2} ({found}) {complaint} ({int((~good).sum())} such row(s)).")


def _held(rows: Array, columns: Array, values: Array, prices: Prices, financing: FinancingConfig) -> Array:
    """Weights given on some days; on the others yesterday's, drifted."""
    first, last = int(rows.min()), int(rows.max())
    weights = np.zeros((last - first + 1, len(prices.symbols)))
    weights[rows - first, columns] = values
    given, gross = np.isin(np.arange(first, last + 1), rows), prices.gross()
    for s in range(1, len(weights)):
        if not given[s]:
            weights[s] = ledger.hold(weights[s - 1], gross[first + s], financing).weights
    return weights


def _traded(path: Path, rows: Array, columns: Array, values: Array, size: str, prices: Prices, capital: float | None) -> Array:
    """Weights of a book that starts with `capital` in cash, trades at closes and pays nothing (our ledger charges later)."""
    if capital is None or not capital > 0:
        raise DatasetError(
            f"{path} lists trades ({size}); weights need the money at the start. Give --capital, such as 100000."
        )
    first, last = int(rows.min()), int(rows.max())
    close = np.asarray(prices.close, dtype=np.float64)[first : last + 1]
    shares = np.zeros_like(close)
    bought = values if size == "quantity" else values / close[rows - first, columns]
    np.add.at(shares, (rows - first, columns), bought)
    cash = capital - np.cumsum((shares * close).sum(1))
    value = np.cumsum(shares, axis=0) * close
    wealth = cash + value.sum(1)
    if wealth.min() <= 0:
        row = int(np.argmax(wealth <= 0))
        day = str(prices.dates[first + row])[:10]
        raise DatasetError(
            f"{path}: with capital {capital:g} the account is worth {wealth[row]:.4g} on {day}. Give the true capital."
        )
    return value / wealth[:, None]
