"""FatTailMarket: an asset that earns more and now and then crashes, beside one that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import norm

from rlplatform.data.log_optimal import Forecast
from rlplatform.data.market_law import LONG_ONLY, Array, Simulation, check_range, gaussian, prices_of


@dataclass(frozen=True, kw_only=True)
class FatTailMarket:
    """CARRY earns more than SAFE and crashes now and then; long-only, beside cash. No past says anything of the next bar.

        r_CARRY = drift_carry + σ_carry ε − (crash + σ_crash ζ) · 1{crash},    P(crash) = crash_probability
        r_SAFE  = drift_safe + σ_safe η                                        log returns, ε, ζ, η ~ N(0, 1)

    Who looks at growth alone holds CARRY alone (with the defaults 0.71 % a bar against SAFE's 0.40 %); who looks at the
    worst twentieth of the bars alone holds a seventh of it. What is best in between is known, see `tail_optimal`: a
    crash is rare enough to be paid for by the mean, and deep enough to be all of the tail. Drifts are large beside the
    spreads so that cash, with neither, is never best.

    Attributes:
        drift_carry, drift_safe: mean log returns, of CARRY in bars without a crash [per bar].
        sigma_carry, sigma_safe: standard deviations of log returns, of CARRY without crashes [per bar].
        crash_probability: of a bar.
        crash, sigma_crash: mean and standard deviation of what a crash takes off the log return.
    """

    drift_carry: float = 0.0075
    drift_safe: float = 0.004
    sigma_carry: float = 0.004
    sigma_safe: float = 0.0018
    crash_probability: float = 0.02
    crash: float = 0.02
    sigma_crash: float = 0.003

    symbols: ClassVar = ("CARRY", "SAFE")
    caps: ClassVar = LONG_ONLY

    def __post_init__(self) -> None:
        for name in ("drift_carry", "drift_safe"):
            check_range("fat_tail", name, getattr(self, name), -0.1, 0.1)
        for name in ("sigma_carry", "sigma_safe", "sigma_crash"):
            check_range("fat_tail", name, getattr(self, name), 0, 0.2)
        check_range("fat_tail", "crash_probability", self.crash_probability, 0, 1)
        check_range("fat_tail", "crash", self.crash, 0, 1)

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        """`states` is 1 in a bar with a crash, else 0."""
        shocks = rng.standard_normal((bars, 3))
        crashed = rng.random(bars) < self.crash_probability
        crashed[0] = False
        carry = self.drift_carry + self.sigma_carry * shocks[:, 0] - crashed * (self.crash + self.sigma_crash * shocks[:, 2])
        log_return = np.column_stack([carry, self.drift_safe + self.sigma_safe * shocks[:, 1]])
        log_return[0] = 0.0
        return Simulation(prices_of(np.cumsum(log_return, axis=0)), crashed.astype(int))

    def forecast(self, close: Array) -> Forecast:
        calm, crash = (gaussian(mean[None], covariance) for mean, covariance in self._parts)
        probability = np.concatenate(
            [(1 - self.crash_probability) * calm.probability, self.crash_probability * crash.probability], 1
        )
        returns = np.concatenate([calm.returns, crash.returns], 1)
        return Forecast(returns=returns, probability=np.repeat(probability, len(close), axis=0))

    def scenarios(self, points: int = 64) -> Forecast:
        """One row of the same law in 2 · points² scenarios, fine enough for its tails.

        Each normal variable at the midpoints of equal shares of probability; `forecast`'s few nodes are exact for
        moments, and know no quantile.
        """
        grid = norm.ppf((np.arange(points) + 0.5) / points)
        pairs = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
        each = [mean + pairs * np.sqrt(np.diag(covariance)) for mean, covariance in self._parts]
        shares = np.repeat([1 - self.crash_probability, self.crash_probability], len(pairs)) / len(pairs)
        return Forecast(returns=np.expm1(np.concatenate(each))[None], probability=shares[None])

    @property
    def _parts(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Mean (2,) and covariance (2, 2) of the log returns without and with a crash."""
        calm = np.array([self.drift_carry, self.drift_safe])
        spread, fall = np.diag([self.sigma_carry**2, self.sigma_safe**2]), np.array([self.crash, 0.0])
        return (calm, spread), (calm - fall, spread + np.diag([self.sigma_crash**2, 0.0]))
