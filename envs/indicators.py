"""Indicators: what a window of past returns says about an asset. Pure numpy, causal, one implementation for all rooms.

Every function takes arrays whose leading axis is time, (T,) or (T, N), and returns float64 of the same shape. The value
at row t uses rows ≤ t only. The first rows have fewer than `window` rows behind them: there the window is all rows so
far (it expands), so every value is finite from row 0 on; a caller who wants full windows only drops the first rows.
`gross[t] = P_t / P_{t-1}`, and row 0 counts as a return like any other (1, no change, where the one before is unknown).

Windows are folded by doubling (a window of 2k rows is two of k), with merges that only ever add: no running sums that a
crash of ×1e-6 would leave full of rounding error, O(T N log window) time, O(T N) memory, and a row's value does not
depend on what else is in the array, to the last bit. Source of the merges: Chan, Golub & LeVeque (1983); Pébay (2008).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

import numpy as np

from envs.errors import ConfigError, ShapeError

Array = np.ndarray
Fold = tuple[Array, ...]

BARS_PER_YEAR = 252
CALM, CHOPPY, CRISIS = 0, 1, 2
REGIME_NAMES = ("calm", "choppy", "crisis")

GROSS_BOUNDS = (1e-12, 1e12)  # one bar's return is clipped to these, so that its logarithm is finite
LOG_PRICE_BOUND = 20.0  # |log| of a price ratio before exp
VALUE_BOUND = 1e60  # |x| before squares are taken
NO_SPREAD = 1e-10  # standard deviation / (1 + |mean|) below which a window counts as constant


def log_returns(gross: Array) -> Array:
    """log(P_t / P_{t-1}) [natural log per bar]; one bar's return is clipped to [1e-12, 1e12] first."""
    return np.log(np.clip(_series(gross, "gross"), *GROSS_BOUNDS))


def momentum(gross: Array, window: int) -> Array:
    """log(P_t / P_{t-window}): change of the log price over `window` bars [natural log]."""
    (total,) = _fold((log_returns(gross),), _merge_sum, (0.0,), window)
    return total


def relative_price(gross: Array, window: int) -> Array:
    """P_t / P_{t-window} [ratio, > 0]; its logarithm is clipped to ±20."""
    return np.exp(np.clip(momentum(gross, window), -LOG_PRICE_BOUND, LOG_PRICE_BOUND))


def realised_volatility(gross: Array, window: int, bars_per_year: int = BARS_PER_YEAR) -> Array:
    """Standard deviation of the last `window` log returns (n − 1 in the denominator) × sqrt(bars_per_year).

    Unit: fraction a year; `bars_per_year=1` gives it per bar. 0 at row 0, where one return has no spread.
    """
    count, _, square = _moments(log_returns(gross), window)
    return np.sqrt(square / np.maximum(count - 1.0, 1.0) * bars_per_year)


def ewma_volatility(gross: Array, decay: float = 0.94) -> Array:
    """RiskMetrics volatility of log returns around zero [fraction per bar].

        σ²_t = Σᵢ decayⁱ r²_{t-i} / Σᵢ decayⁱ,    i = 0 … t

    The weights sum to 1 from row 0 on, so no start value is invented. Source: J.P. Morgan/Reuters (1996), §5.2.
    """
    if not 0 < decay < 1:
        raise ConfigError(f"ewma_volatility: decay = {decay}; expected in (0, 1). RiskMetrics uses 0.94 for daily bars.")
    squares = log_returns(gross) ** 2
    variance = np.empty_like(squares)
    total, weight = np.zeros_like(squares[0]), 0.0
    for t, square in enumerate(squares):
        total, weight = decay * total + square, decay * weight + 1.0
        variance[t] = total / weight
    return np.sqrt(variance)


