"""FeatureStore: forecasts on disk, computed once. A build touches only what is missing, changed or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from rlplatform.data.prices import Prices
from rlplatform.features.forecasts.chronos import of_symbol
from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.forecast import LEVELS, Forecast, ForecastBackend, key_of, no_reasons
from rlplatform.features.forecasts.shards import (
    Shard,
    ShardDamagedError,
    WorkUnit,
    input_hashes,
    read_shard,
    replace_if_changed,
    statistics_table,
    write_shard,
)
from rlplatform.files import write_json

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Stock:
    """What of one forecaster's answer the store has.

    Attributes:
        forecast: at all T rows; NaN where the store has nothing that still holds.
        units: what is missing.
        reused: rows × symbols taken from the store.
    """

    forecast: Forecast
    units: tuple[WorkUnit, ...]
    reused: int


@dataclass(frozen=True)
class FeatureStore:
    """A folder of shards.

        <root>/forecasts/<backend>-<key>/symbol=<S>/year=<Y>/quantiles.parquet
        <root>/statistics/<backend>-<key>/symbol=<S>/year=<Y>/statistics.parquet

    The key changes with the forecaster's settings, weights, horizons and code version; whether a row's data still are those it
    was made from is seen from a hash in the row. Any reader of hive-partitioned Parquet reads either folder as one table.
    """

    root: Path

    def folder(self, backend: ForecastBackend) -> Path:
        """Where a forecaster's shards lie."""
        return self.root / "forecasts" / f"{backend.name}-{key_of(backend)}"

    def describe(self, backend: ForecastBackend) -> None:
        """Say in a manifest what the folder's key stands for."""
        file = self.folder(backend) / "_manifest.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"horizons": list(backend.horizons), "levels": list(LEVELS), **backend.identity})

    def stock(self, backend: ForecastBackend, dates: Array, symbols: tuple[str, ...], log_returns: Array) -> Stock:
        """What is there and what is missing, for every row and symbol. Reads only."""
        reasons = no_reasons(dates, len(symbols))
        quantiles = np.full((*reasons.shape, len(backend.horizons), len(LEVELS)), np.nan, np.float32)
        units, reused = [], 0
        for column, symbol in enumerate(symbols):
            folder = self.folder(of_symbol(backend, symbol))
            hashes = input_hashes(dates, log_returns[:, column])
            for year, rows in rows_by_year(dates).items():
                shard, missing, why = _holding(_path(folder, symbol, year), backend.horizons, dates[rows], hashes[rows])
                if shard is not None:
                    at = rows[~missing]
                    quantiles[at, column], reasons[at, column] = shard.quantiles, shard.reasons
                    reused += len(at)
                if missing.any():
                    units.append(
                        WorkUnit(leaf=backend.name, symbol=symbol, year=year, rows=tuple(map(int, rows[missing])), why=why)
                    )
        there = np.isfinite(quantiles).all((2, 3))
        sources = np.where(there, backend.name, "").astype(object)
        forecast = Forecast(horizons=backend.horizons, quantiles=quantiles, reasons=reasons, sources=sources, fallback=~there)
        return Stock(forecast=forecast, units=tuple(units), reused=reused)

    def complete(self, backend: ForecastBackend, dates: Array, log_returns: Array, unit: WorkUnit) -> None:
        """Forecast a unit's rows and write its shard, with the rows of it that still hold.

        Args:
            log_returns: (T,) of the unit's symbol.
        """
        rows, backend = np.asarray(unit.rows), of_symbol(backend, unit.symbol)
        answer = backend.forecast(dates[: rows[-1] + 1], log_returns[: rows[-1] + 1, None], rows)
        hashes = input_hashes(dates, log_returns)
        made = Shard(dates=dates[rows], inputs=hashes[rows], quantiles=answer.quantiles[:, 0], reasons=answer.reasons[:, 0])
        path = _path(self.folder(backend), unit.symbol, unit.year)
        kept = _kept(path, backend.horizons, dates, hashes)
        write_shard(path, made if kept is None else kept.merged(made), backend.horizons)

    def write_statistics(
        self, name: str, prices: Prices, config: ForecastConfig, statistics: Mapping[str, Array]
    ) -> tuple[Path, int]:
        """Write what has changed of the statistics (T, N, H).

        Args:
            name: of the folder.

        Returns:
            The folder, and how many files were written.
        """
        folder, written = self.root / "statistics" / name, 0
        for column, symbol in enumerate(prices.symbols):
            for year, rows in rows_by_year(prices.dates).items():
                cut = {key: values[rows, column] for key, values in statistics.items()}
                table = statistics_table(prices.dates[rows], config.horizons, cut)
                path = _path(folder, symbol, year, "statistics")
                written += replace_if_changed(path, table)
        return folder, written


def rows_by_year(dates: Array) -> dict[int, Array]:
    """Calendar year → its rows."""
    years = dates.astype("datetime64[Y]").astype(int) + 1970
    return {int(year): np.flatnonzero(years == year) for year in np.unique(years)}


def _path(folder: Path, symbol: str, year: int, kind: str = "quantiles") -> Path:
    return folder / f"symbol={quote(symbol, safe='')}" / f"year={year}" / f"{kind}.parquet"


def _holding(path: Path, horizons: tuple[int, ...], dates: Array, hashes: Array) -> tuple[Shard | None, Array, str]:
    """The rows of a shard that hold, in the order of `dates`; which of `dates` it lacks; and why."""
    everything = np.ones(len(dates), bool)
    try:
        shard = read_shard(path, horizons)
    except ShardDamagedError:
        return None, everything, "damaged"
    if shard is None:
        return None, everything, "absent"
    at = np.searchsorted(shard.dates, dates).clip(max=len(shard.dates) - 1)
    there = shard.dates[at] == dates
    holds = there & (shard.inputs[at] == hashes)
    return shard.rows(at[holds]), ~holds, "changed data" if (there & ~holds).any() else "new rows"


def _kept(path: Path, horizons: tuple[int, ...], dates: Array, hashes: Array) -> Shard | None:
    """The rows of a shard that need not be made again; those after the last of `dates` too, if none has changed."""
    try:
        shard = read_shard(path, horizons)
    except ShardDamagedError:
        return None
    if shard is None:
        return None
    at = np.searchsorted(dates, shard.dates).clip(max=len(dates) - 1)
    holds = (dates[at] == shard.dates) & (hashes[at] == shard.inputs)
    later = shard.dates > dates[-1]
    return shard.rows(holds | later if (holds | later).all() else holds)
