"""TwoModeMarket: a signal that pays in one regime and misleads in the other, and a gauge that tells them apart, noisily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlplatform.data.log_optimal import Forecast
from rlplatform.data.market_law import LONG_ONLY, Array, Simulation, check_range, prices_of, sigma_points

TREND, CHOP = 0, 1


@dataclass(frozen=True, kw_only=True)
class TwoModeMarket:
    """A and B follow their own last return while a trend lasts; in a chop it says nothing and holding loses. Long-only.

        trend:  r_{t+1} = φ r_t + σ ε        FEAR's log return ~ N(−σ_F²/2, σ_F²)
        chop:   r_{t+1} = −loss + σ ε        FEAR's log return ~ N(−k² σ_F²/2, k² σ_F²)

    The regime is a Markov chain that stays with probability p, else changes. A and B look alike in both regimes but for what
    follows what; FEAR moves k times as much in a chop, and earns nothing in either: E[P_{t+1} / P_t] = 1, so the best
    portfolio never holds it. How much it moved of late is the noisy column by which the regime shows.

    In a trend the right mode is aggressive: wealth in whichever of A and B rose. In a chop it is passive: cash. The honest
    optimum is that of the Bayes filter (Hamilton 1989) over all three returns,
    π_t(s) ∝ p(r_t | s, r_{t−1}) Σ_s' π_{t−1}(s') P(s', s).

    Attributes:
        phi: φ, in (0, 1).
        loss: what holding A or B loses in a chop [log return per bar].
        sigma: of an innovation of A and B [per bar].
        stay: p.
        sigma_fear: σ_F, of FEAR in a trend [per bar].
        fear_ratio: k, above 1; nearer to 1 is noisier.
    """

    phi: float = 0.5
    loss: float = 0.008
    sigma: float = 0.02
    stay: float = 0.98
    sigma_fear: float = 0.01
    fear_ratio: float = 2.0

    symbols: ClassVar = ("A", "B", "FEAR")
    caps: ClassVar = LONG_ONLY

    def __post_init__(self) -> None:
        for name, low, high in (
            *(("phi", 0, 1), ("loss", 0, 0.1), ("sigma", 0, 0.2)),
            *(("stay", 0, 1), ("sigma_fear", 0, 0.1), ("fear_ratio", 1, 10)),
        ):
            check_range("two_mode", name, getattr(self, name), low, high)

    @property
    def transition(self) -> Array:
        """(2, 2) probability of the next regime (across) given this one (down)."""
        return np.array([[self.stay, 1 - self.stay], [1 - self.stay, self.stay]])

    @property
    def covariances(self) -> tuple[Array, Array]:
        """(3, 3) of the log returns in a trend and in a chop."""
        fears = self.sigma_fear, self.fear_ratio * self.sigma_fear
        return tuple(np.diag([self.sigma**2, self.sigma**2, fear**2]) for fear in fears)

    def means(self, log_return: Array) -> Array:
        """(2, T, 3) of the next bar's log returns in each regime, after log returns (T, 3)."""
        means = np.zeros((2, *log_return.shape))
        means[TREND, :, :2], means[CHOP, :, :2] = self.phi * log_return[:, :2], -self.loss
        for regime, covariance in enumerate(self.covariances):
            means[regime, :, 2] = -covariance[2, 2] / 2
        return means

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        """`states` is 0 in a trend and 1 in a chop."""
        moves = rng.random(bars) >= self.stay
        moves[0] = rng.random() < 0.5
        states, shocks = np.cumsum(moves) % 2, rng.standard_normal((bars, 3))
        spread = np.sqrt([np.diag(covariance) for covariance in self.covariances])
        log_return = np.zeros((bars, 3))
        for t in range(1, bars):
            mean = self.means(log_return[t - 1 : t])[states[t], 0]
            log_return[t] = mean + spread[states[t]] * shocks[t]
        return Simulation(prices_of(np.cumsum(log_return, axis=0)), states)

    def beliefs(self, close: Array) -> Array:
        """(T, 2) probability of the regime of the bar that ends at t, given rows ≤ t; row 0 has seen no return."""
        log_return = _log_returns(close)
        means = self.means(log_return[:-1])
        log_likelihood = np.zeros((len(close), 2))
        for regime, covariance in enumerate(self.covariances):
            variance = np.diag(covariance)
            gap = log_return[1:] - means[regime]
            log_likelihood[1:, regime] = -0.5 * (gap**2 / variance + np.log(variance)).sum(1)
        likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
        beliefs, transition = np.full((len(close), 2), 0.5), self.transition
        for t in range(1, len(close)):
            posterior = (beliefs[t - 1] @ transition) * likelihood[t]
            beliefs[t] = posterior / posterior.sum()
        return beliefs

    def forecast(self, close: Array) -> Forecast:
        return self._mixture(close, self.beliefs(close) @ self.transition)

    def _mixture(self, close: Array, regime_probability: Array) -> Forecast:
        """Scenarios of both regimes, weighted by (T, 2) probabilities of the next one."""
        means = self.means(_log_returns(close))
        each = [sigma_points(mean, covariance) for mean, covariance in zip(means, self.covariances, strict=True)]
        probability = [regime_probability[:, [regime]] * part.probability for regime, part in enumerate(each)]
        return Forecast(returns=np.concatenate([part.returns for part in each], 1), probability=np.concatenate(probability, 1))


def _log_returns(close: Array) -> Array:
    """(T, N); 0 in row 0."""
    return np.diff(np.log(close), axis=0, prepend=np.log(close[:1]))