def skewness(gross: Array, window: int) -> Array:
    """Third standardised moment m₃ / m₂^1.5 of the last `window` log returns (population form) [−].

    |skewness| ≤ (n − 2) / sqrt(n − 1) for n returns; 0 where they do not vary.
    """
    x = log_returns(gross)
    count, mean, square, cube = _fold((_ones(x), x, np.zeros_like(x), np.zeros_like(x)), _merge_skew, (0.0,) * 4, window)
    deviation = np.sqrt(square / count)
    return _ratio(cube / count, deviation**3, deviation > NO_SPREAD * (1.0 + abs(mean)))


def drawdown(gross: Array, window: int | None = None) -> Array:
    """P_t / max(P over the last `window` closes) − 1, in [−1, 0] [fraction]; over all closes so far if no window."""
    log_price = np.cumsum(log_returns(gross), axis=0)
    (peak,) = _fold((log_price,), _merge_max, (-np.inf,), len(log_price) if window is None else window)
    return np.expm1(log_price - peak)


def drawdown_velocity(gross: Array, window: int | None, lag: int) -> Array:
    """(drawdown_t − drawdown_{t-lag}) / lag: below zero while the fall deepens [fraction per bar]."""
    fall = drawdown(gross, window)
    lag = _positive(lag, "lag")
    before = np.concatenate([np.repeat(fall[:1], min(lag, len(fall)), axis=0), fall[:-lag]])
    return (fall - before) / lag


def moving_average_distance(gross: Array, window: int) -> Array:
    """P_t / mean(P over the last `window` closes) − 1, in [−1, window − 1] [fraction]."""
    log_price = np.cumsum(log_returns(gross), axis=0)
    count, log_sum = _fold((_ones(log_price), log_price), _merge_logsum, (0.0, -np.inf), window)
    return np.expm1(log_price - log_sum + np.log(count))


def rsi(gross: Array, window: int = 14) -> Array:
    """Wilder's relative strength index on log returns, in [0, 1]: U / (U + D); 0.5 where nothing has moved.

    U and D are Wilder averages of rises and falls: the mean of the first `window` changes (rows 1 … window), then
    U_t = U_{t-1} + (rise_t − U_{t-1}) / window. Source: Wilder (1978), New Concepts in Technical Trading Systems.
    """
    window = _positive(window, "window")
    changes = log_returns(gross)
    strength = np.full_like(changes, 0.5)
    up = down = np.zeros_like(changes[0])
    for t, change in enumerate(changes):
        share = 1.0 / min(max(t, 1), window)
        up = up + share * (np.maximum(change, 0.0) - up)
        down = down + share * (np.maximum(-change, 0.0) - down)
        moved = up + down
        strength[t] = np.where(moved > 0, _ratio(up, moved, moved > 0), 0.5)
    return strength


def zscore(x: Array, window: int) -> Array:
    """(x_t − mean) / standard deviation over the last `window` rows, x_t among them (population form) [−].

    |z| ≤ sqrt(n − 1) for n rows; 0 where they do not vary. x is clipped to ±1e60 first.
    """
    x = np.clip(_series(x, "x"), -VALUE_BOUND, VALUE_BOUND)
    count, mean, square = _moments(x, window)
    deviation = np.sqrt(square / count)
    return _ratio(x - mean, deviation, deviation > NO_SPREAD * (1.0 + abs(mean)))


def rolling_correlation(x: Array, y: Array, window: int) -> Array:
    """Pearson correlation of x and y over the last `window` rows, in [−1, 1]; 0 where either does not vary.

    Args:
        x, y: (T,) or (T, N), for instance log returns; a (T,) one is held against every column of the other.
            Values are clipped to ±1e60 first.
    """
    x, y = (np.clip(_series(a, name), -VALUE_BOUND, VALUE_BOUND) for a, name in ((x, "x"), (y, "y")))
    if len(x) != len(y):
        raise ShapeError(f"rolling_correlation: x has {len(x)} rows and y has {len(y)}; they must be the same bars.")
    if x.ndim != y.ndim:
        x, y = (a[:, None] if a.ndim == 1 else a for a in (x, y))
    x, y = np.broadcast_arrays(x, y)
    zero = np.zeros_like(x)
    count, mean_x, mean_y, xx, yy, xy = _fold((_ones(x), x, y, zero, zero, zero), _merge_pairs, (0.0,) * 6, window)
    varies = (np.sqrt(xx / count) > NO_SPREAD * (1.0 + abs(mean_x))) & (np.sqrt(yy / count) > NO_SPREAD * (1.0 + abs(mean_y)))
    return np.clip(_ratio(xy, np.sqrt(xx) * np.sqrt(yy), varies), -1.0, 1.0)


