"""Is the difference between two tracks more than luck? Paired stationary bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.metrics import finite_or_none, sharpe_ratio
from rlplatform.evaluation.track import Track

Array = np.ndarray
MIN_BARS = 20  # fewer bars carry no interval worth printing


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """How the interval is drawn.

    Attributes:
        resamples: bootstrap paths.
        confidence: of the two-sided interval.
        seed: of the resampling; the same seed gives the same interval.
    """

    resamples: int = 2_000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ConfigError(f"bootstrap.resamples = {self.resamples}; an interval's ends need at least 100.")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"bootstrap.confidence = {self.confidence}; expected in [0.5, 1). 95 % is 0.95.")


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A policy against one baseline, on the same bars. NaN where too few bars, or ruin, allow no interval.

    Attributes:
        baseline: name of the other.
        growth: annualised mean of log(1 + r_policy) − log(1 + r_baseline) [per year].
        growth_low, growth_high: its interval.
        sharpe: difference of annualised Sharpe ratios.
        sharpe_low, sharpe_high: its interval.
        block_bars: mean block length of the resampling.
        bars: bars compared.
    """

    baseline: str
    growth: float
    growth_low: float
    growth_high: float
    sharpe: float
    sharpe_low: float
    sharpe_high: float
    block_bars: float
    bars: int

    @property
    def claims_edge(self) -> bool:
        """The interval of the growth difference lies above zero."""
        return self.growth_low > 0

    @property
    def verdict(self) -> str:
        """ "beats", "loses to" or "no edge shown": what the interval of the growth difference allows one to say."""
        if self.claims_edge:
            return "beats"
        return "loses to" if self.growth_high < 0 else "no edge shown"

    def to_dict(self) -> dict:
        figures = {k: v if isinstance(v, str) else finite_or_none(v) for k, v in asdict(self).items()}
        return figures | {"claims_edge": self.claims_edge, "verdict": self.verdict}


def compare(policy: Track, baseline: Track, config: BootstrapConfig | None = None, bars_per_year: int = 252) -> Edge:
    """Policy minus baseline with an interval from the paired stationary bootstrap.

    Whole blocks of bars are resampled for both at once, so their correlation and their serial dependence stay. The mean
    block length is the one that is optimal for the difference of log returns; intervals are percentiles.
    Source: Politis and Romano (1994); Politis and White (2004) with Patton, Politis and White (2009) for the length.

    A policy that was ruined has no growth rate to compare: it gets no interval and claims nothing.

    Raises:
        ShapeError: the tracks do not share their dates (and the policy was not ruined).
    """
    config = config or BootstrapConfig()
    nothing = dict.fromkeys([*_FIGURES, "block_bars"], math.nan)
    if policy.ruined or baseline.ruined:
        return Edge(baseline=baseline.name, bars=len(policy), **nothing)
    if not np.array_equal(policy.dates, baseline.dates):
        raise ShapeError(
            f"{policy.name} covers {' to '.join(policy.period)} ({len(policy)} bars) and {baseline.name} "
            f"{' to '.join(baseline.period)} ({len(baseline)} bars); judge both on the same dates."
        )
    if len(policy) < MIN_BARS:
        return Edge(baseline=baseline.name, bars=len(policy), **nothing)
    return Edge(baseline=baseline.name, bars=len(policy), **_bootstrap(policy.returns, baseline.returns, config, bars_per_year))


def compare_all(
    policy: Track, baselines: Sequence[Track], config: BootstrapConfig | None = None, bars_per_year: int = 252
) -> list[Edge]:
    """The policy against each baseline by itself; intervals are not corrected for the number of baselines."""
    return [compare(policy, baseline, config, bars_per_year) for baseline in baselines]


_FIGURES = ("growth", "growth_low", "growth_high", "sharpe", "sharpe_low", "sharpe_high")


def _bootstrap(policy: Array, baseline: Array, config: BootstrapConfig, bars_per_year: int) -> dict[str, float]:
    from arch.bootstrap import StationaryBootstrap  # takes a second to import

    def differences(policy: Array, baseline: Array, log_difference: Array) -> Array:
        sharpe = sharpe_ratio(policy, bars_per_year) - sharpe_ratio(baseline, bars_per_year)
        return np.array([bars_per_year * log_difference.mean(), sharpe])

    log_difference = np.log1p(policy) - np.log1p(baseline)
    growth, sharpe = differences(policy, baseline, log_difference)
    block = block_length(log_difference)
    if np.ptp(log_difference) < 1e-14:  # twins: nothing to resample
        ends = np.array([[growth, sharpe], [growth, sharpe]])
    else:
        bootstrap = StationaryBootstrap(block, policy, baseline, log_difference, seed=config.seed)
        with np.errstate(invalid="ignore"):
            ends = bootstrap.conf_int(differences, reps=config.resamples, method="percentile", size=config.confidence)
    values = (growth, ends[0, 0], ends[1, 0], sharpe, ends[0, 1], ends[1, 1])
    return dict(zip(_FIGURES, map(float, values), strict=True)) | {"block_bars": block}


def block_length(series: Array) -> float:
    """Mean block length that is optimal for the mean of `series` (S,) [bars], at least 1."""
    from arch.bootstrap import optimal_block_length

    if np.ptp(series) < 1e-14:
        return 1.0
    optimal = float(optimal_block_length(series)["stationary"].iloc[0])
    return max(1.0, optimal) if math.isfinite(optimal) else 1.0
