"""Filling the feature store: forecasts of every missing (backend, symbol, year), side by side on Ray actors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from envs.errors import ConfigError
from rlplatform.data import Prices, load_prices
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.ray_session import ray_session
from rlplatform.features.forecasts import ForecastConfig
from rlplatform.features.forecasts.panel import log_returns_of, panel_of, statistics_name
from rlplatform.features.forecasts.registry import leaf, leaf_names
from rlplatform.features.forecasts.shards import WorkUnit
from rlplatform.features.forecasts.store import FeatureStore, Stock
from rlplatform.features.forecasts.worker import ShardWorker

Array = np.ndarray
Progress = Callable[[int, int], None]

SMALL = 4_000  # forecasts that are done before Ray's processes have started
IN_FLIGHT = 2  # units each actor holds, so that none waits for the next


@dataclass(frozen=True, kw_only=True)
class FeatureBuild:
    """What a build did.

    Attributes:
        backends: one row {backend, in_store, computed, shards, made_because} for each forecaster.
        seconds: wall time; of it `forecast_seconds` went into forecasts.
        workers: actors; 0 for this process.
        store, statistics: folders.
        statistics_files: files of statistics that changed.
    """

    backends: tuple[dict[str, Any], ...]
    seconds: float
    forecast_seconds: float
    workers: int
    store: str
    statistics: str
    statistics_files: int

    @property
    def computed(self) -> int:
        return sum(row["computed"] for row in self.backends)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"computed": self.computed, "per_second": self.per_second}

    @property
    def per_second(self) -> float:
        """Forecasts a second of wall time."""
        return round(self.computed / max(self.forecast_seconds, 1e-9), 1)


def build_features(
    config: ExperimentConfig, workers: int | None = None, on_progress: Progress = lambda done, total: None
) -> FeatureBuild:
    """Compute what the store lacks, then write the statistics. A stopped build goes on where it was: each shard counts.

    Args:
        workers: actors; 0 for this process; chosen by the amount of work if not given.
        on_progress: is told (forecasts done, of so many).

    Raises:
        ConfigError: no `features.forecasts`, or a backend that cannot be had.
    """
    began = time.monotonic()
    wanted = config.features.forecasts
    if wanted is None:
        raise ConfigError(
            "features.forecasts is missing, so there is nothing to build. Add features: {forecasts: {backend: core}}."
        )
    prices, store = load_prices(config.data), FeatureStore(Path(wanted.store).resolve())
    stocks = take_stock(prices, wanted, store)
    units = [unit for stock in stocks.values() for unit in stock.units]
    missing = sum(len(unit.rows) for unit in units)
    workers = _workers(missing, len(units)) if workers is None else min(workers, len(units))
    computing = time.monotonic()
    _run(units, prices, wanted, store, workers, on_progress)
    seconds = time.monotonic() - computing
    folder, written = _write_statistics(prices, wanted, store)
    return FeatureBuild(
        backends=tuple(_row(name, stock) for name, stock in stocks.items()),
        seconds=round(time.monotonic() - began, 3),
        forecast_seconds=round(seconds, 3),
        workers=workers,
        store=str(store.root),
        statistics=str(folder),
        statistics_files=written,
    )


def take_stock(prices: Prices, config: ForecastConfig, store: FeatureStore) -> dict[str, Stock]:
    """What the store has and lacks of each forecaster that `config` needs."""
    log_returns = log_returns_of(prices)
    return {name: store.stock(leaf(name, config), prices.dates, prices.symbols, log_returns) for name in leaf_names(config)}


def _row(name: str, stock: Stock) -> dict[str, Any]:
    return {
        "backend": name,
        "in_store": stock.reused,
        "computed": sum(len(unit.rows) for unit in stock.units),
        "shards": len(stock.units),
        "made_because": ", ".join(sorted({unit.why for unit in stock.units})) or "–",
    }


def _workers(missing: int, units: int) -> int:
    return 0 if missing <= SMALL else min(os.cpu_count() or 1, units)


def _write_statistics(prices: Prices, config: ForecastConfig, store: FeatureStore) -> tuple[Path, int]:
    forecasts = {name: stock.forecast for name, stock in take_stock(prices, config, store).items()}
    panel = panel_of(forecasts, prices, log_returns_of(prices), config)
    return store.write_statistics(statistics_name(config), prices, config, panel.statistics)


def _run(
    units: Sequence[WorkUnit], prices: Prices, config: ForecastConfig, store: FeatureStore, workers: int, on_progress: Progress
) -> None:
    total, done = sum(len(unit.rows) for unit in units), 0
    market = (prices.dates, prices.symbols, log_returns_of(prices))
    if not units:
        return
    if workers == 0:
        worker = ShardWorker(config, str(store.root))
        for unit in units:
            done += worker.complete(unit, *market)
            on_progress(done, total)
        return
    with ray_session(workers):
        for made in _on_actors(units, config, store, market, workers):
            done += made
            on_progress(done, total)


def _on_actors(
    units: Sequence[WorkUnit], config: ForecastConfig, store: FeatureStore, market: tuple, workers: int
) -> Iterator[int]:
    """Yields the forecasts of each unit as it is finished. An actor that dies is started again, its units with it.

    Ray gives a process of one CPU one arithmetic thread.
    """
    actor = ray.remote(num_cpus=1, max_restarts=2, max_task_retries=2)(ShardWorker)
    shared = [ray.put(part) for part in market]
    actors = [actor.remote(config, str(store.root)) for _ in range(workers)]
    waiting, running = list(reversed(units)), {}
    for each in actors * IN_FLIGHT:
        if waiting:
            running[each.complete.remote(waiting.pop(), *shared)] = each
    while running:
        (ready, *_), _ = ray.wait(list(running))
        free = running.pop(ready)
        try:
            made = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        if waiting:
            running[free.complete.remote(waiting.pop(), *shared)] = free
        yield made
