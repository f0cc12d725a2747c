"""Risk: a regime by historical value at risk and the VIX's term structure, and what a risk budget would hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from envs.indicators import (
    CALM,
    CHOPPY,
    CRISIS,
    ewma_volatility,
    log_returns,
    realised_volatility,
    rolling_correlation,
    share_of_history_below,
)

Array = np.ndarray

VAR_LEVEL = 0.05
RAISED, HIGH = 0.60, 0.90  # shares of history, as of envs.indicators.volatility_regime
WARM_UP = (0.0155, 0.031)  # daily VaR 5 % of a normal market at 15 % and 30 % a year: 1.645 σ / √252
LEAST_VOLATILITY = 1e-6  # per bar, so that an asset that never moved does not take all


def historical_var(gross_market: Array, window: int) -> Array:
    """−(5 % quantile of the market's last `window` log returns), (T,) [fraction of wealth per bar].

    Linear between order statistics; the window expands at the start. Source: Jorion (2006), Value at Risk, §10.
    """
    returns = pd.Series(log_returns(gross_market))
    return -returns.rolling(window, min_periods=1).quantile(VAR_LEVEL).to_numpy()


def risk_regime(gross_market: Array, window: int, min_history: int, term: Array | None = None) -> Array:
    """0 calm, 1 choppy, 2 crisis, from what was known at each close.

    q_t is the share of its own earlier values below the historical VaR of row t, and inverted_t says that VIX > VIX3M.

        crisis:  q_t ≥ 0.9, or q_t ≥ 0.6 while the term structure is inverted
        choppy:  q_t ≥ 0.6, or inverted, and not crisis
        calm:    otherwise

    While fewer than `min_history` rows lie behind, VaR is held against 1.55 % and 3.1 % (a normal market of 15 % and 30 %
    a year) instead of its history.

    Args:
        gross_market: (T,).
        window: bars of the historical VaR.
        term: (T,) log(VIX / VIX3M), NaN while unknown; never inverted if not given.

    Returns:
        (T,) int64.
    """
    value_at_risk = historical_var(gross_market, window)
    share, warming_up = share_of_history_below(value_at_risk), np.arange(len(value_at_risk)) < min_history
    raised, high = (
        np.where(warming_up, value_at_risk >= level, share >= quantile)
        for level, quantile in zip(WARM_UP, (RAISED, HIGH), strict=True)
    )
    inverted = np.zeros(len(share), bool) if term is None else np.nan_to_num(term) > 0
    return np.where(high | (raised & inverted), CRISIS, np.where(raised | inverted, CHOPPY, CALM))


def target_exposure(gross_market: Array, target: float, most: float, decay: float, bars_per_year: int) -> Array:
    """min(target / σ_t, most), (T,) [fraction of wealth]; σ the market's RiskMetrics volatility a year.

    Source: Moreira & Muir (2017), "Volatility-managed portfolios", with σ in place of σ².
    """
    volatility = ewma_volatility(gross_market, decay) * np.sqrt(bars_per_year)
    return np.minimum(target / np.maximum(volatility, target / most), most)


def inverse_volatility_share(gross: Array, decay: float) -> Array:
    """(1/σᵢ) / Σⱼ(1/σⱼ), (T, N), rows sum to 1; σ RiskMetrics volatility."""
    inverse = 1.0 / np.maximum(ewma_volatility(gross, decay), LEAST_VOLATILITY)
    return inverse / inverse.sum(1, keepdims=True)


def variance_contribution(gross: Array, window: int) -> Array:
    """cov(xᵢ, m) / (N var m) over `window` bars, (T, N), rows sum to 1; x log returns, m their mean over the assets.

    1/N where the mean does not move. Source: Euler's decomposition of an equal-weight portfolio's variance.
    """
    x = log_returns(gross)
    mean = x.mean(1)
    common = realised_volatility(np.exp(mean), window)[:, None]
    moves = common > 1e-12
    ratio = realised_volatility(gross, window) / np.where(moves, common, 1.0)
    contribution = rolling_correlation(x, mean, window) * ratio / x.shape[1]
    return np.where(moves, contribution, 1.0 / x.shape[1])
