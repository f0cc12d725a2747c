"""RegimeGarch: a market factor and what each asset has of its own, with GJR-GARCH-t volatility in Markov regimes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import gammaincinv

from envs.errors import MarketDataError
from rlplatform.features.forecasts.garch import LEAST_SPREAD, PERCENT, GarchParameters, fit, next_variance
from rlplatform.scenarios.config import RegimeGarchConfig
from rlplatform.scenarios.model import mirrored, shared
from rlplatform.scenarios.regimes import COUNT, regime_labels, simulate_regimes, transition_matrix

Array = np.ndarray
log = logging.getLogger(__name__)

LEAST_ROWS = 40  # of a regime before its own scale is believed
USUAL = (0.05, 0.05, 0.90, 6.0)  # α, γ, β, ν where the optimiser fails
MOST_NU = 50.0  # degrees of freedom: beyond it a t is a normal


@dataclass(frozen=True, kw_only=True, eq=False)
class RegimeGarch:
    """Log returns of N assets around one market factor:

        x_n,t = a_n + β_n m_t + √k_n(s_t) u_n,t,    m_t = √k_0(s_t) u_0,t
        u_i,t = σ_i,t z_i,t,    σ²_{t+1} = ω + (α + γ·1[u_t < 0]) u²_t + β σ²_t
        z_i = g_i √((ν_i − 2) / w_i),    g ~ N(0, R),    w_i = χ²_{ν_i} quantile of ONE uniform a bar

    m is the equal-weight mean of the assets around its mean; s a Markov chain over the market's regimes, whose labels are known
    (`envs.indicators.volatility_regime`), so that P is counted, not filtered; k(s) the variance in a regime over the whole,
    a slow component that multiplies the GARCH's fast one. Every z_i is a t of its own ν_i with variance 1, large together
    through w. R holds the correlations of the standardised residuals, the market's among them. Returns have no memory: a
    signal in the mean, such as momentum, is not kept.

    Source: Glosten, Jagannathan & Runkle (1993) for σ; Engle & Rangel (2008) for a slow component times GARCH; Hamilton (1989)
    for Markov regimes; Demarta & McNeil (2005) for t laws of several ν with common shocks. A fit that fails takes usual
    parameters (α .05, γ .05, β .90, ν 6), and says so.

    Attributes:
        config: settings.
        mean: (N,) a, log return a bar.
        loading: (N,) β.
        scale: (S, N + 1) √k; the market first.
        garch: (N + 1, 6) columns of `GarchParameters`, of u in percent, μ = 0.
        variance: (T, N + 1) σ² at each row of the fit [%²]; paths begin with one of them.
        largest: (N + 1,) variance that paths may reach.
        mixing: (N + 1, N + 1) A with A Aᵀ = R.
        labels: (T,) regimes of the fit's rows.
        transition: (S, S).
    """

    kind: ClassVar[str] = "regime_garch"
    config: RegimeGarchConfig
    mean: Array
    loading: Array
    scale: Array
    garch: Array
    variance: Array
    largest: Array
    mixing: Array
    labels: Array
    transition: Array

    @classmethod
    def fit(cls, config: RegimeGarchConfig, gross: Array) -> RegimeGarch:
        """Raises MarketDataError where a price stands still."""
        logs, labels = np.log(gross), regime_labels(gross)
        if (logs.std(axis=0) < LEAST_SPREAD).any():
            column = int(np.argmax(logs.std(axis=0) < LEAST_SPREAD))
            raise MarketDataError(f"scenarios.model regime_garch: the price in column {column} stands still. Leave it out.")
        mean = logs.mean(axis=0)
        market = (logs - mean).mean(axis=1)
        loading = (logs - mean).T @ market / (market @ market)
        own = logs - mean - market[:, None] * loading
        parts = np.column_stack([market, own])
        parts[:, 1:][:, own.std(axis=0) < LEAST_SPREAD] = 0.0  # one asset is its own market
        scale = _regime_scales(parts, labels)
        fast = PERCENT * parts / scale[labels]
        garch = np.array([_stationary(column, config.persistence_max) for column in fast.T])
        variance = np.column_stack([_filtered(column, p) for column, p in zip(fast.T, garch, strict=True)])
        z = fast / np.sqrt(np.maximum(variance, 1e-12))
        return cls(
            config=config,
            mean=mean,
            loading=loading,
            scale=scale,
            garch=garch,
            variance=variance,
            largest=config.variance_max * variance.max(axis=0),
            mixing=_root(_correlation(z)),
            labels=labels,
            transition=transition_matrix(labels),
        )

    def sample(
        self,
        paths: int,
        bars: int,
        rng: np.random.Generator,
        history: Array | None = None,
        regime: int | None = None,
        antithetic: bool = False,
    ) -> Array:
        first, variance = self._start(paths, rng, history, antithetic)
        chain = shared(rng.random((paths, bars)), antithetic).T
        states = simulate_regimes(self.transition, first, bars, chain)
        states = states if regime is None else np.full_like(states, regime)
        z = self._innovations(paths, bars, rng, antithetic)
        _, omega, alpha, gamma, beta, _ = self.garch.T
        u = np.empty_like(z)
        for bar in range(bars):
            u[:, bar] = np.sqrt(variance) * z[:, bar]
            arch = (alpha + gamma * (u[:, bar] < 0)) * u[:, bar] ** 2
            variance = np.minimum(omega + arch + beta * variance, self.largest)
        parts = self.scale[states] * u / PERCENT
        return np.exp(self.mean + parts[..., :1] * self.loading + parts[..., 1:])

    def _start(self, paths: int, rng: np.random.Generator, history: Array | None, antithetic: bool) -> tuple[Array, Array]:
        """Regime (paths,) and next variance (paths, N + 1) that each path begins after."""
        if history is None:
            rows = shared(rng.integers(0, len(self.labels), paths), antithetic)
            return self.labels[rows], self.variance[rows]
        logs, labels = np.log(history) - self.mean, regime_labels(history)
        market = logs.mean(axis=1)
        parts = np.column_stack([market, logs - market[:, None] * self.loading])
        fast = PERCENT * parts / self.scale[labels]
        following = [
            next_variance(u, GarchParameters(*p), p[1] / (1 - _persistence(p)))[-1]
            for u, p in zip(fast.T, self.garch, strict=True)
        ]
        return np.full(paths, labels[-1]), np.minimum(np.tile(following, (paths, 1)), self.largest)

    def _innovations(self, paths: int, bars: int, rng: np.random.Generator, antithetic: bool) -> Array:
        """z (paths, bars, N + 1)."""
        normal = mirrored(rng.standard_normal((paths, bars, len(self.mixing))), antithetic) @ self.mixing.T
        together = shared(rng.random((paths, bars)), antithetic)
        nu = self.garch[:, 5]
        chi2 = {degrees: 2 * gammaincinv(degrees / 2, together) for degrees in np.unique(nu)}
        return normal * np.stack([np.sqrt((degrees - 2) / chi2[degrees]) for degrees in nu], axis=-1)


def _regime_scales(parts: Array, labels: Array) -> Array:
    """(S, K) √(variance in a regime / variance); 1 for a regime that history hardly was in, and for a column of zeros."""
    whole = np.maximum((parts**2).mean(axis=0), 1e-24)
    scales = np.ones((COUNT, parts.shape[1]))
    for regime in range(COUNT):
        inside = labels == regime
        if inside.sum() >= LEAST_ROWS:
            scales[regime] = np.sqrt(np.maximum((parts[inside] ** 2).mean(axis=0) / whole, 1e-4))
    scales[:, whole <= 1e-24] = 1.0
    return scales


def _stationary(u: Array, persistence_max: float) -> GarchParameters:
    """Fitted on u [%], without mean, and with the variance of u in the long run."""
    variance = float((u**2).mean())
    if variance < (PERCENT * LEAST_SPREAD) ** 2:
        return GarchParameters(0.0, 0.0, 0.0, 0.0, 0.0, USUAL[3])
    found = fit(u)
    if found is None:
        log.warning("scenarios: a GARCH fit did not converge; usual parameters are taken for that series.")
        alpha, gamma, beta, nu = USUAL
    else:
        alpha, gamma, beta, nu = found.alpha, found.gamma, found.beta, min(max(found.nu, 2.5), MOST_NU)
    shrink = min(1.0, persistence_max / max(alpha + gamma / 2 + beta, 1e-12))
    alpha, gamma, beta = shrink * alpha, shrink * gamma, shrink * beta
    return GarchParameters(0.0, variance * (1 - alpha - gamma / 2 - beta), alpha, gamma, beta, nu)


def _persistence(p: Array) -> float:
    return float(p[2] + p[3] / 2 + p[4])


def _filtered(u: Array, p: Array) -> Array:
    """(T,) σ²_t of each row, known before it [%²]."""
    variance = float((u**2).mean())
    return np.append(variance, next_variance(u, GarchParameters(*p), variance)[:-1])


def _correlation(z: Array) -> Array:
    """(K, K); an unvarying column is correlated with nothing."""
    varies = z.std(axis=0) > 1e-9
    correlation = np.eye(z.shape[1])
    correlation[np.ix_(varies, varies)] = np.corrcoef(z[:, varies].T)
    return correlation


def _root(correlation: Array) -> Array:
    """A with A Aᵀ = R, though R may be singular: own parts of all assets sum to 0."""
    values, vectors = np.linalg.eigh(correlation)
    return vectors * np.sqrt(np.maximum(values, 0.0))
