"""Moments of a distribution that is known by its quantiles: linear between them, exponential beyond."""

from __future__ import annotations

import numpy as np

from rlplatform.features.forecasts.forecast import LEVELS, tail_scales

Array = np.ndarray

NO_SPREAD = 1e-9  # standard deviation below which there is no skewness


def moments(quantiles: Array) -> tuple[Array, Array, Array]:
    """Mean, standard deviation and skewness.

    Between two quantiles a < b all values are equally likely: E[x] = (a + b)/2, E[x²] = (a² + ab + b²)/3,
    E[x³] = (a³ + a²b + ab² + b³)/4. Beyond the outermost, x = q ± β·E with E ~ Exp(1). Moments are taken about the median,
    where little cancels. Of a Student t with 3 degrees the standard deviation comes out 7 % low.

    Args:
        quantiles: (…, K) at `LEVELS`, sorted.

    Returns:
        (…) each, the first two in the unit of the quantiles; skewness 0 where the distribution is one point.
    """
    median = quantiles[..., len(LEVELS) // 2]
    x = quantiles - median[..., None]
    a, b, width = x[..., :-1], x[..., 1:], np.diff(LEVELS)
    first = (width * (a + b) / 2).sum(-1)
    second = (width * (a * a + a * b + b * b) / 3).sum(-1)
    third = (width * (a**3 + a * a * b + a * b * b + b**3) / 4).sum(-1)
    beta_low, beta_high = tail_scales(x)
    for q, scale, mass in ((x[..., 0], -beta_low, LEVELS[0]), (x[..., -1], beta_high, 1 - LEVELS[-1])):
        first = first + mass * (q + scale)
        second = second + mass * (q * q + 2 * q * scale + 2 * scale**2)
        third = third + mass * (q**3 + 3 * q * q * scale + 6 * q * scale**2 + 6 * scale**3)
    variance = np.maximum(second - first**2, 0.0)
    std = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.where(std > NO_SPREAD, (third - 3 * first * second + 2 * first**3) / std**3, 0.0)
    return median + first, std, skew


def cvar_05(quantiles: Array) -> Array:
    """Mean of the worst 5 %: q05 − β with the tail's scale β = (q05 − q01)/ln 5."""
    return quantiles[..., 1] - tail_scales(quantiles)[0]
