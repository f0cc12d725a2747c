"""Simple portfolios that a policy has to beat, traded through the same ledger on the same dates.

Each baseline is a rule that sees past returns only (rows ≤ t are cut out for it), asked every so many bars. In
between the portfolio drifts and does not trade; a rule asked every bar is rebalanced every bar.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from envs import ledger
from envs.errors import ConfigError
from envs.liquidity import LiquidityConfig
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.backtest import gross_caps, run_targets, trading_room
from rlplatform.evaluation.track import Track

Array = np.ndarray
Rule = Callable[[Array], Array]  # past simple returns (lookback, N), the last row known at the decision → weights (N,)
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Windows and sizes of the standard baselines.

    Attributes:
        rebalance_bars: between two decisions of the rules below; the portfolio drifts in between.
        momentum_bars: over which the best assets are found.
        momentum_assets: how many to hold; a quarter of all, at least one, if not given.
        volatility_bars: for inverse volatility.
        kelly_bars: for the mean and variance of fractional Kelly.
        kelly_fraction: of the full Kelly weight.
        fit_bars: on which min-CVaR and risk parity are refitted at each decision.
    """

    rebalance_bars: int = 21
    momentum_bars: int = 126
    momentum_assets: int | None = None
    volatility_bars: int = 63
    kelly_bars: int = 252
    kelly_fraction: float = 0.5
    fit_bars: int = 504

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name.endswith("_bars")):
            least = 1 if name in ("rebalance_bars", "momentum_bars") else 2
            if getattr(self, name) < least:
                raise ConfigError(f"baselines.{name} = {getattr(self, name)}; expected at least {least} bars.")
        if not 0 < self.kelly_fraction <= 1:
            raise ConfigError(f"baselines.kelly_fraction = {self.kelly_fraction}; expected a fraction in (0, 1].")
        if self.momentum_assets is not None and self.momentum_assets < 1:
            raise ConfigError(f"baselines.momentum_assets = {self.momentum_assets}; expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A rule and its timetable.

    Attributes:
        rule: past returns (lookback_bars, N) → weights (N,).
        lookback_bars: returns the rule needs; until so many exist, equal weight is held.
        every_bars: between decisions; None decides once and drifts for ever.
    """

    rule: Rule
    lookback_bars: int = 0
    every_bars: int | None = 1


def fixed(weights: Sequence[float]) -> Rule:
    """The same weights whatever happened."""
    weights = np.array(weights, dtype=np.float64)
    return lambda past: weights


def momentum(past: Array, assets: int) -> Array:
    """Equal weights on the `assets` highest total returns over the window; ties go to the earlier column."""
    total = np.log1p(past).sum(0)
    chosen = np.argsort(-total, kind="stable")[:assets]
    weights = np.zeros(past.shape[1])
    weights[chosen] = 1.0 / len(chosen)
    return weights


def inverse_volatility(past: Array) -> Array:
    """wₙ ∝ 1 / σₙ, summing to one."""
    inverse = 1.0 / np.maximum(past.std(0, ddof=1), 1e-12)
    return inverse / inverse.sum()


def fractional_kelly(past: Array, fraction: float) -> Array:
    """wₙ = fraction · max(μₙ, 0) / σₙ², each asset by itself (no covariances); the caps then scale it down.

    Source: Thorp (2006), "The Kelly criterion in blackjack, sports betting and the stock market", continuous approximation.
    """
    return fraction * np.maximum(past.mean(0), 0.0) / np.maximum(past.var(0, ddof=1), 1e-12)


def min_cvar(past: Array) -> Array:
    """Long-only, fully invested weights with the lowest 95 % CVaR on the window (skfolio's MeanRisk)."""
    from skfolio import RiskMeasure  # takes seconds to import
    from skfolio.optimization import EqualWeighted, MeanRisk

    return _fit(MeanRisk(risk_measure=RiskMeasure.CVAR, fallback=EqualWeighted()), past)


def risk_parity(past: Array) -> Array:
    """Long-only, fully invested weights whose assets contribute the same variance (skfolio's RiskBudgeting)."""
    from skfolio import RiskMeasure
    from skfolio.optimization import EqualWeighted, RiskBudgeting

    return _fit(RiskBudgeting(risk_measure=RiskMeasure.VARIANCE, fallback=EqualWeighted()), past)


def _fit(optimizer, past: Array) -> Array:
    # Both weights are the same for returns in any unit; one per cent a bar keeps the solver's tolerances meaningful.
    with warnings.catch_warnings():
        # A window without a sharp optimum ends at reduced accuracy; a real failure falls back to equal weight.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        optimizer.fit(past * (0.01 / max(float(past.std()), 1e-12)))
    return np.maximum(np.asarray(optimizer.weights_, dtype=np.float64), 0.0)


def standard_baselines(
    symbols: Sequence[str],
    config: BaselineConfig | None = None,
    regimes: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Baseline]:
    """The registry: name → baseline.

    Args:
        symbols: N assets of the tape.
        config: windows and sizes.
        regimes: name → weights (N + 1,) over [CASH, *symbols], each held for ever (rebalanced every bar) as
            REGIME_<NAME>. Those that put everything in one place repeat CASH or ALL_<SYMBOL> and are left out; so is
            HOLD, which from cash is CASH.

    Raises:
        ConfigError: a regime's weights are not N + 1 fractions that sum to one.
    """
    config = config or BaselineConfig()
    n, every = len(symbols), config.rebalance_bars
    best = min(config.momentum_assets or max(1, n // 4), n)
    equal = fixed(np.full(n, 1.0 / n))
    table = {f"ALL_{symbol}": Baseline(rule=fixed(row)) for symbol, row in zip(symbols, np.eye(n), strict=True)}
    table |= {
        "CASH": Baseline(rule=fixed(np.zeros(n))),
        "EQUAL_WEIGHT": Baseline(rule=equal),
        "EQUAL_WEIGHT_DRIFT": Baseline(rule=equal, every_bars=None),
        f"MOMENTUM_TOP_{best}": Baseline(
            rule=lambda past: momentum(past, best), lookback_bars=config.momentum_bars, every_bars=every
        ),
        "INVERSE_VOLATILITY": Baseline(rule=inverse_volatility, lookback_bars=config.volatility_bars, every_bars=every),
        "FRACTIONAL_KELLY": Baseline(
            rule=lambda past: fractional_kelly(past, config.kelly_fraction), lookback_bars=config.kelly_bars, every_bars=every
        ),
        "MIN_CVAR": Baseline(rule=min_cvar, lookback_bars=config.fit_bars, every_bars=every),
        "RISK_PARITY": Baseline(rule=risk_parity, lookback_bars=config.fit_bars, every_bars=every),
    }
    return table | _regime_baselines(symbols, regimes or {})


def _regime_baselines(symbols: Sequence[str], regimes: Mapping[str, Sequence[float]]) -> dict[str, Baseline]:
    table = {}
    for name, weights in regimes.items():
        if name == "HOLD":
            continue
        w = np.array(weights, dtype=np.float64)
        if w.shape != (len(symbols) + 1,) or abs(w.sum() - 1.0) > 1e-9:
            raise ConfigError(
                f"regimes.{name} = {tuple(weights)}; expected {len(symbols) + 1} fractions "
                f"over CASH, {', '.join(symbols)} that sum to 1."
            )
        if w.max() < 1.0:
            table[f"REGIME_{name}"] = Baseline(rule=fixed(w[1:]))
    return table


def baseline_targets(
    baseline: Baseline, tape: MarketTape, first: int, last: int, financing: FinancingConfig, caps: CapsConfig
) -> Array:
    """Targets of rows first … last, decided with rows ≤ t of the whole tape.

    Between decisions the target is the drifted portfolio, so nothing is traded (unless drift leaves the caps).

    Returns:
        (last − first + 1, N) feasible weights.
    """
    limits = gross_caps(tape, caps)
    targets = np.empty((last - first + 1, tape.num_assets))
    for s, t in enumerate(range(first, last + 1)):
        due = s == 0 or (baseline.every_bars is not None and s % baseline.every_bars == 0)
        wanted = _decide(baseline, tape.gross[: t + 1]) if due else _drift(targets[s - 1], tape.gross[t], financing)
        targets[s] = ledger.project(wanted, caps, limits[t])
    return targets


def _decide(baseline: Baseline, known: Array) -> Array:
    """Ask the rule; `known` (t + 1, N) gross returns end at the decision. Row 0 has no price before it and is no return."""
    if len(known) - 1 < baseline.lookback_bars:
        return np.full(known.shape[1], 1.0 / known.shape[1])
    return baseline.rule(known[len(known) - baseline.lookback_bars :] - 1.0)


def _drift(target: Array, gross: Array, financing: FinancingConfig) -> Array:
    return ledger.hold(target, gross, financing).weights


def judge_baselines(
    tape: MarketTape,
    start: str | None,
    end: str | None,
    costs: CostConfig,
    financing: FinancingConfig,
    caps: CapsConfig | None = None,
    *,
    config: BaselineConfig | None = None,
    regimes: Mapping[str, Sequence[float]] | None = None,
    only: Collection[str] | None = None,
    liquidity: LiquidityConfig | None = None,
) -> list[Track]:
    """Every standard baseline over [start, end], one continuous path each, with the policy's own costs and financing.

    Args:
        tape: the whole history; rows before `start` serve the rules as warm-up, rows after `end` are never seen.
        caps: of the baselines; long-only without leverage if not given. A `per_asset` cap also binds ALL_<SYMBOL>.
        only: names of those wanted; all if not given.
        liquidity: what the market takes of an account of that size, as in the policy's environment. Mandates (`per_asset`,
            groups, factors, the turnover budget) bind the policy alone: baselines are what else the money could do.

    Raises:
        MarketDataError: fewer than two rows lie inside [start, end].
    """
    caps = caps or CapsConfig()
    first, last = tape.row_range(start, end)
    inside, seen = tape.rows(first, last), tape.rows(0, last)
    room = trading_room(seen, liquidity, first, last)
    tracks = []
    for name, baseline in standard_baselines(tape.symbols, config, regimes).items():
        if only is not None and name not in only:
            continue
        if first < baseline.lookback_bars:
            log.info(
                "%s needs %d returns and has %d at %s: equal weight until then.", name, baseline.lookback_bars, first, start
            )
        targets = baseline_targets(baseline, seen, first, last, financing, caps)
        tracks.append(run_targets(name, targets, inside, costs, financing, caps, room))
    return tracks
