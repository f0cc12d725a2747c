"""Metrics of one track. Definitions, signs and units are those of DESIGN.md, §Judging."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from rlplatform.evaluation.track import Track

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of one track; field names are the keys of every JSON answer. NaN where a figure is not defined.

    Attributes:
        total_return: W_S − 1 [fraction].
        cagr: geometric growth a year, W_S^(bars_per_year / S) − 1.
        volatility: annualised standard deviation of returns (ddof = 1).
        sharpe: arithmetic, risk-free rate zero: √bars_per_year · mean / std. NaN without volatility.
        sharpe_se: standard error of `sharpe`, see `sharpe_standard_error`.
        sortino: mean·bars_per_year over annualised √mean(min(r, 0)²). NaN without a losing bar.
        max_drawdown: deepest W / peak − 1, at most 0; the starting wealth is a peak.
        calmar: cagr / |max_drawdown|. NaN without a drawdown.
        cvar_5: mean of the worst 5 % of bar returns, a RETURN: −0.03 means a loss of 3 %.
        turnover_per_day: Σ|Δw| over the days with a decision, the first purchase included (both sides of a trade count).
        cost_paid: Σ κ [fraction of the wealth at the time].
        cost_paid_money: Σ κ W [units of initial wealth].
        financing_paid: Σ of financing and borrow fees [fraction of the wealth at the time].
        hit_rate: share of bars with a return above zero.
        bars: S.
    """

    total_return: float
    cagr: float
    volatility: float
    sharpe: float
    sharpe_se: float
    sortino: float
    max_drawdown: float
    calmar: float
    cvar_5: float
    turnover_per_day: float
    cost_paid: float
    cost_paid_money: float
    financing_paid: float
    hit_rate: float
    bars: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Ready for JSON: what is not a finite number is None."""
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


def finite_or_none(value: float | None) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return None if value is None or not math.isfinite(value) else value


def summarize(track: Track, bars_per_year: int = 252) -> Metrics:
    """All figures of one track."""
    returns, final = track.returns, float(track.wealth[-1])
    drawdown = float(track.drawdown.min())
    cagr = final ** (bars_per_year / len(track)) - 1.0 if final > 0 else -1.0
    return Metrics(
        total_return=final - 1.0,
        cagr=cagr,
        volatility=_std(returns) * math.sqrt(bars_per_year),
        sharpe=sharpe_ratio(returns, bars_per_year),
        sharpe_se=sharpe_standard_error(returns, bars_per_year),
        sortino=sortino_ratio(returns, bars_per_year),
        max_drawdown=drawdown,
        calmar=cagr / -drawdown if drawdown < 0 else math.nan,
        cvar_5=worst_mean(returns),
        turnover_per_day=float(track.turnover.sum()) / _decision_days(track),
        cost_paid=float(track.cost.sum()),
        cost_paid_money=float((track.cost * track.wealth[:-1]).sum()),
        financing_paid=float(track.financing.sum()),
        hit_rate=float((returns > 0).mean()),
        bars=len(track),
    )


def share_of(optimal_growth: float | None, track: Track) -> float | None:
    """Log growth of a track over that of the optimum on the same days; −∞ for a ruined one, None without an optimum."""
    if optimal_growth is None:
        return None
    return math.log(track.wealth[-1]) / optimal_growth if track.wealth[-1] > 0 else -math.inf


def sharpe_ratio(returns: Array, bars_per_year: int = 252) -> float:
    """√bars_per_year · mean / std (ddof = 1), risk-free rate zero; NaN where returns do not vary.

    Args:
        returns: (S,) simple returns.
    """
    deviation = _std(returns)
    return math.sqrt(bars_per_year) * float(np.mean(returns)) / deviation if deviation > 0 else math.nan


def sharpe_standard_error(returns: Array, bars_per_year: int = 252) -> float:
    """Standard error of the annualised Sharpe ratio, corrected for skew γ₃ and kurtosis γ₄.

        se = √( bars_per_year · (1 + SR²/2 − γ₃ SR + (γ₄ − 3)/4 · SR²) / S ),    SR per bar

    With normal returns it is Lo's. Serial correlation is not corrected for.
    Source: Mertens (2002), "Comments on variance of the IID estimator in Lo (2002)"; Lo (2002), "The statistics of
    Sharpe ratios".
    """
    deviation = _std(returns)
    if not deviation > 0:
        return math.nan
    centred = returns - np.mean(returns)
    spread = math.sqrt(float(np.mean(centred**2)))
    skew, kurtosis = float(np.mean(centred**3)) / spread**3, float(np.mean(centred**4)) / spread**4
    ratio = float(np.mean(returns)) / deviation
    variance = 1.0 + ratio**2 / 2.0 - skew * ratio + (kurtosis - 3.0) / 4.0 * ratio**2
    return math.sqrt(bars_per_year * max(variance, 0.0) / len(returns))


def sortino_ratio(returns: Array, bars_per_year: int = 252) -> float:
    """√bars_per_year · mean / √mean(min(r, 0)²); NaN where no bar loses."""
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return math.sqrt(bars_per_year) * float(np.mean(returns)) / downside if downside > 0 else math.nan


def worst_mean(returns: Array, fraction: float = 0.05) -> float:
    """Mean of the ⌈fraction · S⌉ lowest returns: the historical CVaR as a return, negative for a loss."""
    worst = max(1, math.ceil(fraction * len(returns) - 1e-9))
    return float(np.partition(returns, worst - 1)[:worst].mean())


def _std(returns: Array) -> float:
    """Sample standard deviation; rounding of a constant series is zero."""
    deviation = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    return deviation if deviation > 1e-14 else 0.0


def _decision_days(track: Track) -> int:
    return len(np.unique(track.dates[:-1].astype("datetime64[D]")))
