"""Cost realism: the same target weights under dearer and dearer ways to trade them, and where the edge ends."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import brentq

from envs import ledger
from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.backtest import run_targets
from rlplatform.evaluation.market_detail import MarketDetail
from rlplatform.evaluation.metrics import Metrics, finite_or_none, summarize
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.track import Track

Array = np.ndarray
ACCOUNTS = (1e5, 1e7, 1e9)  # a private one, a small fund, a large one
HIGHEST_BPS = 1_000.0  # a tenth of every trade; an edge that survives it does not come from trading
SMALLEST_ACCOUNT, LARGEST_ACCOUNT = 1e3, 1e13  # money units between which capacity is looked for
ANY_WEIGHTS = CapsConfig(long_only=False, gross=100, net=100, per_asset=100)  # a track's weights were made feasible before


@dataclass(frozen=True, kw_only=True)
class CostScenario:
    """One way to trade.

    Attributes:
        name: in the table.
        commission_bps, half_spread_bps: of traded value.
        account: size of the account, for square-root impact [money unit of the prices]; no impact if not given.
        impact: Y of the square-root law, near 1.
        next_open: orders go out at the close and are filled at the next open, instead of at that close.
    """

    name: str
    commission_bps: float = 1.0
    half_spread_bps: float = 0.0
    account: float | None = None
    impact: float = 1.0
    next_open: bool = False

    def __post_init__(self) -> None:
        if self.account is not None and not self.account > 0:
            raise ConfigError(f"{self.name}: account = {self.account}; expected an amount of money above 0.")

    @property
    def costs(self) -> CostConfig:
        """What the ledger charges."""
        impact = 0.0 if self.account is None else self.impact
        return CostConfig(proportional_bps=self.commission_bps + self.half_spread_bps, impact=impact)


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """A track and its benchmark in one scenario; `growth_edge` is the difference of log growth [per year]."""

    scenario: CostScenario
    metrics: Metrics
    benchmark_cagr: float
    growth_edge: float

    def to_dict(self) -> dict:
        figures = {"benchmark_cagr": finite_or_none(self.benchmark_cagr), "growth_edge": finite_or_none(self.growth_edge)}
        return {**asdict(self.scenario), **self.metrics.to_dict(), **figures}


@dataclass(frozen=True, kw_only=True)
class CostRealism:
    """What is left of a track as trading gets dearer.

    Attributes:
        name, benchmark: of the two tracks; both pay the same costs.
        rows: one a scenario.
        break_even_bps: proportional cost at which the track grows no faster than the benchmark [bp of traded value]; 0 if it
            does not even for free, infinite if it does at 1,000 bp.
        capacity: account at which impact on top of the dearest proportional cost has eaten the edge [money unit of the
            prices]; 0 without an edge, NaN where volume is not known.
        missing: lines on scenarios that the prices do not allow.
    """

    name: str
    benchmark: str
    rows: tuple[CostRow, ...]
    break_even_bps: float
    capacity: float
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        figures = {name: finite_or_none(getattr(self, name)) for name in ("break_even_bps", "capacity")}
        unlimited = {"break_even_unlimited": math.isinf(self.break_even_bps), "capacity_unlimited": math.isinf(self.capacity)}
        rows = {"rows": [row.to_dict() for row in self.rows], "missing": list(self.missing)}
        return {"name": self.name, "benchmark": self.benchmark} | figures | unlimited | rows

    def table(self) -> list[dict[str, str]]:
        """For print: one row a scenario."""
        return [
            {
                "costs": row.scenario.name,
                "CAGR": percent(row.metrics.cagr, sign=True),
                "Sharpe": number(row.metrics.sharpe),
                "max_drawdown": percent(row.metrics.max_drawdown),
                "cost_paid": percent(row.metrics.cost_paid, 2),
                f"growth over {self.benchmark}": percent(row.growth_edge, sign=True),
            }
            for row in self.rows
        ]


def standard_scenarios(
    commission_bps: float = 1.0, half_spread_bps: float = 4.0, accounts: Sequence[float] = ACCOUNTS
) -> list[CostScenario]:
    """Commission only; + half spread; + square-root impact at each account size; all but impact at the next open."""
    rates = {"commission_bps": commission_bps, "half_spread_bps": half_spread_bps}
    return [
        CostScenario(name="commission only", commission_bps=commission_bps),
        CostScenario(name="+ half spread", **rates),
        *(CostScenario(name=f"+ impact, account {account:,.0f}", account=account, **rates) for account in accounts),
        CostScenario(name="+ half spread, next open", next_open=True, **rates),
    ]


def cost_realism(
    track: Track,
    benchmark: Track,
    tape: MarketTape,
    detail: MarketDetail,
    financing: FinancingConfig,
    scenarios: Sequence[CostScenario] | None = None,
) -> CostRealism:
    """Replay the weights of a track and of its benchmark under each scenario.

    The weights are those that were decided under the run's own costs: a policy that looks at its account might have traded
    less, had trading been dearer.

    Args:
        tape: with the dates of the tracks among its own.
        detail: volatility, value traded and opens, on the tape's dates.

    Raises:
        ShapeError: tracks, tape and detail do not share dates or symbols.
    """
    scenarios = standard_scenarios() if scenarios is None else scenarios
    possible, missing = _possible(scenarios, detail)
    inside = _rows_of(track, benchmark, tape)
    within = detail.at(inside.dates, inside.symbols)
    rows = []
    for scenario in possible:
        pair = [replay(t, inside, within, scenario, financing) for t in (track, benchmark)]
        metrics = [summarize(t, financing.bars_per_year) for t in pair]
        edge = _growth(pair[0], financing) - _growth(pair[1], financing)
        rows.append(CostRow(scenario=scenario, metrics=metrics[0], benchmark_cagr=metrics[1].cagr, growth_edge=edge))
    dearest = max((s.commission_bps + s.half_spread_bps for s in scenarios), default=0.0)
    return CostRealism(
        name=track.name,
        benchmark=benchmark.name,
        rows=tuple(rows),
        break_even_bps=break_even_bps(track, benchmark, inside, financing),
        capacity=capacity(track, benchmark, inside, within, financing, CostConfig(proportional_bps=dearest)),
        missing=missing,
    )


def replay(track: Track, tape: MarketTape, detail: MarketDetail, scenario: CostScenario, financing: FinancingConfig) -> Track:
    """The track's weights traded in one scenario; tape and detail cover the track's rows exactly.

    Raises:
        MarketDataError: the scenario needs volume or opens that the prices lack.
    """
    if scenario.account is not None:
        tape = dataclasses.replace(tape, impact_scale=detail.impact_scale(scenario.account))
    if scenario.next_open:
        return _at_next_open(track, tape, detail, scenario.costs, financing)
    targets = np.concatenate([track.weights, track.weights[-1:]])
    return run_targets(track.name, targets, tape, scenario.costs, financing, ANY_WEIGHTS)


def break_even_bps(track: Track, benchmark: Track, tape: MarketTape, financing: FinancingConfig) -> float:
    """Proportional cost [bp of traded value] that both pay at which their final wealth is the same."""

    def edge(bps: float) -> float:
        costs = CostConfig(proportional_bps=bps if bps >= 0.01 else 0.0)
        return _final_edge(track, benchmark, tape, costs, financing)

    return _where_edge_ends(edge, 0.0, HIGHEST_BPS)


def capacity(
    track: Track, benchmark: Track, tape: MarketTape, detail: MarketDetail, financing: FinancingConfig, costs: CostConfig
) -> float:
    """Account at which the track, with square-root impact on itself, grows no faster than the benchmark [money unit].

    Impact is that of an account which keeps its size (wealth 1), also for the benchmark. Y = 1.
    """
    if detail.daily_value is None:
        return math.nan
    unit, with_impact = detail.impact_scale(1.0), dataclasses.replace(costs, impact=1.0)

    def edge(log_account: float) -> float:
        sized = dataclasses.replace(tape, impact_scale=unit * math.exp(log_account / 2))
        return _final_edge(track, benchmark, sized, with_impact, financing)

    smallest = math.log(SMALLEST_ACCOUNT)
    found = _where_edge_ends(edge, smallest, math.log(LARGEST_ACCOUNT))
    return 0.0 if found == smallest else math.exp(found) if math.isfinite(found) else found


def _where_edge_ends(edge: Callable[[float], float], low: float, high: float) -> float:
    """The first root; `low` where there is no edge to begin with, infinity where it never ends."""
    points = np.linspace(low, high, 41).tolist()
    if not edge(low) > 0:
        return low
    for before, after in itertools.pairwise(points):
        if not edge(after) > 0:
            return float(brentq(edge, before, after, xtol=1e-4))
    return math.inf


def _final_edge(track: Track, benchmark: Track, tape: MarketTape, costs: CostConfig, financing: FinancingConfig) -> float:
    """ln W − ln W_benchmark at the end, by the one-pass ledger; who is ruined has no edge, even over another who is."""
    ends = []
    for weights in (track.weights, benchmark.weights):
        scale = tape.impact_scale[:-1, None, :]
        steps = ledger.path(weights[:, None, :], tape.gross[1:], costs, financing, impact_scale=scale)
        ends.append(float(steps.wealth[-1, 0]))
    if ends[0] <= 0:
        return -1.0
    return math.log(ends[0] / ends[1]) if ends[1] > 0 else 1.0


def _at_next_open(track: Track, tape: MarketTape, detail: MarketDetail, costs: CostConfig, financing: FinancingConfig) -> Track:
    """Two half bars a bar: the old weights drift overnight, the new ones are bought at the open and held to the close."""
    if detail.overnight is None:
        raise MarketDataError("the next open is not known: the prices lack opens. Use prices with an open column.")
    half = dataclasses.replace(financing, bars_per_year=2 * financing.bars_per_year)
    overnight, intraday = detail.overnight[1:], tape.gross[1:] / detail.overnight[1:]
    at_close = ledger.hold(track.weights, intraday, half).weights
    bars, assets = track.weights.shape
    targets, gross = np.zeros((2 * bars, 1, assets)), np.empty((2 * bars, assets))
    targets[1::2, 0], targets[2::2, 0] = track.weights, at_close[:-1]  # the first night is spent in cash
    gross[0::2], gross[1::2] = overnight, intraday
    steps = ledger.path(targets, gross, costs, half)
    by_bar = {name: getattr(steps, name).reshape(bars, 2).sum(1) for name in ("turnover", "cost", "financing", "borrow_fee")}
    wealth = np.clip(np.append(1.0, steps.wealth[1::2, 0]), 0.0, None)
    return Track(
        name=track.name,
        dates=track.dates,
        wealth=wealth,
        symbols=track.symbols,
        weights=track.weights,
        turnover=by_bar["turnover"],
        cost=by_bar["cost"],
        financing=by_bar["financing"] + by_bar["borrow_fee"],
        ruined=bool(wealth[-1] <= 0),
    )


def _possible(scenarios: Sequence[CostScenario], detail: MarketDetail) -> tuple[list[CostScenario], tuple[str, ...]]:
    possible, missing = [], []
    for scenario in scenarios:
        lacks = [
            *(["volume"] if scenario.account is not None and detail.daily_value is None else []),
            *(["opens"] if scenario.next_open and detail.overnight is None else []),
        ]
        possible += [] if lacks else [scenario]
        missing += [f"{scenario.name}: the prices lack {' and '.join(lacks)}."] if lacks else []
    return possible, tuple(missing)


def _rows_of(track: Track, benchmark: Track, tape: MarketTape) -> MarketTape:
    inside = tape.between(*(str(track.dates[row])[:10] for row in (0, -1)))
    for other in (track, benchmark):
        if not np.array_equal(other.dates, inside.dates) or other.symbols != tape.symbols:
            raise ShapeError(
                f"{other.name} covers {' to '.join(other.period)} ({len(other)} bars) of {', '.join(other.symbols)}; expected "
                f"{len(inside) - 1} bars of {', '.join(tape.symbols)}, the tape's rows from {str(inside.dates[0])[:10]} on."
            )
    return inside


def _growth(track: Track, financing: FinancingConfig) -> float:
    final = float(track.wealth[-1])
    return math.log(final) * financing.bars_per_year / len(track) if final > 0 else -math.inf
