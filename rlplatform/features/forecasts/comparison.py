"""Forecasters side by side on the same days: CRPS, calibration, and whether a difference is more than luck."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        below_05, below_50, below_95: share of outcomes below that quantile; 0.05, 0.50 and 0.95 are right.
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
    below_50: float
    below_95: float
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

    def share_below(level: float) -> float:
        return round(float((y < quantiles[..., LEVELS.index(level)])[cells].mean()), 4)

    inside = (y >= quantiles[..., LEVELS.index(0.1)]) & (y <= quantiles[..., LEVELS.index(0.9)])
    return ForecastScore(
        backend=name,
        horizon=horizon,
        crps_bp=round(1e4 * float(own[cells].mean()), 4),
        gain_percent=round(100 * float(gain[cells].mean() / base[cells].mean()), 3),
        dm_t=round(newey_west_t(days, horizon - 1), 2) if name != REFERENCE else math.nan,
        coverage_80=round(float(inside[cells].mean()), 4),
        below_05=share_below(0.05),
        below_50=share_below(0.5),
        below_95=share_below(0.95),
        pit_mean=round(float(cdf(quantiles, y)[cells].mean()), 4),
        cells=int(cells.sum()),
    )


@dataclass(frozen=True, kw_only=True)
class ForecastDifference:
    """One forecaster against another on the cells that both have.

    Attributes:
        symbol: of which symbol; "all" for the mean over symbols, day by day.
        horizon: bars ahead.
        gain_percent: how much lower the CRPS of the first is [% of the other's].
        low, high: its 95 % interval, normal with the Newey-West standard error of the daily differences.
        dm_t: Diebold-Mariano t; NaN where both always say the same.
        days: that were compared.
    """

    symbol: str
    horizon: int
    gain_percent: float
    low: float
    high: float
    dm_t: float
    days: int

    def cells(self) -> dict[str, str]:
        """For print."""
        known = math.isfinite(self.low)
        return {
            "symbol": self.symbol,
            "bars": str(self.horizon),
            "gain %": f"{self.gain_percent:+.2f}" if math.isfinite(self.gain_percent) else "–",
            "95 % interval": f"{self.low:+.2f} to {self.high:+.2f}" if known else "–",
            "DM t": f"{self.dm_t:+.1f}" if math.isfinite(self.dm_t) else "–",
            "days": f"{self.days:,}",
        }

    def to_dict(self) -> dict[str, Any]:
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in figures.items()}


def difference(
    one: Forecast, other: Forecast, outcome: Array, symbols: Sequence[str], columns: Sequence[int]
) -> list[ForecastDifference]:
    """`one` against `other`, for each horizon over all the given columns, then for each of them.

    Args:
        outcome: (R, N, H) log returns to come.
        symbols: N names.
        columns: which of the N count.
    """
    rows = []
    for i, horizon in enumerate(one.horizons):
        y = outcome[..., i]
        before, after = crps(other.quantiles[:, :, i], y), crps(one.quantiles[:, :, i], y)
        cells = np.isfinite(before) & np.isfinite(after)
        for name, chosen in (("all", list(columns)), *((symbols[column], [column]) for column in columns)):
            there = cells[:, chosen]
            own = np.where(there, before[:, chosen] - after[:, chosen], np.nan)[there.any(1)]
            rows.append(_difference(name, horizon, own, before[:, chosen][there]))
    return rows


def _difference(symbol: str, horizon: int, gain: Array, base: Array) -> ForecastDifference:
    if not len(base):
        return ForecastDifference(
            symbol=symbol, horizon=horizon, gain_percent=math.nan, low=math.nan, high=math.nan, dm_t=math.nan, days=0
        )
    days, unit = np.nanmean(gain, axis=1), 100 / float(base.mean())
    t = newey_west_t(days, horizon - 1)
    half = 1.959964 * abs(float(days.mean()) / t) if math.isfinite(t) and t else (0.0 if not days.any() else math.nan)
    mean = float(days.mean())
    return ForecastDifference(
        symbol=symbol,
        horizon=horizon,
        gain_percent=round(unit * mean, 3),
        low=round(unit * (mean - half), 3),
        high=round(unit * (mean + half), 3),
        dm_t=round(t, 2),
        days=len(days),
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
