"""EWMA volatility by which returns are divided before they are learnt from, and the normal forecast that it gives by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from envs.indicators import ewma_volatility
from rlplatform.features.forecasts.forecast import LEVELS, Forecast, check_returns, no_reasons

Array = np.ndarray

FLOOR = 1e-5  # volatility of one bar; a price that stands still has none
CLIP = 12.0  # devolatilised returns, in standard deviations
WARM_UP = 21  # rows before the EWMA counts as a volatility


def floored_volatility(log_returns: Array, decay: float) -> Array:
    """(T, N) EWMA volatility σ_t of rows ≤ t, at least `FLOOR` [per bar]."""
    return np.maximum(ewma_volatility(np.exp(log_returns), decay), FLOOR)


def devolatilised(log_returns: Array, volatility: Array) -> Array:
    """(T, N) z_t = r_t / σ_{t−1}, clipped at ± `CLIP`; NaN in the first `WARM_UP` rows."""
    z = np.full_like(log_returns, np.nan)
    z[1:] = np.clip(log_returns[1:] / volatility[:-1], -CLIP, CLIP)
    z[:WARM_UP] = np.nan
    return z


@dataclass(frozen=True, kw_only=True)
class GaussianBackend:
    """r_{t→t+h} ~ N(0, h σ_t²) with RiskMetrics volatility: it always has an answer, so it is the last resort.

    Source: J.P. Morgan/Reuters (1996).
    """

    horizons: tuple[int, ...]
    decay: float = 0.94
    name: str = "gaussian"

    @property
    def identity(self) -> dict[str, Any]:
        return {"backend": self.name, "version": 1, "decay": self.decay}

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        check_returns(dates, log_returns)
        sigma = floored_volatility(log_returns[: rows.max(initial=0) + 1], self.decay)[rows]
        scale = np.sqrt(self.horizons) * sigma[..., None]  # (R, N, H)
        quantiles = scale[..., None] * ndtri(LEVELS)
        return Forecast.by(self.name, self.horizons, quantiles, no_reasons(rows, log_returns.shape[1]))
