"""Is a Sharpe ratio above zero, once its skew, its length and the number of trials it was chosen from are counted?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import norm

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.metrics import finite_or_none, sharpe_ratio

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What a policy was chosen from.

    Attributes:
        count: trials made, the chosen one included; 1 where nothing was chosen.
        deviation: standard deviation of their annualised Sharpe ratios [per √year]; if not given, that of `count` trials
            without any skill over the same bars, 1/√(S − 1) per bar.
    """

    count: int = 1
    deviation: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"trials.count = {self.count}; a policy was chosen from at least 1 trial, itself.")
        if self.deviation is not None and not self.deviation >= 0:
            raise ConfigError(f"trials.deviation = {self.deviation}; expected a standard deviation ≥ 0.")

    @classmethod
    def of_returns(cls, returns: Array, bars_per_year: int = 252) -> Trials:
        """Counted and measured on the (S, trials) returns of all of them; those without volatility count too.

        Raises:
            ShapeError: not a matrix.
        """
        if np.ndim(returns) != 2 or returns.shape[1] < 1:
            raise ShapeError(f"Trials: returns have shape {np.shape(returns)}; expected (bars, trials).")
        sharpes = [sharpe_ratio(column[np.isfinite(column)], bars_per_year) for column in np.asarray(returns, float).T]
        known = [sharpe for sharpe in sharpes if math.isfinite(sharpe)]
        return cls(count=len(sharpes), deviation=float(np.std(known, ddof=1)) if len(known) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class SharpeEvidence:
    """What a Sharpe ratio proves. NaN where returns do not vary.

    Attributes:
        sharpe: annualised.
        probabilistic: probability that the true ratio is above zero, had there been one trial only.
        hurdle: the highest annualised Sharpe ratio that `trials` trials without skill lead one to expect.
        deflated: probability that the true ratio is above zero, after `trials` trials.
        trials: counted.
        min_track_record_years: bars needed, in years, to say at `confidence` that the ratio is above zero; infinite if it is
            not above zero.
        years: of the track.
        confidence: asked for.
    """

    sharpe: float
    probabilistic: float
    hurdle: float
    deflated: float
    trials: int
    min_track_record_years: float
    years: float
    confidence: float

    @property
    def p_value(self) -> float:
        """1 − deflated: how often luck alone, given so many trials, does as well."""
        return 1.0 - self.deflated

    @property
    def convincing(self) -> bool:
        """The deflated ratio reaches the confidence asked for."""
        return self.deflated >= self.confidence

    def to_dict(self) -> dict:
        figures = {name: finite_or_none(value) for name, value in asdict(self).items()}
        return figures | {"p_value": finite_or_none(self.p_value), "convincing": self.convincing}


def judge_sharpe(
    returns: Array, trials: Trials | None = None, bars_per_year: int = 252, confidence: float = 0.95
) -> SharpeEvidence:
    """Probabilistic and deflated Sharpe ratio and minimum track record length of one series of returns.

    Args:
        returns: (S,) simple net returns.
        trials: that the policy was chosen from; one if not given.
    """
    trials, bars = trials or Trials(), len(returns)
    annual = math.sqrt(bars_per_year)
    sharpe, skew, kurtosis = moments(returns)
    deviation = trials.deviation / annual if trials.deviation is not None else 1.0 / math.sqrt(max(bars - 1, 1))
    hurdle = expected_max_sharpe(trials.count, deviation)
    return SharpeEvidence(
        sharpe=annual * sharpe,
        probabilistic=probabilistic_sharpe(sharpe, 0.0, skew, kurtosis, bars),
        hurdle=annual * hurdle,
        deflated=probabilistic_sharpe(sharpe, hurdle, skew, kurtosis, bars),
        trials=trials.count,
        min_track_record_years=min_track_record(sharpe, 0.0, skew, kurtosis, confidence) / bars_per_year,
        years=bars / bars_per_year,
        confidence=confidence,
    )


def deflated_from_error(sharpe: float, error: float, bars: int, trials: Trials, bars_per_year: int = 252) -> float:
    """The deflated Sharpe ratio of `judge_sharpe`, from what a table of metrics keeps: no returns are needed.

    Args:
        sharpe, error: annualised ratio and its standard error, `Metrics.sharpe` and `Metrics.sharpe_se`.
    """
    if not (math.isfinite(sharpe) and error > 0 and bars > 1):
        return math.nan
    deviation = trials.deviation if trials.deviation is not None else math.sqrt(bars_per_year / (bars - 1))
    return float(norm.cdf((sharpe - expected_max_sharpe(trials.count, deviation)) / error * math.sqrt((bars - 1) / bars)))


def moments(returns: Array) -> tuple[float, float, float]:
    """Sharpe ratio per bar (ddof = 1), skew γ₃ and kurtosis γ₄ (3 for normal returns); NaN where nothing varies."""
    returns = np.asarray(returns, dtype=np.float64)
    sharpe = sharpe_ratio(returns, 1)
    if not math.isfinite(sharpe):
        return math.nan, math.nan, math.nan
    centred = returns - returns.mean()
    variance = float(np.mean(centred**2))
    return sharpe, float(np.mean(centred**3)) / variance**1.5, float(np.mean(centred**4)) / variance**2


def probabilistic_sharpe(sharpe: float, hurdle: float, skew: float, kurtosis: float, bars: int) -> float:
    """Probability that the true Sharpe ratio lies above `hurdle`.

        PSR(SR*) = Φ( (SR − SR*) √(S − 1) / √(1 − γ₃ SR + (γ₄ − 1)/4 · SR²) )

    The same figure as skfolio's `probabilistic_sharpe_ratio`, from moments instead of returns: a manifest keeps no returns.
    Source: Bailey and López de Prado (2012), "The Sharpe ratio efficient frontier", eq. 9.

    Args:
        sharpe, hurdle: per bar.
    """
    variance = _variance(sharpe, skew, kurtosis)
    if not (variance > 0 and bars > 1):
        return math.nan
    return float(norm.cdf((sharpe - hurdle) * math.sqrt(bars - 1) / math.sqrt(variance)))


def min_track_record(sharpe: float, hurdle: float, skew: float, kurtosis: float, confidence: float = 0.95) -> float:
    """Bars after which a Sharpe ratio like this one is above `hurdle` with `confidence`; infinite if it never is.

        MinTRL = 1 + (1 − γ₃ SR + (γ₄ − 1)/4 · SR²) · (Φ⁻¹(confidence) / (SR − SR*))²

    Source: Bailey and López de Prado (2012), eq. 11.

    Args:
        sharpe, hurdle: per bar.
    """
    if not 0.5 < confidence < 1:
        raise ConfigError(f"confidence = {confidence}; expected in (0.5, 1). 95 % is 0.95.")
    if not math.isfinite(sharpe):
        return math.nan
    if sharpe <= hurdle:
        return math.inf
    return 1.0 + _variance(sharpe, skew, kurtosis) * (float(norm.ppf(confidence)) / (sharpe - hurdle)) ** 2


def expected_max_sharpe(trials: int, deviation: float) -> float:
    """The best Sharpe ratio to expect of `trials` independent trials whose true ratio is zero; 0 for a single one.

        SR₀ = √V · ((1 − γ) Φ⁻¹(1 − 1/N) + γ Φ⁻¹(1 − 1/(N e))),    γ = 0.5772… (Euler-Mascheroni)

    Correlated trials, such as neighbours in a grid, count in full, which errs on the strict side; their small spread V errs
    on the other.
    Source: Bailey and López de Prado (2014), "The deflated Sharpe ratio", eq. 1.

    Args:
        trials: N ≥ 1.
        deviation: √V, of the trials' Sharpe ratios, in the unit of the answer.
    """
    if trials < 1:
        raise ConfigError(f"trials = {trials}; expected at least 1.")
    if trials == 1:
        return 0.0
    upper, tail = norm.ppf(1.0 - 1.0 / trials), norm.ppf(1.0 - 1.0 / (trials * math.e))
    return float(deviation * ((1.0 - np.euler_gamma) * upper + np.euler_gamma * tail))


def _variance(sharpe: float, skew: float, kurtosis: float) -> float:
    """Of the estimate, times S − 1."""
    return 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe**2
