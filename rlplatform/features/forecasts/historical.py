"""Historical simulation: tomorrow is drawn from the past, scaled to today's volatility (`bootstrap`) or as it was (`iid`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlplatform.features.forecasts.config import HistoricalConfig
from rlplatform.features.forecasts.forecast import LEVELS, Draws, Forecast, check_returns, no_reasons, quantiles_of_paths
from rlplatform.features.forecasts.volatility import WARM_UP, devolatilised, floored_volatility

Array = np.ndarray

BLOCK = 64  # rows simulated at once; a block of 64 × 1,000 paths × 5 bars is 2.5 MB


@dataclass(frozen=True, kw_only=True)
class FilteredBootstrapBackend:
    """Filtered historical simulation.

        z_s = r_s / σ_{s−1},    r_{t+j} = σ_{t+j−1} z*,    σ²_{t+j} = λ σ²_{t+j−1} + (1 − λ) r²_{t+j}

    z* is drawn from the z of the last `window` bars. Source: Barone-Adesi, Giannopoulos and Vosper (1999), with an EWMA
    variance in the place of their GARCH.
    """

    horizons: tuple[int, ...]
    draws: Draws
    config: HistoricalConfig
    decay: float = 0.94
    name: str = "bootstrap"

    @property
    def identity(self) -> dict[str, Any]:
        return {"backend": self.name, "version": 1, "decay": self.decay, "draws": asdict(self.draws), **asdict(self.config)}

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        check_returns(dates, log_returns)
        sigma = floored_volatility(log_returns, self.decay)
        z = devolatilised(log_returns, sigma)

        def simulate(column: int, block: Array, drawn: Array) -> Array:
            return rescaled(drawn, sigma[block, column] ** 2, self.decay)

        return _simulated(self, z, rows, WARM_UP, simulate)


@dataclass(frozen=True, kw_only=True)
class IIDBootstrapBackend:
    """Plain historical simulation: the next bars are independent draws from the last `window` returns. A baseline."""

    horizons: tuple[int, ...]
    draws: Draws
    config: HistoricalConfig
    name: str = "iid"

    @property
    def identity(self) -> dict[str, Any]:
        return {"backend": self.name, "version": 1, "draws": asdict(self.draws), **asdict(self.config)}

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        check_returns(dates, log_returns)
        return _simulated(self, log_returns, rows, 1, lambda column, block, drawn: drawn)


def _simulated(
    backend: FilteredBootstrapBackend | IIDBootstrapBackend, x: Array, rows: Array, first: int, simulate
) -> Forecast:
    """Forecasts from draws of `x` (T, N), of which rows from `first` on may be drawn.

    Args:
        simulate: (column, rows of a block, (B, S, h) drawn values) → (B, S, h) log returns of single bars.
    """
    config, horizons = backend.config, backend.horizons
    reasons = no_reasons(rows, x.shape[1])
    short = rows - first + 1 < config.min_history
    for i in np.flatnonzero(short):
        reasons[i] = f"history of {max(0, rows[i] - first + 1)} bars < {config.min_history}"
    quantiles = np.full((*reasons.shape, len(horizons), len(LEVELS)), np.nan)
    enough = np.flatnonzero(~short)
    for column in range(x.shape[1]):
        for at in range(0, len(enough), BLOCK):
            block = enough[at : at + BLOCK]
            drawn = np.stack([_drawn(x[:, column], t, first, config.window, backend.draws.uniforms) for t in rows[block]])
            quantiles[block, column] = quantiles_of_paths(simulate(column, rows[block], drawn), horizons)
    return Forecast.by(backend.name, horizons, quantiles, reasons)


def _drawn(x: Array, t: int, first: int, window: int, uniforms: Array) -> Array:
    """(S, h) values of x among the `window` rows up to and including t, at probabilities `uniforms`."""
    past = np.sort(x[max(first, t - window + 1) : t + 1])
    return past[(uniforms * len(past)).astype(int)]


def rescaled(z: Array, variance: Array, decay: float) -> Array:
    """(B, S, h) draws of z → log returns, the variance following its own path from (B,) on."""
    returns, variance = np.empty_like(z), np.repeat(variance[:, None], z.shape[1], axis=1)
    for j in range(z.shape[2]):
        returns[..., j] = np.sqrt(variance) * z[..., j]
        variance = decay * variance + (1 - decay) * returns[..., j] ** 2
    return returns
