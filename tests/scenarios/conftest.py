"""A market whose facts are planted, and real ones."""

import numpy as np
import pytest

from rlplatform.data import BundledConfig, load_prices


@pytest.fixture(scope="session")
def planted():
    """(2000, 3) gross returns: one market factor with GJR-GARCH volatility, falls followed by storms, and quieter own parts.

    β = 0.8, 1.0, 1.2, own volatility 0.6 % a bar, market's 1 %, persistence .98; no autocorrelation.
    """
    rng = np.random.default_rng(11)
    omega, alpha, gamma, beta = 0.02e-4, 0.02, 0.26, 0.83
    variance, market = 1e-4, np.empty(2500)
    noise = rng.standard_t(6, 2500) * np.sqrt(4 / 6)
    for bar in range(2500):
        market[bar] = np.sqrt(variance) * noise[bar]
        variance = omega + (alpha + gamma * (market[bar] < 0)) * market[bar] ** 2 + beta * variance
    own = 0.006 * rng.standard_normal((2500, 3))
    return np.exp(market[:, None] * np.array([0.8, 1.0, 1.2]) + own + 2e-4)[500:]


@pytest.fixture(scope="session")
def stocks():
    """(2500, 20) gross returns of the bundled stocks, 1999 to 2008."""
    return load_prices(BundledConfig(start="1999-01-01", end="2009-01-31")).gross()[1:2501]
