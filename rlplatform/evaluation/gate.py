"""The regression gate: a trained policy that fails it is not released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import finite_or_none, summarize
from rlplatform.evaluation.track import Track

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Thresholds of the gate.

    Attributes:
        min_sharpe: of the policy.
        benchmark: name of the baseline to stay near; ALL_SPY where there is one, else EQUAL_WEIGHT, if not given.
        sharpe_margin: how far below the benchmark's Sharpe the policy may lie.
        max_turnover_per_day: Σ|Δw| [fraction of wealth a day].
        min_share_beaten: share of the baselines whose Sharpe lies below the policy's.
        min_action_entropy: of a discrete policy [nats].
        min_weight_deviation: of a continuous policy [fraction of wealth].
        bars_per_year: for the Sharpe ratios.
    """

    min_sharpe: float = 0.0
    benchmark: str | None = None
    sharpe_margin: float = 0.5
    max_turnover_per_day: float = 0.5
    min_share_beaten: float = 0.5
    min_action_entropy: float = 0.1
    min_weight_deviation: float = 0.01
    bars_per_year: int = 252

    def __post_init__(self) -> None:
        for name in ("sharpe_margin", "max_turnover_per_day", "min_action_entropy", "min_weight_deviation"):
            if getattr(self, name) < 0:
                raise ConfigError(f"gate.{name} = {getattr(self, name)}; expected at least 0.")
        if not 0 <= self.min_share_beaten <= 1:
            raise ConfigError(f"gate.min_share_beaten = {self.min_share_beaten}; expected a share in [0, 1].")


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """One line of the gate: `figure` against `threshold`, and what stands behind it."""

    name: str
    figure: float
    comparison: str  # "≥" or "≤"
    threshold: float
    passed: bool
    detail: str

    def line(self) -> str:
        result = "pass" if self.passed else "FAIL"
        return f"{result}  {self.name}: {self.figure:.3f} {self.comparison} {self.threshold:.3f}  ({self.detail})"


@dataclass(frozen=True)
class GateReport:
    """All lines of the gate."""

    checks: tuple[GateCheck, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def lines(self) -> list[str]:
        return [check.line() for check in self.checks]

    def to_dict(self) -> dict:
        rows = [asdict(check) for check in self.checks]
        finite = [row | {key: finite_or_none(row[key]) for key in ("figure", "threshold")} for row in rows]
        return {"passed": self.passed, "checks": finite}


def check(policy: Track, baselines: Sequence[Track], config: GateConfig | None = None) -> GateReport:
    """Judge a policy's out-of-sample track. A figure that is not defined (NaN) fails.

    Baselines without volatility (cash) have no Sharpe ratio and are left out of the share beaten.

    Raises:
        ConfigError: the benchmark is not among the baselines.
    """
    config = config or GateConfig()
    metrics = summarize(policy, config.bars_per_year)
    sharpes = {track.name: summarize(track, config.bars_per_year).sharpe for track in baselines}
    benchmark = find_benchmark(list(sharpes), config.benchmark)
    defined = [sharpe for sharpe in sharpes.values() if math.isfinite(sharpe)]
    beaten = sum(metrics.sharpe > sharpe for sharpe in defined)
    share = beaten / len(defined) if defined else math.nan
    return GateReport(
        (
            _at_least("sharpe", metrics.sharpe, config.min_sharpe, f"standard error {metrics.sharpe_se:.2f}"),
            _at_least(
                "sharpe_near_benchmark",
                metrics.sharpe,
                sharpes[benchmark] - config.sharpe_margin,
                f"{benchmark} has {sharpes[benchmark]:.2f}, less {config.sharpe_margin:g}",
            ),
            _at_most("turnover_per_day", metrics.turnover_per_day, config.max_turnover_per_day, "Σ|Δw|, fraction of wealth"),
            _at_least("share_of_baselines_beaten", share, config.min_share_beaten, f"{beaten} of {len(defined)}, by Sharpe"),
            _diversity(policy, config),
        )
    )


def find_benchmark(names: Sequence[str], wanted: str | None = None) -> str:
    """The baseline that stands for the market: `wanted`, else ALL_SPY, else EQUAL_WEIGHT.

    Raises:
        ConfigError: none of them is there.
    """
    candidates = [wanted] if wanted is not None else ["ALL_SPY", "EQUAL_WEIGHT"]
    for name in candidates:
        if name in names:
            return name
    raise ConfigError(f"gate.benchmark: {' or '.join(candidates)} is not among the baselines: {', '.join(names)}.")


def action_entropy(actions: Array) -> float:
    """Entropy of the choices actually made [nats]: −Σ p ln p over the empirical distribution of discrete actions (S,)."""
    _, counts = np.unique(actions, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum()) + 0.0


def weight_deviation(weights: Array) -> float:
    """How far weights move around their mean over time: meanₜ Σₙ |wₜₙ − w̄ₙ| [fraction of wealth], weights (S, N)."""
    return float(np.abs(weights - weights.mean(0)).sum(-1).mean())


def _diversity(policy: Track, config: GateConfig) -> GateCheck:
    """Has the policy collapsed?

    Discrete: the larger of the entropy of the choices made and the mean entropy of the policy's own distribution; one
    answer for ever, given with certainty, has both near zero. Continuous: mean absolute deviation of weights over time.
    What it cannot tell: a policy that holds one portfolio because that IS best fails too, and one that flips at random
    passes. A fail asks a person to look.
    """
    if policy.actions is None or not np.issubdtype(np.asarray(policy.actions).dtype, np.integer):
        deviation = weight_deviation(policy.weights)
        return _at_least("not_collapsed", deviation, config.min_weight_deviation, "mean Σ|w − mean w| over time")
    chosen = action_entropy(policy.actions)
    own = float(np.mean(policy.entropy)) if policy.entropy is not None else math.nan
    distinct = len(np.unique(policy.actions))
    detail = f"{distinct} distinct actions, entropy of choices {chosen:.2f}, of the policy {own:.2f} nats"
    return _at_least("not_collapsed", max(chosen, own if math.isfinite(own) else 0.0), config.min_action_entropy, detail)


def _at_least(name: str, figure: float, threshold: float, detail: str) -> GateCheck:
    return GateCheck(
        name=name, figure=figure, comparison="≥", threshold=threshold, passed=bool(figure >= threshold), detail=detail
    )


def _at_most(name: str, figure: float, threshold: float, detail: str) -> GateCheck:
    return GateCheck(
        name=name, figure=figure, comparison="≤", threshold=threshold, passed=bool(figure <= threshold), detail=detail
    )
