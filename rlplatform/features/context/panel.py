"""ContextPanel: every context column of a market, and where each is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlplatform.data.prices import Prices
from rlplatform.features.context.asof import AlignedSeries, align, load_series
from rlplatform.features.context.columns import FUNCTIONS, Surroundings
from rlplatform.features.context.config import ContextConfig
from rlplatform.features.context.releases import CURRENCY_PAIR, release_of
from rlplatform.features.context.schema import COLUMNS, ContextColumn
from rlplatform.features.context.sectors import check_sectors
from rlplatform.features.context.series import Series

if TYPE_CHECKING:
    from rlplatform.features.config import FeatureConfig

Array = np.ndarray
SeriesAtHand = Mapping[str, Series] | AlignedSeries


@dataclass(frozen=True, kw_only=True)
class Named:
    """One column of a panel: which entry of the catalogue, over which window, of which series."""

    name: str
    entry: ContextColumn
    window: int = 0
    series: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextPanel:
    """Columns by name.

    Attributes:
        market: name → (T,) float64; NaN while unknown.
        asset: name → (T, N) float64; 0 while unknown: all of these are differences between assets.
    """

    market: Mapping[str, Array]
    asset: Mapping[str, Array]


def context_panel(prices: Prices, features: FeatureConfig, series: SeriesAtHand | None = None) -> ContextPanel:
    """All context columns that `features.context` asks for, at every close.

    Args:
        series: in place of the config's own: vintages to be joined, or what the bars knew already.

    Raises:
        ConfigError: a sector lacks an asset, or a series a path or rule.
        MarketDataError: a series' file is missing, or a row of it wrong.
    """
    config = features.context
    if config.sectors:
        check_sectors(prices.symbols, config.sectors)
    if not isinstance(series, AlignedSeries):
        series = align(load_series(config, prices) if series is None else series, prices)
    gross = np.asarray(prices.gross(), dtype=np.float64, order="C")
    around = Surroundings(
        gross=gross,
        market=gross.mean(1),
        symbols=prices.symbols,
        series=series,
        config=config,
        ewma_decay=features.ewma_decay,
        bars_per_year=features.bars_per_year,
    )
    columns = {each: FUNCTIONS[each.entry.name](around, each.window, each.series) for each in named_columns(config)}
    market = {each.name: values for each, values in columns.items() if each.entry.scope == "market"}
    asset = {each.name: np.nan_to_num(values, nan=0.0) for each, values in columns.items() if each.entry.scope == "asset"}
    return ContextPanel(market=market, asset=asset)


def named_columns(config: ContextConfig) -> list[Named]:
    """The columns that a config asks for, in the catalogue's order: those it names, or all that can be made."""
    asked = [entry for entry in COLUMNS if entry.name in config.columns or (not config.columns and _possible(entry, config))]
    return [column for entry in asked for column in _expand(entry, config)]


def catalogue(config: ContextConfig) -> list[dict[str, str]]:
    """One row {name, scope, group, unit, description} for each column that a config asks for; for printing."""
    return [
        {"name": each.name, "scope": e.scope, "group": e.group, "unit": e.unit, "description": e.description}
        for each in named_columns(config)
        for e in (each.entry,)
    ]


def reads_series(config: ContextConfig) -> bool:
    """Whether a column that a config asks for follows the values of a series from bar to bar."""
    return any(
        column.entry.needs
        or column.entry.each in ("pair", "own")
        or (column.entry.needs_sectors and set(config.sectors.values()) & set(config.series))
        for column in named_columns(config)
    )


def _possible(entry: ContextColumn, config: ContextConfig) -> bool:
    lacks_sectors = entry.needs_sectors and not config.sectors
    return set(entry.needs) <= set(config.series) and not lacks_sectors and not entry.on_demand


def _expand(entry: ContextColumn, config: ContextConfig) -> Iterator[Named]:
    windows = (0,) if entry.windows is None else getattr(config, entry.windows)
    for series in _series_of(entry, config) if entry.each else ("",):
        for window in windows:
            parts = (entry.name, series, str(window) if window else "")
            yield Named(name="_".join(filter(None, parts)), entry=entry, window=window, series=series)


def _series_of(entry: ContextColumn, config: ContextConfig) -> list[str]:
    if entry.each == "pair":
        return [name for name in config.series if CURRENCY_PAIR.fullmatch(name)]
    if entry.each == "series":
        return list(config.series)
    named = {name for each in COLUMNS for name in each.needs} | set(config.sectors.values())
    own = [name for name in config.series if name not in named and not CURRENCY_PAIR.fullmatch(name)]
    return [name for name in own if entry.name != "series_level" or _kind(name, config) == "level"]


def _kind(name: str, config: ContextConfig) -> str:
    known = release_of(name)
    return getattr(config.series[name], "kind", None) or (known.kind if known else "level")
