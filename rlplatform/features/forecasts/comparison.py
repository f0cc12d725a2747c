"""Forecasters side by side on the same days: CRPS, calibration, and whether a difference is more than luck."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.features.forecasts.combination import REFERENCE
from rlplatform.features.forecasts.forecast import LEVELS, Forecast
from rlplatform.features.forecasts.scoring import cdf, crps

Array = np.ndarray

FEWEST = 20  # days, for a t statistic


@dataclass(frozen=True, kw_only=True)
class ForecastScore:
    """One forecaster at one horizon, over the cells that every forecaster has.

    Attributes:
        backend, horizon: whose, and how many bars ahead.
        crps_bp: mean CRPS of log returns [bp].
        gain_percent: how much lower it is than bootstrap's [% of it].
        dm_t: Diebold-Mariano t of that gain by days, Newey-West; above 2 it is more than luck.
        coverage_80: share of outcomes between q10 and q90; 0.80 is right.
        below_05: share of outcomes below q05; 0.05 is right.
        pit_mean: 0.5 is right.
        cells: (symbol, day) pairs.
    """

    backend: str
    horizon: int
    crps_bp: float
    gain_percent: float
    dm_t: float
    coverage_80: float
    below_05: float
    pit_mean: float
    cells: int

    def to_dict(self) -> dict[str, Any]:
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}


def compare_forecasts(forecasts: Mapping[str, Forecast], outcome: Array) -> list[ForecastScore]:
    """Scores of each forecaster at each horizon.

    Args:
        forecasts: by name, at the same R rows; bootstrap among them.
        outcome: (R, N, H) log returns to come; NaN where they end after the prices.

    Raises:
        ConfigError: bootstrap is missing, or no cell that all have.
    """
    if REFERENCE not in forecasts:
        raise ConfigError(
            f"forecast.backends = {list(forecasts)}; expected {REFERENCE} among them, the others are held against it."
        )
    horizons = forecasts[REFERENCE].horizons
    common = np.isfinite(outcome) & np.all([f.known for f in forecasts.values()], axis=0)[..., None]
    for i, horizon in enumerate(horizons):
        if not common[..., i].any():
            why = {name: next(iter(f.reasons[f.reasons != ""]), "") for name, f in forecasts.items() if not f.known.any()}
            raise ConfigError(
                f"forecast evaluate: no day has a forecast {horizon} ahead from all of them and an outcome: {why}."
            )
    scores = []
    for i, horizon in enumerate(horizons):
        cells, y = common[..., i], outcome[..., i]
        base = crps(forecasts[REFERENCE].quantiles[:, :, i], y)
        for name, forecast in forecasts.items():
            scores.append(_score(name, horizon, forecast.quantiles[:, :, i], y, base, cells))
    return scores


def _score(name: str, horizon: int, quantiles: Array, y: Array, base: Array, cells: Array) -> ForecastScore:
    own = crps(quantiles, y)
    gain = np.where(cells, base - own, np.nan)
    days = np.nanmean(gain[cells.any(1)], axis=1)
    inside = (y >= quantiles[..., LEVELS.index(0.1)]) & (y <= quantiles[..., LEVELS.index(0.9)])
    return ForecastScore(
        backend=name,
        horizon=horizon,
        crps_bp=round(1e4 * float(own[cells].mean()), 4),
        gain_percent=round(100 * float(gain[cells].mean() / base[cells].mean()), 3),
        dm_t=round(newey_west_t(days, horizon - 1), 2) if name != REFERENCE else math.nan,
        coverage_80=round(float(inside[cells].mean()), 4),
        below_05=round(float((y < quantiles[..., LEVELS.index(0.05)])[cells].mean()), 4),
        pit_mean=round(float(cdf(quantiles, y)[cells].mean()), 4),
        cells=int(cells.sum()),
    )


def newey_west_t(x: Array, least_lags: int = 0) -> float:
    """Mean over its standard error, with the variance of a mean of correlated days; NaN for too few days or none that vary.

        s² = γ₀ + 2 Σ_{k ≤ L} (1 − k/(L+1)) γ_k,    L = max(least_lags, ⌊4 (n/100)^{2/9}⌋)

    Source: Newey and West (1987, 1994).
    """
    n = len(x)
    if n < FEWEST:
        return math.nan
    centred = x - x.mean()
    lags = max(least_lags, int(4 * (n / 100) ** (2 / 9)))
    covariances = [float(centred[k:] @ centred[: n - k]) / n for k in range(lags + 1)]
    variance = covariances[0] + 2 * sum((1 - k / (lags + 1)) * c for k, c in enumerate(covariances) if k)
    return float(x.mean() / math.sqrt(variance / n)) if variance > 0 else math.nan
