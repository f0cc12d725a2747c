"""ForecastPanel: the statistics of every (close, symbol, horizon), from the store where it has them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlplatform.data.prices import Prices
from rlplatform.features.forecasts.calibration import calibrate
from rlplatform.features.forecasts.chronos import of_symbol
from rlplatform.features.forecasts.combination import first_known
from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.forecast import Forecast, ForecastBackend, key_of
from rlplatform.features.forecasts.registry import combine, fallbacks, leaf, leaf_names
from rlplatform.features.forecasts.schema import BY_NAME, feature_name
from rlplatform.features.forecasts.statistics import compute_statistics
from rlplatform.features.forecasts.store import FeatureStore

log = logging.getLogger(__name__)

Array = np.ndarray

STATISTICS_VERSION = 1  # goes up when a statistic's figures change
MANY = 2_000  # forecasts beyond which computing them in passing is worth a word


@dataclass(frozen=True, eq=False, kw_only=True)
class ForecastPanel:
    """What is known of the next bars at every close.

    Attributes:
        config: whose forecasts.
        statistics: name → (T, N, H); see `schema.STATISTICS`.
        forecast: the quantiles behind them.
    """

    config: ForecastConfig
    statistics: Mapping[str, Array]
    forecast: Forecast

    def feature_columns(self) -> dict[str, Array]:
        """`forecast_<statistic>_<horizon>` → (T, N) float64; what is not known yet shows its neutral value."""
        columns = {}
        for name in self.config.columns:
            values = self.statistics[name]
            values = np.where(np.isfinite(values), values, BY_NAME[name].neutral)
            columns |= {feature_name(name, h): values[..., i] for i, h in enumerate(self.config.horizons)}
        return columns

    @property
    def cvar(self) -> Array:
        """(T, N) predicted loss in the worst 5 % of next bars [fraction of price, in [0, 1]]."""
        return np.clip(-self.statistics["cvar_05"][..., 0], 0.0, 1.0)

    @property
    def uncertainty(self) -> Array:
        """(T, N) predicted q90 − q10 of the next bar's return [fraction of price, ≥ 0]."""
        return self.statistics["spread"][..., 0]


def log_returns_of(prices: Prices) -> Array:
    """(T, N) log(P_t / P_{t−1}); row 0 is 0."""
    return np.log(prices.gross())


def forecast_panel(prices: Prices, config: ForecastConfig, store: FeatureStore | None = None) -> ForecastPanel:
    """Forecasts and their statistics at every close; what the store lacks is computed and not kept.

    Args:
        store: `FeatureStore(Path(config.store))` if not given.
    """
    store = store or FeatureStore(Path(config.store))
    log_returns = log_returns_of(prices)
    leaves = {name: _leaf_forecast(leaf(name, config), prices, log_returns, store) for name in leaf_names(config)}
    return panel_of(leaves, prices, log_returns, config)


def panel_of(leaves: Mapping[str, Forecast], prices: Prices, log_returns: Array, config: ForecastConfig) -> ForecastPanel:
    """Combine the leaves' forecasts at every row, recalibrate; a normal distribution stands in where nobody speaks."""
    gaussian = leaf("gaussian", config).forecast(prices.dates, log_returns, np.arange(len(prices)))
    asked = combine(config, leaves, log_returns)
    calibration = None if config.calibration.method == "none" else calibrate(asked, log_returns, config.calibration)
    spoken = asked if calibration is None else calibration.forecast
    forecast = first_known([spoken, *fallbacks(config, leaves), gaussian])
    statistics = compute_statistics(forecast, leaves, gaussian, log_returns, config)
    if calibration is not None:
        statistics |= calibration.columns()
    return ForecastPanel(config=config, statistics=statistics, forecast=forecast)


def _leaf_forecast(backend: ForecastBackend, prices: Prices, log_returns: Array, store: FeatureStore) -> Forecast:
    stock = store.stock(backend, prices.dates, prices.symbols, log_returns)
    missing = sum(len(unit.rows) for unit in stock.units)
    if missing > MANY:
        log.warning(
            f"{missing:,} of {stock.reused + missing:,} {backend.name} forecasts are not in {store.root}; they are computed "
            "now and not kept. `rlplatform features build CONFIG.yaml` keeps them."
        )
    forecast, column_of = stock.forecast, {symbol: i for i, symbol in enumerate(prices.symbols)}
    for unit in stock.units:
        rows, column = np.asarray(unit.rows), column_of[unit.symbol]
        made = of_symbol(backend, unit.symbol).forecast(prices.dates, log_returns[:, [column]], rows)
        for name in ("quantiles", "reasons", "sources", "fallback"):
            getattr(forecast, name)[rows, column] = getattr(made, name)[:, 0]
    return forecast


def statistics_name(config: ForecastConfig) -> str:
    """`core-<key>`: changes with whatever the statistics depend on but the data."""
    keys = {name: key_of(leaf(name, config)) for name in leaf_names(config)}
    settings = (STATISTICS_VERSION, keys, config.cost_bps, config.calibration_window, config.gate, config.ewma_decay)
    if config.backend == "auto":
        settings = (*settings, config.auto)
    if config.calibration.method != "none":
        settings = (*settings, config.calibration)
    return f"{config.backend}-{hashlib.sha256(str(settings).encode()).hexdigest()[:16]}"
