"""What every planted market is made of: a law of prices, and forecasts by a few well-chosen scenarios."""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol

import numpy as np

from envs.errors import ConfigError
from envs.terms import CapsConfig
from rlplatform.data.log_optimal import Forecast

Array = np.ndarray

LONG_ONLY = CapsConfig(long_only=True, gross=1.0)
PAIR_CAPS = CapsConfig(long_only=False, gross=2.0, net=1.0, per_asset=2.0)


class Simulation(NamedTuple):
    """One path: `close` (T, N), and the hidden `states` (T,) of the bar that ends at t, or None."""

    close: Array
    states: Array | None = None


class MarketModel(Protocol):
    """A law of prices. `forecast` reads rows ≤ t only, so its optimum is one that a policy could follow."""

    symbols: tuple[str, ...]
    caps: CapsConfig

    def simulate(self, bars: int, rng: np.random.Generator) -> Simulation: ...

    def forecast(self, close: Array) -> Forecast: ...


def check_range(market: str, name: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise ConfigError(f"data.parameters.{name} = {value} of market {market!r}; expected in ({low}, {high}).")


def autoregress(shocks: Array, phi: float) -> Array:
    """x_t = φ x_{t−1} + shock_t, from x_0 = shock_0."""
    return np.array(list(itertools.accumulate(shocks, lambda value, shock: phi * value + shock)))


def prices_of(log_price: Array) -> Array:
    return 100.0 * np.exp(log_price)


def gaussian(mean: Array, covariance: Array, nodes: int = 7) -> Forecast:
    """Simple returns exp(x) − 1 of x ~ N(mean, covariance) at Gauss-Hermite nodes.

    Args:
        mean: (T, N) of log returns.
        covariance: (N, N) of log returns.
        nodes: per dimension; m nodes are exact for polynomials up to degree 2m − 1.
    """
    points, mass = np.polynomial.hermite_e.hermegauss(nodes)
    dims = mean.shape[-1]
    grid = np.array(list(itertools.product(points, repeat=dims)))
    probability = np.array(list(itertools.product(mass / mass.sum(), repeat=dims))).prod(-1)
    x = mean[:, None, :] + grid @ np.linalg.cholesky(covariance).T
    return Forecast(returns=np.expm1(x), probability=np.broadcast_to(probability, (1, len(probability))))


def sigma_points(mean: Array, covariance: Array) -> Forecast:
    """Simple returns exp(x) − 1 of x ~ N(mean, covariance) at 2N points, where a grid of nodes would fill the memory.

        x = mean ± √N Lₖ, each with probability 1/2N,    L Lᵀ = covariance

    Exact for polynomials up to degree 3. Source: Julier and Uhlmann (1997), the unscented transform.

    Args:
        mean: (T, N) of log returns.
        covariance: (N, N) of log returns.
    """
    dims = mean.shape[-1]
    steps = np.sqrt(dims) * np.linalg.cholesky(covariance).T
    x = mean[:, None, :] + np.concatenate([steps, -steps])
    return Forecast(returns=np.expm1(x), probability=np.full((1, 2 * dims), 0.5 / dims))
