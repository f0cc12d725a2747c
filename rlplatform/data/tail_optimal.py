"""Weights that weigh growth against its own tail: the known optimum of a CVaR objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import LinearConstraint, minimize

from envs.errors import ConfigError
from envs.terms import CapsConfig
from rlplatform.data.log_optimal import Forecast

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class TailPoint:
    """One point of the frontier between growth and its tail.

    Attributes:
        tail_weight: w of the objective.
        weights: (N,) optimal weights.
        log_growth: E[log(1 + x)] of the bar's portfolio return x.
        log_growth_cvar: mean of the worst share α of log(1 + x).
        return_cvar: mean of the same worst x, what a backtest's `cvar_5` estimates.
    """

    tail_weight: float
    weights: Array
    log_growth: float
    log_growth_cvar: float
    return_cvar: float


def tail_frontier(forecast: Forecast, caps: CapsConfig, alpha: float, tail_weights: Sequence[float]) -> tuple[TailPoint, ...]:
    """The optima of a range of objectives, one distribution of the next bar: see `tail_optimal_weights`."""
    return tuple(tail_point(forecast, tail_optimal_weights(forecast, caps, alpha, w), alpha, w) for w in tail_weights)


def tail_optimal_weights(forecast: Forecast, caps: CapsConfig, alpha: float, tail_weight: float) -> Array:
    """Weights that maximise (1 − w) E[g] + w CVaR_α[g] of the bar's log growth g = log(1 + x·r), long-only.

        CVaR_α[g] = min over 0 ≤ q ≤ p/α, Σq = 1 of Σ q g,    so ∂/∂x = Σ ((1 − w) p + w q*) r / (1 + x·r)

    Concave in x; q* puts its mass on the worst scenarios (Danskin). Solved by SLSQP from the growth-optimal side and from
    equal weights, the better of the two. Where bars are independent the optimum bar by bar is that of γ = 0.
    Source: Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk.

    Args:
        forecast: one row, of scenarios fine enough for the tail.
        caps: `long_only` and `gross`; others are taken to be slack.
        alpha: α in (0, 1].
        tail_weight: w in [0, 1].

    Returns:
        (N,) weights.

    Raises:
        ConfigError: the caps allow shorts.
    """
    if not caps.long_only:
        raise ConfigError("tail_optimal_weights knows long-only caps alone; set caps.long_only.")
    returns, probability = forecast.returns[0], forecast.probability[0]
    assets = returns.shape[1]

    def loss(x: Array) -> tuple[float, Array]:
        growth = np.log1p(returns @ x)
        tilt = (1 - tail_weight) * probability + tail_weight * worst_share(growth, probability, alpha)
        return -100 * float(tilt @ growth), -100 * (tilt / (1 + returns @ x)) @ returns

    budget = LinearConstraint(np.ones(assets), 0, caps.gross)
    starts = np.eye(assets) * caps.gross, np.full((1, assets), caps.gross / assets)
    found = [
        minimize(loss, x, jac=True, bounds=[(0, caps.gross)] * assets, constraints=budget, method="SLSQP", tol=1e-10)
        for x in np.concatenate(starts)
    ]
    best = np.clip(min(found, key=lambda result: result.fun).x, 0.0, None)
    return best / max(1.0, best.sum() / caps.gross)


def tail_point(forecast: Forecast, weights: Array, alpha: float, tail_weight: float = np.nan) -> TailPoint:
    """The figures of given weights (N,) under one distribution."""
    probability = forecast.probability[0]
    gain = forecast.returns[0] @ weights
    growth, tail = np.log1p(gain), worst_share(gain, probability, alpha)
    return TailPoint(
        tail_weight=tail_weight,
        weights=weights,
        log_growth=float(probability @ growth),
        log_growth_cvar=float(tail @ growth),
        return_cvar=float(tail @ gain),
    )


def worst_share(values: Array, probability: Array, alpha: float) -> Array:
    """q (Q,): the probability of the worst share α of the values, made to sum to 1; the scenario at the edge counts in part."""
    order = np.argsort(values, kind="stable")
    before = np.cumsum(probability[order]) - probability[order]
    share = np.empty_like(probability)
    share[order] = np.clip(alpha - before, 0.0, probability[order]) / alpha
    return share
