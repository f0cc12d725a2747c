"""How good forecasts were, once the outcome is known: CRPS, PIT, and their rolling means."""

from __future__ import annotations

import numpy as np

from rlplatform.features.forecasts.forecast import LEVELS, tail_scales

Array = np.ndarray


def outcomes(log_returns: Array, horizons: tuple[int, ...]) -> Array:
    """(T, N, H) log return from t to t + horizon; NaN where it ends after the last row."""
    level = np.cumsum(log_returns, axis=0)
    result = np.full((*log_returns.shape, len(horizons)), np.nan)
    for i, h in enumerate(horizons):
        result[:-h, :, i] = level[h:] - level[:-h]
    return result


def crps(quantiles: Array, outcome: Array) -> Array:
    """Continuous ranked probability score: twice the mean pinball loss over all probabilities. Lower is better.

        CRPS = 2 Σ_k w_k (1[y < q_k] − τ_k)(q_k − y)

    w_k is the share of [0, 1] that is nearest to level τ_k. Source: Gneiting and Ranjan (2011).

    Args:
        quantiles: (…, K) at `LEVELS`.
        outcome: (…) y, in the same unit.

    Returns:
        (…) in that unit; NaN where either is.
    """
    levels = np.asarray(LEVELS)
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    error = quantiles.astype(np.float64) - outcome[..., None]
    return 2 * (np.diff(edges) * ((error > 0) - levels) * error).sum(-1)


def cdf(quantiles: Array, x: Array) -> Array:
    """Probability of at most x: linear between quantiles, exponential beyond the outermost.

    Where several quantiles are equal to x, the middle of their levels.

    Args:
        quantiles: (…, K) at `LEVELS`, sorted.
        x: (…).

    Returns:
        (…) in (0, 1); NaN where either is.
    """
    quantiles, x = quantiles.astype(np.float64), np.asarray(x, np.float64)
    levels = np.asarray(LEVELS)
    below, at_most = (quantiles < x[..., None]).sum(-1), (quantiles <= x[..., None]).sum(-1)
    low, high = np.clip(below - 1, 0, None), np.clip(below, None, len(levels) - 1)
    q_low = np.take_along_axis(quantiles, low[..., None], -1)[..., 0]
    q_high = np.take_along_axis(quantiles, high[..., None], -1)[..., 0]
    beta_low, beta_high = tail_scales(quantiles)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = levels[low] + (x - q_low) / (q_high - q_low) * (levels[high] - levels[low])
        lower = levels[0] * np.exp(np.minimum((x - quantiles[..., 0]) / beta_low, 0.0))
        upper = 1 - (1 - levels[-1]) * np.exp(np.minimum((quantiles[..., -1] - x) / beta_high, 0.0))
    result = np.where(below == 0, lower, np.where(below == len(levels), upper, inside))
    equal = at_most > below
    middle = (levels[high] + levels[np.clip(at_most - 1, 0, None)]) / 2
    result = np.where(equal, middle, result)
    return np.where(np.isfinite(x) & np.isfinite(quantiles).all(-1), result, np.nan)


def known_later(x: Array, horizons: tuple[int, ...]) -> Array:
    """(T, N, H) of forecasts made at t → the same at the row where their outcome is known: row t has what was made at t − h."""
    result = np.full_like(x, np.nan)
    for i, h in enumerate(horizons):
        result[h:, :, i] = x[:-h, :, i]
    return result


def rolling_mean(x: Array, window: int) -> tuple[Array, Array]:
    """Mean over the last `window` rows of those that are not NaN, and how many they were; NaN where there were none."""
    known = np.isfinite(x)
    totals, counts = np.cumsum(np.where(known, x, 0.0), axis=0), np.cumsum(known, axis=0)
    if len(x) > window:
        totals[window:], counts[window:] = totals[window:] - totals[:-window], counts[window:] - counts[:-window]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counts > 0, totals / counts, np.nan), counts
