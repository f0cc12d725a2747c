"""What is stored of forecasts: one value of each statistic in `schema.py` for every (row, symbol, horizon)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.forecast import LEVELS, Forecast
from rlplatform.features.forecasts.moments import cvar_05, moments
from rlplatform.features.forecasts.schema import STATISTICS, STORED_LEVELS
from rlplatform.features.forecasts.scoring import cdf, crps, known_later, outcomes, rolling_mean

Array = np.ndarray

BP = 1e4
OPEN = "open"


def compute_statistics(
    forecast: Forecast, members: Mapping[str, Forecast], gaussian: Forecast, log_returns: Array, config: ForecastConfig
) -> dict[str, Array]:
    """Every statistic at every row. Row t uses forecasts of rows ≤ t and returns of rows ≤ t.

    Args:
        forecast: at every row, none missing.
        members: of those that it was made from, or compared with.
        gaussian: the yardstick of `crps_ratio`.
        log_returns: (T, N).

    Returns:
        name → (T, N, H), float64 or text, in the order of `STATISTICS`. Returns are simple ones [fraction of price].
    """
    simple = np.expm1(forecast.quantiles.astype(np.float64))
    mean, std, skew = moments(simple)
    stored = _stored(simple)
    columns = {"mean": mean, "std": std, "skew": skew}
    columns |= {f"q{round(100 * level):02d}": stored[..., i] for i, level in enumerate(STORED_LEVELS)}
    columns |= {
        "cvar_05": np.maximum(cvar_05(simple), -1.0),
        "p_up": 1 - cdf(simple, np.zeros(simple.shape[:-1])),
        "edge_bp": np.sign(mean) * np.maximum(BP * abs(mean) - config.cost_bps, 0.0),
        "spread": columns["q90"] - columns["q10"],
    }
    columns |= _calibration(forecast, gaussian, log_returns, config.calibration_window)
    columns |= _consensus(stored, {name: _stored(np.expm1(m.quantiles.astype(np.float64))) for name, m in members.items()})
    columns |= _texts(forecast)
    columns |= _gate(columns, config)
    return {statistic.name: columns[statistic.name] for statistic in STATISTICS}


def _stored(quantiles: Array) -> Array:
    """(…, K) → (…, 9)."""
    return quantiles[..., [LEVELS.index(level) for level in STORED_LEVELS]]


def _calibration(forecast: Forecast, gaussian: Forecast, log_returns: Array, window: int) -> dict[str, Array]:
    """PIT and CRPS of past forecasts, each at the row where its outcome is known."""
    y, horizons = outcomes(log_returns, forecast.horizons), forecast.horizons
    pit = known_later(cdf(forecast.quantiles, y), horizons)
    pit_mean, rows = rolling_mean(pit, window)
    own, _ = rolling_mean(known_later(crps(forecast.quantiles, y), horizons), window)
    plain, _ = rolling_mean(known_later(crps(gaussian.quantiles, y), horizons), window)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(plain > 0, own / plain, np.nan)
    return {"pit": pit, "pit_mean": pit_mean, "crps_ratio": ratio, "_outcomes": rows}


def _consensus(stored: Array, members: Mapping[str, Array]) -> dict[str, Array]:
    """Agreement and dispersion of the members; one voice agrees with itself."""
    if not members:
        return {"agreement": np.ones(stored.shape[:-1]), "dispersion": np.zeros(stored.shape[:-1])}
    middle = STORED_LEVELS.index(0.5)
    voices = np.stack(list(members.values()))  # (M, T, N, H, 9)
    known = np.isfinite(voices).all(-1)
    count = known.sum(0)
    same = (np.sign(voices[..., middle]) == np.sign(stored[..., middle])) & known
    agreement = np.where(count > 0, same.sum(0) / np.maximum(count, 1), 1.0)
    there = np.where(known[..., None], voices, 0.0)
    centre = there.sum(0) / np.maximum(count, 1)[..., None]
    variance = np.where(known[..., None], (voices - centre) ** 2, 0.0).sum(0) / np.maximum(count, 1)[..., None]
    return {"agreement": agreement, "dispersion": np.sqrt(variance).mean(-1)}


def _texts(forecast: Forecast) -> dict[str, Array]:
    def spread(cells: Array) -> Array:
        return np.repeat(cells[..., None], len(forecast.horizons), axis=-1)

    return {
        "fallback": spread(forecast.fallback).astype(np.float64),
        "source": spread(forecast.sources),
        "reason": spread(forecast.reasons),
    }


def _gate(columns: Mapping[str, Array], config: ForecastConfig) -> dict[str, Array]:
    """Open where nothing speaks against the forecast; else the first thing that does."""
    gate = config.gate
    tolerance = gate.pit_tolerance * np.sqrt(config.horizons)  # outcomes that overlap tell less
    with np.errstate(invalid="ignore"):
        tests = {
            "fallback": columns["fallback"] > 0,
            "few outcomes": columns["_outcomes"] < gate.min_rows,
            "miscalibrated": ~(abs(columns["pit_mean"] - 0.5) <= tolerance),
            "outscored": columns["crps_ratio"] > 1 + gate.crps_slack,
        }
    reason = np.select(list(tests.values()), list(tests), default=OPEN).astype(object)
    return {"gate": (reason == OPEN).astype(np.float64), "gate_reason": reason}