def average_correlation(gross: Array, window: int) -> Array:
    """Correlation of each asset's log returns with the equal-weight mean of all the others', (T, N) in [−1, 1].

    O(N), where all pairs would be O(N²); for two assets it is their correlation. 0 for a single asset.
    """
    x = log_returns(gross)
    if x.ndim != 2:
        raise ShapeError(f"average_correlation: gross has shape {x.shape}; expected (T, N).")
    if x.shape[1] < 2:
        return np.zeros_like(x)
    others = (x.sum(1, keepdims=True) - x) / (x.shape[1] - 1)
    return rolling_correlation(x, others, window)


def volatility_regime(
    gross_market: Array,
    window: int = 21,
    quantiles: tuple[float, float] = (0.60, 0.90),
    drawdowns: tuple[float, float] = (-0.10, -0.20),
    min_history: int = 252,
    warm_up_levels: tuple[float, float] = (0.15, 0.30),
    bars_per_year: int = BARS_PER_YEAR,
) -> Array:
    """State of the market: 0 calm, 1 choppy, 2 crisis (`REGIME_NAMES`), from what was known at each close.

    σ_t is the realised volatility over `window` bars, q_t the share of ITS OWN EARLIER values (rows < t) below it, and
    d_t the drawdown from the highest close of `min_history` bars.

        raised_t = q_t ≥ quantiles[0],  high_t = q_t ≥ quantiles[1]
        crisis:  high_t, or raised_t and d_t ≤ drawdowns[1]
        choppy:  raised_t, or d_t ≤ drawdowns[0], and not crisis
        calm:    otherwise

    Warm-up: while fewer than `min_history` rows lie behind, a share of history means little, so σ_t is compared with
    `warm_up_levels` (15 % and 30 % a year: near the 60 % and 95 % quantiles of 21-day volatility of the S&P 500, 1990-2022).

    Args:
        gross_market: (T,) the market's `P_t / P_{t-1}`, for instance the equal-weight mean of the assets'.
        quantiles: shares of history at which volatility is raised and high.
        drawdowns: falls that make a market choppy, and crisis while volatility is raised [fraction, < 0].
        min_history: bars before history is trusted, and over which the highest close is taken.
        warm_up_levels: raised and high before that [fraction a year].

    Returns:
        (T,) int64.
    """
    if np.ndim(gross_market) != 1:
        raise ShapeError(f"volatility_regime: gross_market has shape {np.shape(gross_market)}; expected (T,).")
    volatility = realised_volatility(gross_market, window, bars_per_year)
    share = share_of_history_below(volatility)
    warming_up = np.arange(len(volatility)) < min_history
    raised, high = (
        np.where(warming_up, volatility >= level, share >= quantile)
        for level, quantile in zip(warm_up_levels, quantiles, strict=True)
    )
    fall = drawdown(gross_market, min_history)
    crisis = high | (raised & (fall <= drawdowns[1]))
    choppy = raised | (fall <= drawdowns[0])
    return np.where(crisis, CRISIS, np.where(choppy, CHOPPY, CALM))


def share_of_history_below(x: Array) -> Array:
    """#{s < t: x_s < x_t} / t; 0 at row 0."""
    history: list[float] = []
    share = np.zeros(len(x))
    for t, value in enumerate(x.tolist()):
        share[t] = bisect_left(history, value) / max(t, 1)
        insort(history, value)
    return share


