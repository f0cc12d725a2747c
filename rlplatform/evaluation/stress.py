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
from envs.errors import ConfigError, ShapeError
from envs.indicators import REGIME_NAMES, volatility_regime
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from envs.trading_config import TradingConfig
from rlplatform.evaluation.backtest import Policy, run_policy, run_targets
from rlplatform.evaluation.baselines import Baseline, baseline_targets
from rlplatform.evaluation.track import Track
from rlplatform.scenarios.blocks import block_rows
from rlplatform.scenarios.shocks import SHOCKS, ShockConfig, shocked

Array = np.ndarray
Player = Callable[["Scenario"], Track]


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
        name: of its kind: "bootstrap", "calm", "choppy", "crisis", "shock_<name>", or a scenario model's.
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


def generated_scenarios(name: str, paths: Array, tape: MarketTape, history_bars: int) -> list[Scenario]:
    """Scenarios of paths (S, bars, N) of gross returns that a scenario model made, each after the tape's last rows."""
    return [_after_history(name, path, np.full(len(path), -1), tape, history_bars) for path in paths]


def _after_history(name: str, path: Array, rows: Array, tape: MarketTape, history_bars: int) -> Scenario:
    before = np.arange(len(tape))[-min(history_bars, len(tape)) :]
    history = tape.gross[before]
    days = np.busday_offset(tape.dates[0].astype("datetime64[D]"), np.arange(len(history) + len(path)), roll="forward")
    made = MarketTape(dates=days, symbols=tape.symbols, gross=np.concatenate([history, path]))
    return Scenario(name=name, tape=made, first=len(history) - 1, drawn_from=np.concatenate([before, rows]))


def rule_player(
    name: str,
    baseline: Baseline,
    costs: CostConfig,
    financing: FinancingConfig,
    caps: CapsConfig | None = None,
    room: Callable[[Scenario], Array | None] = lambda scenario: None,
) -> Player:
    """Replays a rule on past returns.

    Args:
        room: how much can be traded at each row from the scenario's first decision on, as `run_targets` takes it.
    """
    limits = caps or CapsConfig()

    def play(scenario: Scenario) -> Track:
        last = len(scenario.tape) - 1
        targets = baseline_targets(baseline, scenario.tape, scenario.first, last, financing, limits)
        return run_targets(name, targets, scenario.tape.rows(scenario.first, last), costs, financing, limits, room(scenario))

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
