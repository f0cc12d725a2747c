"""Look-ahead checker: nothing known at the close of t may move when prices after t change, or what is published after t."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from envs.errors import ConfigError, PlatformError
from envs.tape import MarketTape
from rlplatform.features.context.publication import bar_closes
from rlplatform.features.context.series import Series
from rlplatform.features.cube import FeatureCube

Array = np.ndarray

PRICE_FIELDS = ("close", "open", "high", "low")
SHOCK = 0.5  # standard deviation of the log of the factors that later prices are multiplied by
LEVEL = 1.0  # the same of each asset's one factor for all later prices, so that the order of the assets changes too


REVISED = 10  # values of each series, the last ones known at the cut, that are published anew after it


@dataclass(frozen=True, eq=False, kw_only=True)
class PricesAndSeries:
    """A market and the series beside it, for `build` functions that read both.

    Attributes:
        prices: a `Prices`.
        series: by name, every vintage.
    """

    prices: Any
    series: Mapping[str, Series]

    def __len__(self) -> int:
        return len(self.prices)


class LookaheadError(PlatformError):
    """A value that changes with prices from its own future, or a check that cannot see one."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """The first value that moved though it must not.

    Attributes:
        feature: its name.
        symbol: its asset; "market" for a market-wide column.
        row: where it stands, ≤ changed_after.
        changed_after: the last row whose prices were left alone.
        before, after: the value with the true and the changed future.
    """

    feature: str
    symbol: str
    row: int
    changed_after: int
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"{self.feature}[row {self.row}, {self.symbol!r}] moves from {self.before:.6g} to {self.after:.6g} when prices "
            f"after row {self.changed_after} change; row t may use rows ≤ t only. Look for a centred window, a negative "
            "shift or a statistic of the whole sample."
        )


def find_leak(
    build: Callable[[Any], Any], market: Any, rows: Iterable[int], rng: np.random.Generator, tolerance: float = 1e-12
) -> Leak | None:
    """For each row t: multiply all prices after t by random factors, build again, compare rows ≤ t.

    Args:
        build: market → FeatureCube, MarketTape, array with leading axis T, or a mapping of names to such arrays.
        market: a `Prices`, a `PricesAndSeries`, or an array (T,) or (T, N) of prices or gross returns.
        rows: where to cut, each in [0, T − 2]; a leak of k rows is seen from cuts within k rows of any value.
        rng: draws the factors.
        tolerance: relative to 1 + |value|; code without look-ahead usually moves by not one bit.

    Returns:
        The leak with the earliest row at the first cut that shows one; None if there is none.

    Raises:
        LookaheadError: no later value moved either, so that the check shows nothing: `build` ignores its argument.
        ConfigError: no rows, or one outside [0, T − 2].
    """
    rows = _checked_rows(rows, len(market))
    true, symbols = _named_arrays(build(market))
    seen = False
    for t in rows:
        changed, _ = _named_arrays(build(with_changed_future(market, t, rng)))
        if changed.keys() != true.keys():
            odd = sorted(changed.keys() ^ true.keys())
            raise LookaheadError(f"build returns other columns when prices after row {t} change: {', '.join(odd)}.")
        moved = {name: _moved(values, changed[name], tolerance) for name, values in true.items()}
        early = {name: cells[: t + 1] for name, cells in moved.items() if cells[: t + 1].any()}
        if early:
            name, cell = _earliest(early)
            return Leak(
                feature=name,
                symbol=_symbol(symbols, cell),
                row=int(cell[0]),
                changed_after=t,
                before=float(true[name][cell]),
                after=float(changed[name][cell]),
            )
        seen = seen or any(cells.any() for cells in moved.values())
    if not seen:
        raise LookaheadError(
            "nothing at all moved when later prices changed, so nothing is shown: does build use its argument?"
        )
    return None


def first_leak(true: Mapping[str, Array], changed: Mapping[str, Array], tolerance: float = 1e-12) -> tuple[str, tuple] | None:
    """Name and cell (row first) of the earliest value in which two mappings of columns differ; None if there is none."""
    moved = {name: _moved(np.asarray(values), np.asarray(changed[name]), tolerance) for name, values in true.items()}
    return _earliest({name: cells for name, cells in moved.items() if cells.any()})


def _earliest(moved: Mapping[str, Array]) -> tuple[str, tuple] | None:
    if not moved:
        return None
    name = min(moved, key=lambda n: np.argwhere(moved[n])[0][0])
    return name, tuple(int(i) for i in np.argwhere(moved[name])[0])


def tape_columns(tape: MarketTape) -> dict[str, Array]:
    """Every value of a tape by column name, (T,) or (T, N)."""
    return _named_arrays(tape)[0]


def assert_causal(
    build: Callable[[Any], Any], market: Any, rows: Iterable[int], rng: np.random.Generator, tolerance: float = 1e-12
) -> None:
    """Raise LookaheadError that names feature, symbol and row if `find_leak` finds one. Arguments: see there."""
    leak = find_leak(build, market, rows, rng, tolerance)
    if leak is not None:
        raise LookaheadError(str(leak))


def with_changed_future(market: Any, t: int, rng: np.random.Generator) -> Any:
    """The market with every price (and volume) after row t multiplied by a lognormal factor; rows ≤ t are untouched.

    One factor for open, high, low and close of a bar, so that low ≤ close ≤ high still holds; another one for volume.
    """
    if isinstance(market, np.ndarray):
        return _shocked(market, t, rng.lognormal(0.0, SHOCK, market[t + 1 :].shape))
    if isinstance(market, PricesAndSeries):
        known_until = bar_closes(market.prices)[t]
        series = {name: with_changed_news(each, known_until, rng) for name, each in market.series.items()}
        return PricesAndSeries(prices=with_changed_future(market.prices, t, rng), series=series)
    if not is_dataclass(market):
        raise ConfigError(f"with_changed_future: expected Prices or an array, found {type(market).__name__}.")
    later, assets = market.close[t + 1 :].shape
    price_factors, volume_factors = (rng.lognormal(0.0, SHOCK, (later, assets)) for _ in range(2))
    price_factors = price_factors * rng.lognormal(0.0, LEVEL, assets)
    factors = dict.fromkeys(PRICE_FIELDS, price_factors) | dict.fromkeys(("volume", "dollar_volume"), volume_factors)
    present = [f.name for f in fields(market) if f.name in factors and getattr(market, f.name) is not None]
    return replace(market, **{name: _shocked(getattr(market, name), t, factors[name]) for name in present})


def with_changed_news(series: Series, known_until: np.datetime64, rng: np.random.Generator) -> Series:
    """The series with every value published after an instant changed, and revisions published after it of values known then.

    Values are multiplied by lognormal factors; of a value of 0 the factor less 1 is taken.
    """
    later = series.published > known_until
    known = np.flatnonzero(~later)
    revised = known[np.argsort(series.days[known], kind="stable")][-REVISED:]
    factors = rng.lognormal(0.0, SHOCK, len(series) + len(revised))
    values = np.concatenate([series.values, series.values[revised]])
    changed = np.where(values == 0, factors - 1.0, values * factors)
    return replace(
        series,
        days=np.concatenate([series.days, series.days[revised]]),
        values=np.where(np.concatenate([later, np.ones(len(revised), bool)]), changed, values),
        published=np.concatenate([series.published, np.full(len(revised), known_until + np.timedelta64(1, "s"))]),
    )


def _shocked(values: Array, t: int, factors: Array) -> Array:
    return np.concatenate([values[: t + 1], values[t + 1 :] * factors])


def _checked_rows(rows: Iterable[int], length: int) -> list[int]:
    rows = [int(t) for t in rows]
    outside = [t for t in rows if not 0 <= t <= length - 2]
    if outside or not rows:
        raise ConfigError(
            f"look-ahead check: rows {outside or rows}; expected some, in [0, {length - 2}], with a row after each."
        )
    return rows


def _named_arrays(output: Any) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Every value by column name, each (T,), (T, N) or more axes; and the assets' names."""
    if isinstance(output, FeatureCube):
        output = output.to_tape()
    if isinstance(output, MarketTape):
        arrays = {name: output.features[..., i] for i, name in enumerate(output.feature_names)}
        arrays |= {name: output.context[:, i] for i, name in enumerate(output.context_names)}
        others = ("gross", "forecast_cvar", "forecast_uncertainty", "half_spread_bps", "impact_scale", "session_end")
        others += () if output.dollar_volume is None else ("dollar_volume",)
        return arrays | {name: getattr(output, name) for name in others}, output.symbols
    if isinstance(output, Mapping):
        return {name: np.asarray(values) for name, values in output.items()}, ()
    return {"output": np.asarray(output)}, ()


def _moved(before: Array, after: Array, tolerance: float) -> Array:
    """Cells that differ; nan equals nan and inf equals inf."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore"):
        return ~same & ~(abs(after - before) <= tolerance * (1.0 + abs(before)))


def _symbol(symbols: tuple[str, ...], cell: tuple[int, ...]) -> str:
    if len(cell) < 2:
        return "market"
    return symbols[cell[1]] if symbols else f"column {cell[1]}"
