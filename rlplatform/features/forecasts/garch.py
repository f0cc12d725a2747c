"""GJR-GARCH with Student t innovations, fitted by arch every so many bars and filtered between."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from rlplatform.features.forecasts.config import GarchConfig
from rlplatform.features.forecasts.forecast import LEVELS, Draws, Forecast, check_returns, no_reasons, quantiles_of_paths

Array = np.ndarray

PERCENT = 100.0  # arch's optimiser wants returns of about 1
LEAST_SPREAD = 1e-6  # standard deviation of log returns below which a price stands still


class GarchParameters(NamedTuple):
    """r_t = μ + e_t, e_t = σ_t η_t, σ²_{t+1} = ω + (α + γ·1[e_t < 0]) e_t² + β σ²_t, η ~ t(ν) with variance 1.

    In percent: μ [% per bar], ω [%² per bar].
    """

    mu: float
    omega: float
    alpha: float
    gamma: float
    beta: float
    nu: float


@dataclass(frozen=True, kw_only=True)
class GarchBackend:
    """GJR-GARCH(1,1)-t, simulated. Fits stand at rows 0, k, 2k, …; a row uses the last one at or before it.

    Source: Glosten, Jagannathan and Runkle (1993).
    """

    horizons: tuple[int, ...]
    draws: Draws
    config: GarchConfig
    name: str = "garch"

    @property
    def identity(self) -> dict[str, Any]:
        return {"backend": self.name, "version": 1, "draws": asdict(self.draws), **asdict(self.config)}

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        check_returns(dates, log_returns)
        reasons = no_reasons(rows, log_returns.shape[1])
        quantiles = np.full((*reasons.shape, len(self.horizons), len(LEVELS)), np.nan)
        fitted = rows - rows % self.config.refit_bars
        for fit_row in np.unique(fitted):
            block = np.flatnonzero(fitted == fit_row)
            for column in range(log_returns.shape[1]):
                answer = self._block(log_returns[:, column], int(fit_row), rows[block])
                if isinstance(answer, str):
                    reasons[block, column] = answer
                else:
                    quantiles[block, column] = answer
        return Forecast.by(self.name, self.horizons, quantiles, reasons)

    def _block(self, log_returns: Array, fit_row: int, rows: Array) -> Array | str:
        """(B, H, K) of the rows that share a fit, or why there are none."""
        start = max(1, fit_row - self.config.window + 1)
        past = PERCENT * log_returns[start : fit_row + 1]
        if len(past) < self.config.min_history:
            return f"history of {len(past)} bars < {self.config.min_history}"
        if past.std() < PERCENT * LEAST_SPREAD:
            return "price stands still"
        parameters = fit(past)
        if parameters is None:
            return "fit did not converge"
        known = PERCENT * log_returns[start : rows.max() + 1]
        variance = next_variance(known, parameters, float(np.var(past)))[rows - start]
        steps = _paths(variance, parameters, self.draws.uniforms)
        return quantiles_of_paths(steps / PERCENT, self.horizons)


def fit(returns: Array) -> GarchParameters | None:
    """Maximum likelihood; None where the optimiser fails or ends at no stationary model.

    Args:
        returns: (L,) [%].
    """
    from arch import arch_model  # takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = arch_model(returns, mean="Constant", vol="GARCH", p=1, o=1, q=1, dist="t", rescale=False)
        result = model.fit(disp="off", show_warning=False)
    p = result.params
    found = GarchParameters(*(float(p[name]) for name in ("mu", "omega", "alpha[1]", "gamma[1]", "beta[1]", "nu")))
    stationary = found.alpha + found.gamma / 2 + found.beta < 1 + 1e-6
    sound = all(map(math.isfinite, found)) and found.omega > 0 and found.nu > 2.01 and stationary
    return found if result.convergence_flag == 0 and sound else None


def next_variance(returns: Array, parameters: GarchParameters, first: float) -> Array:
    """(L,) σ²_{t+1} known at t [%²].

    Args:
        returns: (L,) [%].
        first: variance of the first of them.
    """
    from scipy.signal import lfilter  # takes half a second to import

    e = returns - parameters.mu
    shock = parameters.omega + (parameters.alpha + parameters.gamma * (e < 0)) * e**2
    return lfilter([1.0], [1.0, -parameters.beta], shock, zi=[parameters.beta * first])[0]


def _paths(variance: Array, p: GarchParameters, uniforms: Array) -> Array:
    """(B,) next variances → (B, S, h) simulated returns [%]."""
    eta = stdtrit(p.nu, uniforms) * math.sqrt((p.nu - 2) / p.nu)
    returns, variance = np.empty((len(variance), *eta.shape)), np.repeat(variance[:, None], len(eta), axis=1)
    for j in range(eta.shape[1]):
        e = np.sqrt(variance) * eta[:, j]
        returns[..., j] = p.mu + e
        variance = p.omega + (p.alpha + p.gamma * (e < 0)) * e**2 + p.beta * variance
    return returns
