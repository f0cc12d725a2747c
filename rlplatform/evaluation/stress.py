"""Stress scenarios: returns drawn anew, of one regime only, or shocked, replayed through the ledger.

Every scenario follows real history, so that rules and features start warm; its first decision falls on the last row of
that history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from envs import make
from envs.accounts import TradingConfig
from envs.errors import ConfigError, ShapeError
from envs.indicators import REGIME_NAMES, volatility_regime
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.backtest import Policy, run_policy, run_targets
from rlplatform.evaluation.baselines import Baseline, baseline_targets
from rlplatform.evaluation.track import Track

Array = np.ndarray
Player = Callable[["Scenario"], Track]


@dataclass(frozen=True, kw_only=True)
class ShockConfig:
    """A crash and what follows.

    Attributes:
        name: what a table calls it.
        fall: of the equal-weight market over the crash [fraction, in (0, 1)].
        fall_bars: length of the crash.
        volatility: of the crash, times that of history.
        recovery_volatility: of the recovery, likewise.
        correlation: ρ, share of each asset's variance that all have in common.
        recovery: share of the log fall that comes back.
        recovery_bars: over which it does.
    """

    name: str
    fall: float
    fall_bars: int
    volatility: float
    recovery_volatility: float
    correlation: float
    recovery: float
    recovery_bars: int

    def __post_init__(self) -> None:
        for name in ("fall", "correlation"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"shock {self.name}: {name} = {getattr(self, name)}; expected a fraction in (0, 1).")
        if min(self.fall_bars, self.recovery_bars) < 2:
            raise ConfigError(f"shock {self.name}: fall and recovery take at least 2 bars each.")


# Equal weight of SPY, QQQ and IWM with dividends, daily closes, against their volatility from 2000 to 2024: 2008-08-28 to
# 2009-03-09 and on to 2009-08-31; 2020-02-19 to 2020-03-23 and on to 2020-08-18.
SHOCKS = (
    ShockConfig(
        name="2008", fall=0.487, fall_bars=131, volatility=2.5, correlation=0.93,
        recovery=0.69, recovery_bars=122, recovery_volatility=1.3,
    ),
    ShockConfig(
        name="2020", fall=0.343, fall_bars=23, volatility=3.5, correlation=0.95,
        recovery=1.09, recovery_bars=103, recovery_volatility=1.5,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StressConfig:
    """Which scenarios, and how many of each.

    Attributes:
        paths: drawn of each kind.
        bars: length of the drawn ones.
        block_bars: mean length of a block.
        history_bars: real rows before each scenario, for warm-up.
        shocks: crashes.
        seed: of the draws.
    """

    paths: int = 20
    bars: int = 252
    block_bars: int = 10
    history_bars: int = 600
    shocks: tuple[ShockConfig, ...] = SHOCKS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("paths", "bars", "block_bars", "history_bars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"stress.{name} = {getattr(self, name)}; expected at least 1.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenario:
    """One path.

    Attributes:
        name: of its kind: "bootstrap", "calm", "choppy", "crisis" or "shock_<name>".
        tape: history, then the scenario; returns only, weekdays from the first date of the real tape on.
        first: row of the first decision, the last one of history.
        drawn_from: (T,) row of the real tape that each bar is; −1 where it was made up.
    """

    name: str
    tape: MarketTape
    first: int
    drawn_from: Array

    @property
    def period(self) -> tuple[str, str]:
        """First decision and last valuation."""
        return str(self.tape.dates[self.first]), str(self.tape.dates[-1])


def scenarios(tape: MarketTape, config: StressConfig | None = None) -> list[Scenario]:
    """Every scenario of `config`, drawn from a real tape.

    A regime that history never was in for `block_bars` rows in total is left out.

    Raises:
        ShapeError: the tape is shorter than two blocks.
    """
    config = config or StressConfig()
    gross = tape.gross[1:]  # row 0 is no return
    if len(gross) < 2 * config.block_bars:
        raise ShapeError(f"stress: the tape has {len(gross)} returns; blocks of {config.block_bars} need twice as many.")
    rng = np.random.default_rng(config.seed)
    draw = lambda rows: block_rows(rows, config.bars, config.block_bars, rng)  # noqa: E731
    drawn = [("bootstrap", draw(np.arange(len(gross)))) for _ in range(config.paths)]
    regime = volatility_regime(gross.mean(axis=1))
    for code, name in enumerate(REGIME_NAMES):
        rows = np.flatnonzero(regime == code)
        if len(rows) >= config.block_bars:
            drawn += [(name, draw(rows)) for _ in range(config.paths)]
    made = [(name, gross[rows], rows + 1) for name, rows in drawn]
    for shock in config.shocks:
        paths = (shocked(gross, shock, config.block_bars, rng) for _ in range(config.paths))
        made += [(f"shock_{shock.name}", path, np.full(len(path), -1)) for path in paths]
    return [_after_history(name, path, rows, tape, config.history_bars) for name, path, rows in made]


def block_bootstrap(gross: Array, bars: int, block_bars: int, rng: np.random.Generator, rows: Array | None = None) -> Array:
    """Whole rows (bars, N) in blocks of geometric length, so that assets keep together and volatility keeps clustering.

    Args:
        gross: (T, N).
        block_bars: mean length of a block.
        rows: that may be drawn; a block goes on to the next of them. All if not given.
    """
    return gross[block_rows(np.arange(len(gross)) if rows is None else rows, bars, block_bars, rng)]


def block_rows(rows: Array, bars: int, block_bars: int, rng: np.random.Generator) -> Array:
    """(bars,) of `rows` in blocks of geometric length, `block_bars` on average; a block goes on to the next of them.

    Source: Politis & Romano (1994), "The stationary bootstrap".
    """
    begins = rng.random(bars) < 1.0 / block_bars
    begins[0] = True
    start = rng.integers(0, len(rows), bars)
    since = np.arange(bars) - np.maximum.accumulate(np.where(begins, np.arange(bars), 0))
    return rows[(start[np.maximum.accumulate(np.where(begins, np.arange(bars), 0))] + since) % len(rows)]


def shocked(gross: Array, shock: ShockConfig, block_bars: int, rng: np.random.Generator) -> Array:
    """A crash and its recovery (fall_bars + recovery_bars, N).

    Standardised log returns of a bootstrapped path, all assets together, are split into their common part c and what each
    asset has of its own, e; mixed, brought back to variance 1 and scaled by history's σ. Each stretch is then shifted by one
    number a bar so that the mean log return over the assets is exactly the fall's, then the recovery's:

        x = σ·volatility·(√ρ c + √(1 − ρ) e),    Σ mean(x) = log(1 − fall), then −recovery · log(1 − fall)
    """
    logs = np.log(gross)
    spread = np.maximum(logs.std(axis=0), 1e-12)
    bars = shock.fall_bars + shock.recovery_bars
    drawn = np.log(block_bootstrap(gross, bars, block_bars, rng))
    common = _standardised(((drawn - logs.mean(axis=0)) / spread).mean(axis=1, keepdims=True))
    scores = _standardised(drawn)
    own = _standardised(scores - (scores * common).mean(axis=0) * common)
    moves = spread * _standardised(np.sqrt(shock.correlation) * common + np.sqrt(1.0 - shock.correlation) * own)
    moves[: shock.fall_bars] *= shock.volatility
    moves[shock.fall_bars :] *= shock.recovery_volatility
    depth = np.log(1.0 - shock.fall)
    parts = (moves[: shock.fall_bars], depth), (moves[shock.fall_bars :], -shock.recovery * depth)
    return np.exp(np.concatenate([part + (change / len(part) - part.mean()) for part, change in parts]))


def _standardised(columns: Array) -> Array:
    """Mean 0 and variance 1 down each column; a constant one is 0."""
    centred = columns - columns.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-9)


def _after_history(name: str, path: Array, rows: Array, tape: MarketTape, history_bars: int) -> Scenario:
    before = np.arange(len(tape))[-min(history_bars, len(tape)) :]
    history = tape.gross[before]
    days = np.busday_offset(tape.dates[0].astype("datetime64[D]"), np.arange(len(history) + len(path)), roll="forward")
    made = MarketTape(dates=days, symbols=tape.symbols, gross=np.concatenate([history, path]))
    return Scenario(name=name, tape=made, first=len(history) - 1, drawn_from=np.concatenate([before, rows]))


def rule_player(
    name: str, baseline: Baseline, costs: CostConfig, financing: FinancingConfig, caps: CapsConfig | None = None
) -> Player:
    """Replays a rule on past returns."""
    limits = caps or CapsConfig()

    def play(scenario: Scenario) -> Track:
        last = len(scenario.tape) - 1
        targets = baseline_targets(baseline, scenario.tape, scenario.first, last, financing, limits)
        return run_targets(name, targets, scenario.tape.rows(scenario.first, last), costs, financing, limits)

    return play


def policy_player(name: str, policy: Policy, config: TradingConfig, observed: Callable[[MarketTape], MarketTape]) -> Player:
    """Replays a policy in its environment.

    Args:
        config: its settings, with an episode over the whole window in order.
        observed: adds to a tape of returns what the policy looks at: features, scaled as in training.
    """

    def play(scenario: Scenario) -> Track:
        return run_policy(name, make(config, observed(scenario.tape), *scenario.period), policy)

    return play


@dataclass(frozen=True, kw_only=True)
class StressRow:
    """One kind of scenario for one player. Losses are returns, negative for a loss.

    Attributes:
        median_return, worst_return: over the paths.
        return_5: 5 % quantile over the paths.
        median_drawdown, worst_drawdown: deepest fall of a path, ≤ 0.
        ruined: share of the paths that ended in ruin.
    """

    scenario: str
    player: str
    paths: int
    median_return: float
    return_5: float
    worst_return: float
    median_drawdown: float
    worst_drawdown: float
    ruined: float

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def stress_table(paths: Iterable[Scenario], players: Mapping[str, Player]) -> list[StressRow]:
    """What each player loses in each kind of scenario; kinds in the order they come, players in theirs."""
    kinds: dict[str, list[Scenario]] = {}
    for scenario in paths:
        kinds.setdefault(scenario.name, []).append(scenario)
    return [
        _row(kind, name, [play(scenario) for scenario in members])
        for kind, members in kinds.items()
        for name, play in players.items()
    ]


def _row(kind: str, player: str, tracks: Sequence[Track]) -> StressRow:
    ends = np.array([track.wealth[-1] - 1.0 for track in tracks])
    depths = np.array([track.drawdown.min() for track in tracks])
    return StressRow(
        scenario=kind,
        player=player,
        paths=len(tracks),
        median_return=float(np.median(ends)),
        return_5=float(np.quantile(ends, 0.05)),
        worst_return=float(ends.min()),
        median_drawdown=float(np.median(depths)),
        worst_drawdown=float(depths.min()),
        ruined=float(np.mean([track.ruined for track in tracks])),
    )
