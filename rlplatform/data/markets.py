"""Markets with a planted signal: how they are simulated, and what their past says of their next bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlplatform.data.fat_tail import FatTailMarket
from rlplatform.data.lead_lag import LeadLagMarket
from rlplatform.data.log_optimal import Forecast
from rlplatform.data.market_law import (
    LONG_ONLY,
    PAIR_CAPS,
    Array,
    Simulation,
    autoregress,
    check_range,
    gaussian,
    prices_of,
)
from rlplatform.data.two_mode import TwoModeMarket


@dataclass(frozen=True, kw_only=True)
class MomentumMarket:
    """One asset whose log return is an AR(1) around its mean; long-only, beside cash.

        r_{t+1} = μ + φ (r_t − μ) + σ ε,    r_0 = μ

    Known at t: r_{t+1} ~ N(μ + φ (r_t − μ), σ²). Holding earns μ a bar; the optimum earns about φσ / √(2π(1 − φ²)).

    Attributes:
        mu: mean log return [per bar].
        phi: autocorrelation, in (−1, 1).
        sigma: standard deviation of the innovation [per bar].
    """

    mu: float = 0.0
    phi: float = 0.5
    sigma: float = 0.02

    symbols: ClassVar = ("MOM",)
    caps: ClassVar = LONG_ONLY

    def __post_init__(self) -> None:
        check_range("momentum", "phi", self.phi, -1, 1)
        check_range("momentum", "sigma", self.sigma, 0, 0.2)
        check_range("momentum", "mu", self.mu, -0.1, 0.1)

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        shocks = self.sigma * rng.standard_normal(bars)
        shocks[0] = 0.0
        excess = autoregress(shocks, self.phi)
        return Simulation(prices_of(np.cumsum(np.append(0.0, self.mu + excess[1:]))[:, None]))

    def forecast(self, close: Array) -> Forecast:
        log_return = np.diff(np.log(close), axis=0, prepend=np.nan)
        log_return[0] = self.mu
        mean = self.mu + self.phi * (log_return - self.mu)
        return gaussian(mean, np.array([[self.sigma**2]]))


@dataclass(frozen=True, kw_only=True)
class RegimeMarket:
    """Three assets and four hidden persistent regimes: in each of the first three one asset leads, in the last none.

        r_t = m(s_t) + σ (√ρ ε₀ + √(1 − ρ) εₙ),    s_t a Markov chain that stays with probability p, else moves evenly

    The leader drifts `drift_best`, every other asset `drift_other`. With the defaults each asset's mean over the regimes is
    zero, so holding earns nothing. Regimes show in recent returns only; the honest optimum is that of the Bayes filter
    (Hamilton 1989), π_t(s) ∝ N(r_t; m(s), Σ) Σ_s' π_{t−1}(s') P(s', s). The optimum that sees the next regime is an
    upper bound that nobody can reach.

    Attributes:
        drift_best, drift_other: mean log returns [per bar].
        stay: probability that a regime lasts one bar more.
        sigma: standard deviation of a log return within a regime [per bar].
        correlation: of two assets within a regime.
    """

    drift_best: float = 0.006
    drift_other: float = -0.002
    stay: float = 0.98
    sigma: float = 0.01
    correlation: float = 0.5

    symbols: ClassVar = ("A", "B", "C")
    caps: ClassVar = LONG_ONLY

    def __post_init__(self) -> None:
        check_range("regimes", "drift_best", self.drift_best, -0.1, 0.1)
        check_range("regimes", "drift_other", self.drift_other, -0.1, 0.1)
        check_range("regimes", "stay", self.stay, 0, 1)
        check_range("regimes", "sigma", self.sigma, 0, 0.2)
        check_range("regimes", "correlation", self.correlation, -0.5, 1)

    @property
    def means(self) -> Array:
        """(S, N) mean log return of each asset in each regime."""
        means = np.full((4, 3), self.drift_other)
        means[:3][np.eye(3, dtype=bool)] = self.drift_best
        return means

    @property
    def transition(self) -> Array:
        """(S, S) probability of the next regime (across) given this one (down)."""
        moves = (1.0 - self.stay) / 3.0
        return np.full((4, 4), moves) + (self.stay - moves) * np.eye(4)

    @property
    def covariance(self) -> Array:
        """(N, N) of log returns within a regime."""
        return self.sigma**2 * (self.correlation + (1.0 - self.correlation) * np.eye(3))

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        moves = rng.random(bars) >= self.stay
        steps = np.where(moves, rng.integers(1, 4, bars), 0)
        steps[0] = rng.integers(4)
        states = np.cumsum(steps) % 4
        noise = rng.standard_normal((bars, 3)) @ np.linalg.cholesky(self.covariance).T
        log_return = self.means[states] + noise
        log_return[0] = 0.0
        return Simulation(prices_of(np.cumsum(log_return, axis=0)), states)

    def beliefs(self, close: Array) -> Array:
        """(T, S) probability of the regime of the bar that ends at t, given rows ≤ t; row 0 has seen no return."""
        log_return = np.diff(np.log(close), axis=0)
        gap = log_return[:, None, :] - self.means
        distance = np.einsum("tsn,nm,tsm->ts", gap, np.linalg.inv(self.covariance), gap)
        likelihood = np.exp(-0.5 * (distance - distance.min(axis=1, keepdims=True)))
        transition = self.transition
        beliefs = np.full((len(close), 4), 0.25)
        for t, likely in enumerate(likelihood):
            posterior = (beliefs[t] @ transition) * likely
            beliefs[t + 1] = posterior / posterior.sum()
        return beliefs

    def forecast(self, close: Array) -> Forecast:
        return self._mixture(self.beliefs(close) @ self.transition)

    def clairvoyant_forecast(self, states: Array) -> Forecast:
        """The forecast of one who knows the regime of the NEXT bar; the last row knows the present one."""
        following = np.append(states[1:], states[-1])
        return self._mixture(np.eye(4)[following])

    def _mixture(self, state_probability: Array) -> Forecast:
        """Scenarios of all regimes, weighted by (T, S) probabilities of the next one."""
        each = gaussian(self.means, self.covariance, nodes=3)
        probability = state_probability[:, :, None] * each.probability
        return Forecast(returns=each.returns.reshape(1, -1, 3), probability=probability.reshape(len(probability), -1))


@dataclass(frozen=True, kw_only=True)
class PairMarket:
    """Two assets around one random walk whose log spread reverts to zero; signed weights, gross cap 2.

        log A = c + s/2,  log B = c − s/2,    c_{t+1} = c_t − v/2 + σ_c ε,    s_{t+1} = (1 − κ) s_t + σ_s η

    with v = σ_c² + σ_s²/4, so that at zero spread neither asset drifts: E[P_{t+1} / P_t] = 1.
    Known at t: Δs ~ N(−κ s_t, σ_s²), so a spread above zero is sold: short A, long B, each near 1
    (the long leg slightly more, for rises compound).

    Attributes:
        kappa: share of the spread that reverts in a bar, in (0, 1).
        sigma_spread, sigma_common: standard deviations of the innovations [per bar].
    """

    kappa: float = 0.2
    sigma_spread: float = 0.02
    sigma_common: float = 0.01

    symbols: ClassVar = ("A", "B")
    caps: ClassVar = PAIR_CAPS

    def __post_init__(self) -> None:
        check_range("pair", "kappa", self.kappa, 0, 1)
        check_range("pair", "sigma_spread", self.sigma_spread, 0, 0.2)
        check_range("pair", "sigma_common", self.sigma_common, 0, 0.2)

    @property
    def covariance(self) -> Array:
        """(2, 2) of the log returns."""
        common, spread = self.sigma_common**2, self.sigma_spread**2 / 4
        return np.array([[common + spread, common - spread], [common - spread, common + spread]])

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        common = np.cumsum(np.append(0.0, self.sigma_common * rng.standard_normal(bars - 1) - self.covariance[0, 0] / 2))
        shocks = self.sigma_spread * rng.standard_normal(bars)
        shocks[0] /= np.sqrt(1.0 - (1.0 - self.kappa) ** 2)  # the spread starts in its stationary law
        spread = autoregress(shocks, 1.0 - self.kappa)
        return Simulation(prices_of(np.column_stack([common + spread / 2, common - spread / 2])))

    def forecast(self, close: Array) -> Forecast:
        reversion = -self.kappa * np.log(close[:, 0] / close[:, 1])
        mean = np.column_stack([reversion / 2, -reversion / 2]) - self.covariance[0, 0] / 2
        return gaussian(mean, self.covariance)


@dataclass(frozen=True, kw_only=True)
class NoSignalMarket:
    """Three assets with independent returns of equal mean: no past says anything of the next bar.

        r = log(1 + drift) − σ²/2 + σ ε,    E[P_{t+1} / P_t] = 1 + drift

    With drift 0 every policy's expected return is zero, and the log-optimal one is cash.

    Attributes:
        drift: mean simple return of each asset [per bar].
        sigma: standard deviation of a log return [per bar].
    """

    drift: float = 0.0
    sigma: float = 0.01

    symbols: ClassVar = ("A", "B", "C")
    caps: ClassVar = LONG_ONLY

    def __post_init__(self) -> None:
        check_range("no_signal", "drift", self.drift, -0.1, 0.1)
        check_range("no_signal", "sigma", self.sigma, 0, 0.2)

    @property
    def mean(self) -> float:
        """Mean log return [per bar]."""
        return float(np.log1p(self.drift) - self.sigma**2 / 2)

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        log_return = self.mean + self.sigma * rng.standard_normal((bars, 3))
        log_return[0] = 0.0
        return Simulation(prices_of(np.cumsum(log_return, axis=0)))

    def forecast(self, close: Array) -> Forecast:
        each = gaussian(np.full((1, 3), self.mean), self.sigma**2 * np.eye(3), nodes=5)
        return Forecast(returns=each.returns, probability=np.repeat(each.probability, len(close), axis=0))


MARKETS: dict[str, type] = {
    "momentum": MomentumMarket,
    "regimes": RegimeMarket,
    "pair": PairMarket,
    "no_signal": NoSignalMarket,
    "lead_lag": LeadLagMarket,
    "fat_tail": FatTailMarket,
    "two_mode": TwoModeMarket,
}
