"""MarketTape: all that an environment may know of the market, row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from envs.errors import MarketDataError, ShapeError

Array = np.ndarray
OPTIONAL = ("dollar_volume",)  # None where unknown; hashed where given, so that hashes of tapes without it stay
SEGMENTING = ("segment", "start_weight")  # fields that say nothing of a history in its order


@dataclass(frozen=True, eq=False, kw_only=True)
class MarketTape:
    """Market history, checked once and then read-only. Row t holds what is known at the close of bar t.

    Arrays that could still be written to are copied.

    Attributes:
        dates: (T,) datetime64, strictly increasing closes.
        symbols: N names.
        gross: (T, N) float64, `P_t / P_{t-1}` with dividends; row 0 is the return into the first close (1 if unknown).
        features: (T, N, F) float32, known at the close of t.
        feature_names: F names.
        context: (T, C) float32, market-wide columns known at the close of t.
        context_names: C names, for instance "vix".
        forecast_cvar: (T, N) predicted loss in the worst 5 % of next bars [fraction of price, ≥ 0].
        forecast_uncertainty: (T, N) predicted width of the next bar's return, q90 − q10 [fraction of price, ≥ 0].
        half_spread_bps: (T, N) half the quoted spread, added to `CostConfig.proportional_bps` [bp of traded value].
        impact_scale: (T, N) multiplies `CostConfig.impact`, for instance volatility / sqrt(daily value traded).
        session_end: (T,) bool, the last bar of its trading day; always true for daily bars.
        dollar_volume: (T, N) value traded in bar t [currency of the prices], for `constraints.liquidity`; None if unknown.
        segment: (T,) int64, never falling; the piece of history that a row belongs to. No episode and no trailing window
            crosses from one to the next. All 0 for one market's history in its order.
        start_weight: (T,) ≥ 0, how often an episode begins at the row, relative to other rows; 0 for never.

    Raises:
        MarketDataError: dates not increasing, a symbol twice, a return that is not finite and > 0, a feature that is not
            finite, a cost input, forecast or volume below zero.
        ShapeError: arrays whose axes disagree.
    """

    dates: Array
    symbols: tuple[str, ...]
    gross: Array
    features: Array | None = None
    feature_names: tuple[str, ...] = ()
    context: Array | None = None
    context_names: tuple[str, ...] = ()
    forecast_cvar: Array | None = None
    forecast_uncertainty: Array | None = None
    half_spread_bps: Array | None = None
    impact_scale: Array | None = None
    session_end: Array | None = field(default=None)
    dollar_volume: Array | None = None
    segment: Array | None = None
    start_weight: Array | None = None

    def __post_init__(self) -> None:
        dates = np.asarray(self.dates).astype("datetime64[ns]")
        gross = np.asarray(self.gross, dtype=np.float64)
        if gross.ndim != 2:
            raise ShapeError(f"MarketTape.gross has shape {gross.shape}; expected (T, N).")
        t, n = gross.shape
        days = dates.astype("datetime64[D]")
        defaults = {
            "features": np.zeros((t, n, 0)),
            "context": np.zeros((t, 0)),
            "forecast_cvar": np.zeros((t, n)),
            "forecast_uncertainty": np.zeros((t, n)),
            "half_spread_bps": np.zeros((t, n)),
            "impact_scale": np.ones((t, n)),
            "session_end": np.append(days[1:] != days[:-1], True) if t else np.zeros(0, bool),
            "segment": np.zeros(t, np.int64),
            "start_weight": np.ones(t),
        }
        arrays = {"dates": dates, "gross": gross}
        for name, default in defaults.items():
            given = getattr(self, name)
            arrays[name] = np.asarray(default if given is None else given)
        for name in ("features", "context"):
            arrays[name] = arrays[name].astype(np.float32, copy=False)
        expected = {name: default.shape for name, default in defaults.items()} | {"dates": (t,)}
        if self.dollar_volume is not None:
            arrays["dollar_volume"] = np.asarray(self.dollar_volume, dtype=np.float64)
            expected["dollar_volume"] = (t, n)
        expected["features"] = (t, n, len(self.feature_names))
        expected["context"] = (t, len(self.context_names))
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                raise ShapeError(f"MarketTape.{name} has shape {arrays[name].shape}; expected {shape}.")
        object.__setattr__(self, "symbols", tuple(self.symbols))
        if len(self.symbols) != n:
            raise ShapeError(f"MarketTape.symbols names {len(self.symbols)} assets; gross has {n} columns.")
        for name, array in arrays.items():
            array = array.copy() if array.flags.writeable else array
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        self._check_values()

    def _check_values(self) -> None:
        if len(self.dates) < 2:
            raise MarketDataError(f"MarketTape has {len(self.dates)} rows; a decision and its outcome need at least 2.")
        twice = [symbol for symbol in self.symbols if self.symbols.count(symbol) > 1]
        if twice:
            raise MarketDataError(f"MarketTape.symbols names {twice[0]!r} {len(twice)} times; each asset may appear once.")
        if np.isnat(self.dates).any():
            row = int(np.argmax(np.isnat(self.dates)))
            raise MarketDataError(f"MarketTape.dates[{row}] is missing (NaT); every row needs its close. Drop the row.")
        steps = np.diff(self.dates)
        if np.any(steps <= np.timedelta64(0)):
            row = int(np.argmax(steps <= np.timedelta64(0))) + 1
            raise MarketDataError(
                f"MarketTape.dates[{row}] = {self.dates[row]} is not after row {row - 1}. Sort and deduplicate first."
            )
        if np.any(np.diff(self.segment) < 0) or not (np.isfinite(self.start_weight) & (self.start_weight >= 0)).all():
            raise MarketDataError(
                "MarketTape.segment falls or start_weight is below 0; segments follow each other, weights are finite and ≥ 0."
            )
        bad = ~(np.isfinite(self.gross) & (self.gross > 0))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            where = f"gross[{str(self.dates[row])[:10]}, {self.symbols[column]!r}]"
            raise MarketDataError(
                f"{where} is {self.gross[row, column]}; gross returns must be finite and > 0 ({bad.sum()} such cell(s)). "
                "Fill or drop first."
            )
        given = () if self.dollar_volume is None else ("dollar_volume",)
        per_asset = ("forecast_cvar", "forecast_uncertainty", "half_spread_bps", "impact_scale", *given)
        for name in ("features", "context", *per_asset):
            finite = np.isfinite(getattr(self, name))
            if not finite.all():
                row = int(np.argwhere(~finite)[0][0])
                raise MarketDataError(
                    f"MarketTape.{name} is not finite at {str(self.dates[row])[:10]} ({(~finite).sum()} such cell(s)). "
                    "Start the tape after the features' warm-up."
                )

        for name in per_asset:
            below = getattr(self, name) < 0
            if below.any():
                row, column = np.argwhere(below)[0]
                raise MarketDataError(
                    f"{name}[{str(self.dates[row])[:10]}, {self.symbols[column]!r}] is {getattr(self, name)[row, column]}; "
                    f"expected ≥ 0 ({below.sum()} such cell(s)). Clip at 0 first."
                )

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def num_assets(self) -> int:
        return len(self.symbols)

    def row_range(self, start: str | None = None, end: str | None = None) -> tuple[int, int]:
        """First row at or after `start` and last row at or before the end of day `end` (both included).

        Raises:
            MarketDataError: not a date, or fewer than two rows lie inside.
        """
        first = 0 if start is None else int(np.searchsorted(self.dates, _date(start, "ns"), "left"))
        last = len(self) - 1
        if end is not None:
            day_after = _date(end, "D") + 1
            last = int(np.searchsorted(self.dates, day_after.astype("datetime64[ns]"), "left")) - 1
        if last - first < 1:
            raise MarketDataError(
                f"[{start}, {end}] holds {max(0, last - first + 1)} of the tape's rows "
                f"({str(self.dates[0])[:10]} to {str(self.dates[-1])[:10]}); at least 2 are needed. Choose dates inside."
            )
        return first, last

    def rows(self, first: int, last: int) -> MarketTape:
        """The tape of rows first … last (both included): nothing outside them can be seen any more."""
        per_row = {f.name for f in fields(self)} - {"symbols", "feature_names", "context_names"}
        cut = {name: getattr(self, name)[first : last + 1] for name in per_row if getattr(self, name) is not None}
        return MarketTape(symbols=self.symbols, feature_names=self.feature_names, context_names=self.context_names, **cut)

    def between(self, start: str | None = None, end: str | None = None) -> MarketTape:
        """The tape of the rows inside [start, end]."""
        return self.rows(*self.row_range(start, end))

    @cached_property
    def sha256(self) -> str:
        """Hash of every value in the tape; goes into a run's manifest."""
        unknown = tuple(name for name in OPTIONAL if getattr(self, name) is None)
        return content_sha256(self, unknown + (() if self.in_segments else SEGMENTING))

    @cached_property
    def in_segments(self) -> bool:
        """Whether rows are of several histories, or begin episodes more or less often than others."""
        return bool(self.segment[-1] > self.segment[0] or (self.start_weight != 1).any())

    def pieces(self) -> list[MarketTape]:
        """A tape for each segment, so that no trailing window looks back into another history."""
        cuts = [0, *(np.flatnonzero(np.diff(self.segment)) + 1), len(self)]
        return [self] if len(cuts) == 2 else [self.rows(first, after - 1) for first, after in pairwise(cuts)]

    @classmethod
    def joined(cls, tapes: Sequence[MarketTape]) -> MarketTape:
        """One after the other, each a segment of its own; dates must go on rising.

        Raises:
            ShapeError: other symbols, features or context.
        """
        named = ("symbols", "feature_names", "context_names")
        for tape in tapes:
            if any(getattr(tape, name) != getattr(tapes[0], name) for name in named):
                raise ShapeError(f"MarketTape.joined: tapes differ in one of {', '.join(named)}; they must have the same.")
        unknown = [name for name in OPTIONAL if any(getattr(tape, name) is None for tape in tapes)]
        stacked = [f.name for f in fields(cls) if f.name not in (*named, *unknown)]
        arrays = {name: np.concatenate([getattr(tape, name) for tape in tapes]) for name in stacked}
        arrays["segment"] = np.repeat(np.arange(len(tapes)), [len(tape) for tape in tapes])
        return cls(**arrays, **{name: getattr(tapes[0], name) for name in named})


def content_sha256(record: Any, without: Sequence[str] = ()) -> str:
    """Hash of every field of a dataclass, arrays by their bytes."""
    digest = hashlib.sha256()
    for f in fields(record):
        if f.name in without:
            continue
        value = getattr(record, f.name)
        digest.update(f.name.encode())
        digest.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def _date(text: str, unit: str) -> np.datetime64:
    try:
        return np.datetime64(str(text), unit)
    except ValueError:
        raise MarketDataError(f"{text!r} is not a date; write it as 2020-01-31.") from None
