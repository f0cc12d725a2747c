"""Prices: closes of N symbols at T times, checked once and then read-only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd

from envs.errors import MarketDataError, ShapeError
from rlplatform.data.request import did_you_mean

Array = np.ndarray

PRICE_FIELDS = ("close", "open", "high", "low")
VOLUME_FIELDS = ("volume", "dollar_volume")
VALUE_FIELDS = (*PRICE_FIELDS, *VOLUME_FIELDS)


@dataclass(frozen=True, eq=False, kw_only=True)
class Prices:
    """Total-return prices on common dates. Row t holds what is known at the close of bar t.

    Attributes:
        dates: (T,) datetime64[ns], strictly increasing closes.
        symbols: N names.
        close: (T, N) float64 total-return price: `adj_close` where the source has it, else `close`.
        open, high, low: (T, N) float64 on the same basis as `close`, or None where a symbol lacks them.
        volume: (T, N) float64 as the source gives it [shares or contracts], or None where a symbol lacks it.
        dollar_volume: (T, N) float64 close as quoted, before any adjustment for dividends, × volume [currency], or None. The
            level of `close` depends on later dividends, so `close` × `volume` would peek.
        source: one line: where the prices come from, their basis, and what was left out.
        calendar: exchange calendar the dates were checked against, or None.

    Raises:
        MarketDataError: no rows, dates not increasing, a duplicated symbol, a price not finite and > 0, a volume < 0.
        ShapeError: arrays whose axes disagree.
    """

    dates: Array
    symbols: tuple[str, ...]
    close: Array
    open: Array | None = None
    high: Array | None = None
    low: Array | None = None
    volume: Array | None = None
    dollar_volume: Array | None = None
    source: str = ""
    calendar: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", tuple(self.symbols))
        self._freeze("dates", np.asarray(self.dates).astype("datetime64[ns]"))
        for name in VALUE_FIELDS:
            if getattr(self, name) is not None:
                self._freeze(name, np.asarray(getattr(self, name), dtype=np.float64))
        self._check_axes()
        self._check_dates()
        for name in VALUE_FIELDS:
            self._check_values(name)

    def _freeze(self, name: str, array: Array) -> None:
        array = array.view()
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def _check_axes(self) -> None:
        shape = (len(self.dates), len(self.symbols))
        for name in VALUE_FIELDS:
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ShapeError(f"Prices.{name} has shape {array.shape}; expected (dates, symbols) = {shape}.")
        if 0 in shape:
            raise MarketDataError(f"Prices hold {shape[0]} rows of {shape[1]} symbols; expected at least one of each.")
        repeated = [symbol for symbol in self.symbols if self.symbols.count(symbol) > 1]
        if repeated:
            raise MarketDataError(f"Prices name {repeated[0]!r} {len(repeated)} times; symbols must be unique. Name it once.")

    def _check_dates(self) -> None:
        bad = np.diff(self.dates) <= np.timedelta64(0)
        if np.isnat(self.dates).any() or bad.any():
            row = int(np.argmax(np.isnat(self.dates))) if np.isnat(self.dates).any() else int(np.argmax(bad)) + 1
            raise MarketDataError(
                f"Prices.dates[{row}] = {show_date(self.dates[row])} is not after row {row - 1}; dates must strictly increase. "
                "Sort and deduplicate first."
            )

    def _check_values(self, name: str) -> None:
        array = getattr(self, name)
        if array is None:
            return
        good, rule = (
            (array >= 0, "volumes must be finite and ≥ 0")
            if name in VOLUME_FIELDS
            else (array > 0, "prices must be finite and > 0")
        )
        bad = ~(np.isfinite(array) & good)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            cells = f"{bad.sum()} such cell{'s' if bad.sum() > 1 else ''}"
            raise MarketDataError(
                f"{name}[{show_date(self.dates[row])}, {self.symbols[column]!r}] is {array[row, column]}; {rule} ({cells}). "
                "Fill or drop it first."
            )

    def __len__(self) -> int:
        return len(self.dates)

    def __repr__(self) -> str:
        return f"Prices({len(self)} rows, {show_date(self.dates[0])} to {show_date(self.dates[-1])}, {', '.join(self.symbols)})"

    @property
    def num_assets(self) -> int:
        return len(self.symbols)

    def select(self, symbols: Sequence[str]) -> Prices:
        """The prices of `symbols`, in that order.

        Raises:
            MarketDataError: a symbol is not there; the message says which are.
        """
        columns = []
        for symbol in symbols:
            if symbol not in self.symbols:
                raise MarketDataError(
                    f"Prices hold no {symbol!r}; they hold {', '.join(self.symbols)}.{did_you_mean(symbol, self.symbols)}"
                )
            columns.append(self.symbols.index(symbol))
        cut = {name: getattr(self, name)[:, columns] for name in self._present()}
        return replace(self, symbols=tuple(symbols), **cut)

    def between(self, start: str | None = None, end: str | None = None) -> Prices:
        """The rows at or after `start` and at or before the end of day `end`.

        Raises:
            MarketDataError: no row lies inside.
        """
        inside = rows_between(self.dates, start, end)
        if not inside.any():
            raise MarketDataError(
                f"[{start}, {end}] holds none of the {len(self)} rows from {show_date(self.dates[0])} to "
                f"{show_date(self.dates[-1])}. Choose dates inside."
            )
        cut = {name: getattr(self, name)[inside] for name in self._present()}
        return replace(self, dates=self.dates[inside], **cut)

    def _present(self) -> list[str]:
        return [name for name in VALUE_FIELDS if getattr(self, name) is not None]

    def gross(self) -> Array:
        """(T, N) `P_t / P_{t-1}` with dividends; row 0 is 1."""
        gross = np.ones_like(self.close)
        np.divide(self.close[1:], self.close[:-1], out=gross[1:])
        return gross

    def to_frame(self, name: str = "close") -> pd.DataFrame:
        """One of close, open, high, low, volume, dollar_volume as a frame: dates down, symbols across."""
        array = getattr(self, name)
        if array is None:
            raise MarketDataError(f"Prices hold no {name}; they hold {', '.join(self._present())}.")
        return pd.DataFrame(np.array(array), index=pd.DatetimeIndex(self.dates, name="date"), columns=list(self.symbols))

    @cached_property
    def sha256(self) -> str:
        """Hash of the dates, symbols and every value (not of `source`, nor of `dollar_volume`, which came later); goes into a
        run's manifest."""
        digest = hashlib.sha256("|".join(self.symbols).encode())
        hashed = {"dates", *self._present()} - {"dollar_volume"}
        for name in (f.name for f in fields(self) if f.name in hashed):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()


def rows_between(dates: Array, start: str | None, end: str | None) -> Array:
    """(T,) bool: at or after `start`, at or before the end of day `end`."""
    dates = np.asarray(dates).astype("datetime64[ns]")
    inside = np.ones(len(dates), bool)
    if start is not None:
        inside &= dates >= np.datetime64(str(start), "ns")
    if end is not None:
        inside &= dates < (np.datetime64(str(end), "D") + 1).astype("datetime64[ns]")
    return inside


def show_date(date: object) -> str:
    """2020-03-16, or 2020-03-16 09:31 for a bar inside the day."""
    stamp = pd.Timestamp(date)
    if stamp is pd.NaT:
        return "NaT"
    return str(stamp.date()) if stamp == stamp.normalize() else stamp.strftime("%Y-%m-%d %H:%M")
