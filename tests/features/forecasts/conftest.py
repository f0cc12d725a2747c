"""Small series to forecast, and settings whose histories they fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rlplatform.data.prices import Prices
from rlplatform.features.forecasts import ForecastConfig
from rlplatform.features.forecasts.config import AutoConfig, ForecastGateConfig, GarchConfig, HistoricalConfig
from rlplatform.features.forecasts.forecast import LEVELS, Forecast
from rlplatform.features.forecasts.learned import LearnedBackend

ROWS = 420


def returns_with_clusters(seed: int, rows: int = ROWS, symbols: int = 2) -> np.ndarray:
    """(T, N) log returns whose volatility comes in clusters and leans on losses; row 0 is 0."""
    rng = np.random.default_rng(seed)
    returns, variance = np.zeros((rows, symbols)), np.full(symbols, 1e-4)
    for t in range(1, rows):
        returns[t] = 3e-4 + np.sqrt(variance) * rng.standard_t(5, symbols) * np.sqrt(3 / 5)
        variance = 3e-6 + (0.05 + 0.08 * (returns[t] < 0)) * returns[t] ** 2 + 0.87 * variance
    return returns


def days(rows: int = ROWS) -> np.ndarray:
    return np.datetime64("2018-06-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")


def prices_with(log_returns: np.ndarray, symbols: tuple[str, ...] = ("SPY", "BTC/USD")) -> Prices:
    close = 100 * np.exp(np.cumsum(log_returns, axis=0))
    return Prices(dates=days(len(close)), symbols=symbols[: close.shape[1]], close=close)


def small(**changes: Any) -> ForecastConfig:
    """Short histories, few draws."""
    settings = {
        "horizons": (1, 3),
        "draws": 200,
        "calibration_window": 40,
        "bootstrap": HistoricalConfig(window=100, min_history=60),
        "garch": GarchConfig(window=200, min_history=100, refit_bars=100),
        "auto": AutoConfig(window=60, min_rows=30),
        "gate": ForecastGateConfig(min_rows=20),
    }
    return ForecastConfig(**(settings | changes))


@dataclass(frozen=True, eq=False, kw_only=True)
class ToyModel(LearnedBackend):
    """A learned forecaster without weights: as wide as the window's spread."""

    name: str = "chronos"
    package: str = "numpy"
    cure: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        return {"backend": "toy"}

    def check(self) -> None:
        pass

    def predict(self, contexts: np.ndarray) -> np.ndarray:
        spread = np.nanstd(contexts, axis=1)[:, None, None]
        return np.broadcast_to(spread * (np.array(LEVELS) - 0.5), (len(contexts), self.draws.steps, len(LEVELS)))


def forecast_of(quantiles: np.ndarray, name: str = "bootstrap", reason: str = "none there") -> Forecast:
    """(T, N, H, K) as a Forecast; NaN cells have a reason."""
    there = np.isfinite(quantiles).all((2, 3))
    return Forecast.by(name, tuple(range(1, quantiles.shape[2] + 1)), quantiles, np.where(there, "", reason).astype(object))


@pytest.fixture(scope="session")
def returns() -> np.ndarray:
    return returns_with_clusters(0)