def _moments(x: Array, window: int) -> tuple[Array, Array, Array]:
    """Per trailing window: rows n, mean, Σ(x − mean)²."""
    return _fold((_ones(x), x, np.zeros_like(x)), _merge_moments, (0.0, 0.0, 0.0), window)


def _fold(leaves: Fold, merge: Callable[[Fold, Fold], Fold], empty: tuple[float, ...], window: int) -> Fold:
    """Merge the last `window` rows (fewer at the start) of every row, by doubling.

    Args:
        leaves: arrays with a leading time axis, the state of a one-row window.
        merge: joins the states of two neighbouring windows, the older one first; associative.
        empty: the state of no rows at all, one number for each leaf.
    """
    rest = min(_positive(window, "window"), len(leaves[0]))
    block, span = leaves, 1  # block[t] covers rows t − span + 1 … t
    done, taken = None, 0  # done[t] covers the last `taken` rows
    while rest:
        if rest & 1:
            done = block if done is None else merge(_lagged(block, taken, empty), done)
            taken += span
        rest >>= 1
        if rest:
            block = merge(_lagged(block, span, empty), block)
            span *= 2
    return done


def _lagged(state: Fold, rows: int, empty: tuple[float, ...]) -> Fold:
    return tuple(np.concatenate([np.full_like(a[:rows], e), a[:-rows]]) for a, e in zip(state, empty, strict=True))


def _merge_sum(a: Fold, b: Fold) -> Fold:
    return (a[0] + b[0],)


def _merge_max(a: Fold, b: Fold) -> Fold:
    return (np.maximum(a[0], b[0]),)


def _merge_logsum(a: Fold, b: Fold) -> Fold:
    return a[0] + b[0], np.logaddexp(a[1], b[1])


def _merge_moments(a: Fold, b: Fold) -> Fold:
    """(n, mean, Σ(x − mean)²) of two windows together. `b` is never empty."""
    (n_a, mean_a, square_a), (n_b, mean_b, square_b) = a, b
    n, delta = n_a + n_b, mean_b - mean_a
    return n, mean_a + delta * (n_b / n), square_a + square_b + delta**2 * (n_a * n_b / n)


def _merge_skew(a: Fold, b: Fold) -> Fold:
    """`_merge_moments` and Σ(x − mean)³."""
    n_a, mean_a, square_a, cube_a = a
    n_b, mean_b, square_b, cube_b = b
    n, mean, square = _merge_moments(a[:3], b[:3])
    delta = mean_b - mean_a
    cube = cube_a + cube_b + delta**3 * (n_a * n_b * (n_a - n_b) / n**2)
    return n, mean, square, cube + 3.0 * delta * (n_a * square_b - n_b * square_a) / n


def _merge_pairs(a: Fold, b: Fold) -> Fold:
    """(n, means of x and y, Σdx², Σdy², Σdxdy) of two windows together."""
    n, n_a, n_b = a[0] + b[0], a[0], b[0]
    dx, dy, share, weight = b[1] - a[1], b[2] - a[2], n_b / n, n_a * n_b / n
    squares = (a[3] + b[3] + dx * dx * weight, a[4] + b[4] + dy * dy * weight, a[5] + b[5] + dx * dy * weight)
    return n, a[1] + dx * share, a[2] + dy * share, *squares


def _ratio(numerator: Array, denominator: Array, defined: Array) -> Array:
    return np.where(defined, numerator, 0.0) / np.where(defined, denominator, 1.0)


def _ones(x: Array) -> Array:
    return np.ones((len(x),) + (1,) * (x.ndim - 1))


def _series(x: Array, name: str) -> Array:
    x = np.asarray(x, dtype=np.float64, order="C")  # a sum over assets depends on the memory order, in its last bit
    if x.ndim not in (1, 2) or len(x) == 0:
        raise ShapeError(f"{name} has shape {x.shape}; expected (T,) or (T, N) with at least one row.")
    return x


def _positive(bars: int, name: str) -> int:
    if bars != int(bars) or bars < 1:
        raise ConfigError(f"{name} = {bars}; expected a whole number of bars, at least 1.")
    return int(bars)
