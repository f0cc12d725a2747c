"""LeadLagMarket: assets that follow each other along a graph."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from envs.errors import ConfigError
from rlplatform.data.log_optimal import Forecast
from rlplatform.data.market_law import LONG_ONLY, Array, Simulation, check_range, prices_of, sigma_points


@dataclass(frozen=True, kw_only=True)
class LeadLagMarket:
    """Assets in sectors that follow each other: what an asset's neighbours did is what it will do. Long-only, beside cash.

        r_{i,t+1} = φ · mean of r_{j,t} over i's neighbours j  +  σ (√ρ ε_sector + √(1 − ρ) ε_i),    r_0 = 0

    Neighbours are the assets of the same sector. The sector's common shock makes them correlated at the same time, so that
    past returns show who they are; an asset's own last return says of its next one only what it says of its neighbours'.
    Known at t: r_{t+1} ~ N(φ A r_t, Σ). Holding everything earns nothing but the variance.

    Attributes:
        assets: N, dealt to the sectors in turn (asset i is in sector i mod `sectors`).
        sectors: number of them, each of at least two assets.
        phi: φ, in (−1, 1).
        sigma: standard deviation of an innovation [per bar].
        correlation: ρ of two innovations of one sector.
    """

    assets: float = 12
    sectors: float = 4
    phi: float = 0.7
    sigma: float = 0.02
    correlation: float = 0.3

    caps: ClassVar = LONG_ONLY

    def __post_init__(self) -> None:
        for name in ("assets", "sectors"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise ConfigError(f"data.parameters.{name} = {value} of market 'lead_lag'; expected a whole number from 1.")
        if self.assets < 2 * self.sectors:
            raise ConfigError(
                f"data.parameters.assets = {self.assets:g} of market 'lead_lag'; expected at least two in each of "
                f"{self.sectors:g} sectors."
            )
        check_range("lead_lag", "phi", self.phi, -1, 1)
        check_range("lead_lag", "sigma", self.sigma, 0, 0.2)
        check_range("lead_lag", "correlation", self.correlation, 0, 1)

    @property
    def symbols(self) -> tuple[str, ...]:
        """L01 … LN."""
        return tuple(f"L{i + 1:02d}" for i in range(int(self.assets)))

    @property
    def same_sector(self) -> Array:
        """(N, N) 1 where two assets are of one sector, themselves included."""
        sector = np.arange(int(self.assets)) % int(self.sectors)
        return (sector[:, None] == sector).astype(float)

    @property
    def neighbours(self) -> Array:
        """(N, N) A: row i takes the mean over i's neighbours."""
        others = self.same_sector - np.eye(int(self.assets))
        return others / others.sum(1, keepdims=True)

    @property
    def covariance(self) -> Array:
        """(N, N) of the innovations."""
        common = self.correlation * self.same_sector
        return self.sigma**2 * (common + (1.0 - self.correlation) * np.eye(int(self.assets)))

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation:
        shocks = rng.standard_normal((bars, int(self.assets))) @ np.linalg.cholesky(self.covariance).T
        shocks[0] = 0.0
        follow = self.phi * self.neighbours.T
        log_return = np.array(list(itertools.accumulate(shocks, lambda past, shock: past @ follow + shock)))
        return Simulation(prices_of(np.cumsum(log_return, axis=0)))

    def forecast(self, close: Array) -> Forecast:
        log_return = np.diff(np.log(close), axis=0, prepend=np.log(close[:1]))
        return sigma_points(self.phi * log_return @ self.neighbours.T, self.covariance)
