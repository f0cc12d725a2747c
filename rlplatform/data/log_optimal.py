"""Log-optimal weights: the growth-optimal portfolio of a known conditional distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.errors import ShapeError
from envs.terms import CapsConfig

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast:
    """The distribution of the next bar's returns as scenarios, given what is known at each close.

    Attributes:
        returns: (T or 1, Q, N) simple returns of Q scenarios [fraction].
        probability: (T or 1, Q), each row sums to 1.
    """

    returns: Array
    probability: Array

    def __post_init__(self) -> None:
        if self.returns.ndim != 3 or self.probability.ndim != 2 or self.returns.shape[1] != self.probability.shape[1]:
            raise ShapeError(
                f"Forecast.returns {self.returns.shape}, probability {self.probability.shape}; expected (T, Q, N) and (T, Q)."
            )

    def expected_log_growth(self, weights: Array) -> Array:
        """(T,) E[log(1 + w·r)] of (T, N) weights, per bar and without costs."""
        growth = np.log1p(self._portfolio(weights))
        return np.einsum("tq,tq->t", *np.broadcast_arrays(self.probability, growth))

    def _portfolio(self, weights: Array) -> Array:
        """(T, Q) w·r in every scenario."""
        if len(self.returns) == 1:
            return weights @ self.returns[0].T
        return np.einsum("tn,tqn->tq", weights, self.returns)

    def gradient(self, weights: Array) -> Array:
        """(T, N) derivative of `expected_log_growth`: E[r / (1 + w·r)]."""
        tilted = self.probability / (1.0 + self._portfolio(weights))
        if len(self.returns) == 1:
            return tilted @ self.returns[0]
        return np.einsum("tq,tqn->tn", tilted, self.returns)

    def curvature(self) -> Array:
        """(T or 1, 1) trace of E[r rᵀ], which bounds the second derivative at w = 0."""
        squares = (self.returns**2).sum(-1)
        return (self.probability * squares).sum(-1, keepdims=True)


def log_optimal_weights(forecast: Forecast, caps: CapsConfig, iterations: int = 100) -> Array:
    """Weights that maximise expected log growth over the feasible set.

        w* = argmax E[log(1 + w·r)]    over  {w ≥ 0, Σw ≤ gross}  or  {Σ|w| ≤ gross}

    The problem is concave; accelerated projected gradient with restarts solves all T of them at once. Without costs log
    utility is myopic, so w* bar by bar is the optimum of the whole path.
    Sources: Kelly (1956); Samuelson (1969) for myopia; O'Donoghue and Candès (2015) for the restarts.

    Args:
        forecast: conditional distributions, T of them.
        caps: `long_only` and `gross`; net and per-asset caps are taken to be slack.
        iterations: upper bound on steps.

    Returns:
        (T, N) weights.
    """
    times = max(len(forecast.returns), len(forecast.probability))
    weights = np.zeros((times, forecast.returns.shape[-1]))
    stride = 0.5 / forecast.curvature()
    lead, momentum = weights, np.ones((times, 1))
    for _ in range(iterations):
        gradient = forecast.gradient(lead)
        moved = project_to_gross(lead + stride * gradient, caps.gross, caps.long_only)
        change = moved - weights
        downhill = (gradient * change).sum(-1, keepdims=True) < 0
        next_momentum = np.where(downhill, 1.0, 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)))
        lead = moved + np.where(downhill, 0.0, (momentum - 1.0) / next_momentum) * change
        # The lead may step outside the set, where 1 + w·r could vanish.
        lead = project_to_gross(lead, caps.gross, caps.long_only)
        weights, momentum = moved, next_momentum
        if np.abs(change).max() < 1e-10:
            break
    return weights


def project_to_gross(weights: Array, gross: float, long_only: bool) -> Array:
    """The Euclidean projection onto {w ≥ 0, Σw ≤ gross} or {Σ|w| ≤ gross}, row by row.

    Soft thresholding |w| − θ with the θ that meets the cap. Source: Duchi et al. (2008).
    """
    size = np.clip(weights, 0.0, None) if long_only else np.abs(weights)
    ordered = -np.sort(-size, axis=-1)
    excess = (np.cumsum(ordered, axis=-1) - gross) / np.arange(1, size.shape[-1] + 1)
    theta = np.clip(excess.max(axis=-1, keepdims=True), 0.0, None)
    shrunk = np.clip(size - theta, 0.0, None)
    return shrunk if long_only else np.sign(weights) * shrunk
