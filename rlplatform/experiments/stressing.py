"""Stress of a run: its policy and simple rules in drawn, regime-conditioned and shocked markets, with the run's own costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from envs.indicators import CRISIS
from envs.tape import MarketTape
from rlplatform.data import Prices
from rlplatform.evaluation.backtest import Policy as Decider
from rlplatform.evaluation.backtest import trading_room
from rlplatform.evaluation.baselines import standard_baselines
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.stress import (
    Player,
    Scenario,
    StressConfig,
    generated_scenarios,
    policy_player,
    rule_player,
    scenarios,
    stress_table,
)
from rlplatform.evaluation.stress_findings import StressFindings
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import policy_name, whole_period
from rlplatform.experiments.market import Market, prepare_market, tape_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.scenario_training import fitting_rows, model_config
from rlplatform.features.context.asof import align
from rlplatform.files import write_json
from rlplatform.models.ensemble import load_policy
from rlplatform.scenarios.model import fit_model

FILE = "stress.json"
RULES = ("EQUAL_WEIGHT", "MOMENTUM", "INVERSE_VOLATILITY")  # beside the benchmark; all others take an optimiser or hold still

_SERIES_NOTE = (
    "The series of features.context come with the days that are drawn, each day's value and change; in a made-up crash they "
    "are unknown and the policy is shown their neutral values."
)


def stress_run(
    path: Path,
    settings: StressConfig | None = None,
    on_phase: Callable[[str], None] = lambda text: None,
    model: str | None = None,
) -> StressFindings:
    """Replay a run's policy in every scenario; writes stress.json into its report.

    Args:
        model: of further scenarios; see `stress`.

    Raises:
        ConfigError: no run there, or none with a policy yet.
    """
    run = RunDirectory.open(path)
    config, scaler = run.config(), run.scaler()
    market, policy = prepare_market(config, scaler), load_policy(run.policy)
    on_phase("trading in scenarios")
    found = stress(config, market, policy, settings, model=model)
    run.report.mkdir(parents=True, exist_ok=True)
    write_json(run.report / FILE, found.to_dict())
    return found


def stress(
    config: ExperimentConfig,
    market: Market,
    policy: Decider,
    settings: StressConfig | None = None,
    benchmark: str | None = None,
    model: str | None = None,
) -> StressFindings:
    """The policy and simple rules in scenarios drawn from the market's whole history.

    Args:
        benchmark: baseline to name in the sentence; the gate's if not given.
        model: a scenario model, such as "regime_garch", fitted on the training rows: further kinds of its paths, as they come
            and all in crisis.
    """
    settings, name = settings or StressConfig(), policy_name(config, policy)
    rules = standard_baselines(market.tape.symbols, config.evaluation.baselines)
    against = benchmark or find_benchmark(list(rules), config.evaluation.gate.benchmark)
    paths = scenarios(market.tape, settings)
    if model is not None:
        paths += _of_model(config, market.tape, settings, model)
    series = align(market.series, market.prices)
    observed = {
        path.tape.sha256: tape_of(config, prices_of(path, market.prices), market.scaler, series.redrawn(path.drawn_from))
        for path in paths
    }
    env = whole_period(config.env)

    def room(path: Scenario) -> np.ndarray | None:
        return trading_room(observed[path.tape.sha256], env.liquidity, path.first, len(path.tape) - 1)

    players: dict[str, Player] = {name: policy_player(name, policy, env, lambda tape: observed[tape.sha256])}
    for rule in (against, *_rules(list(rules))):
        players.setdefault(rule, rule_player(rule, rules[rule], env.costs, env.financing, room=room))
    return StressFindings(
        policy=name,
        benchmark=against,
        rows=tuple(stress_table(paths, players)),
        config=settings,
        notes=(*_notes(config, market.tape, settings), *([_model_note(config, model)] if model else [])),
    )


def _of_model(config: ExperimentConfig, tape: MarketTape, settings: StressConfig, name: str) -> list[Scenario]:
    """The model's paths, beginning in the state of the market at the tape's end."""
    model, rng = fit_model(model_config(name, config), fitting_rows(config, tape)), np.random.default_rng(settings.seed)
    history, found = tape.gross[-settings.history_bars :], []
    for kind, regime in ((name, None), (f"{name}_crisis", CRISIS)):
        paths = model.sample(settings.paths, settings.bars, rng, history=history, regime=regime)
        found += generated_scenarios(kind, paths, tape, settings.history_bars)
    return found


def _model_note(config: ExperimentConfig, name: str) -> str:
    start, end = config.split.train
    return f"{name}: paths of that model, fitted on {start} to {end}; {name}_crisis: the market stays in its crisis regime."


def prices_of(path: Scenario, market: Prices | None = None) -> Prices:
    """A scenario's returns as closes that start at 1. Volume is constant: a policy that learnt with it sees a z-score of 0.

    Args:
        market: the real prices that rows were drawn from: each brings the value that was traded on its day, and a made-up one
            the average of the others in its scenario.
    """
    close, where = np.cumprod(path.tape.gross, axis=0), f"scenario {path.name}"
    traded = None if market is None else market.dollar_volume
    if traded is not None:
        made_up = path.drawn_from < 0
        traded = np.where(made_up[:, None], traded[path.drawn_from[~made_up]].mean(axis=0), traded[path.drawn_from])
    of_market = {"dates": path.tape.dates, "symbols": path.tape.symbols, "close": close}
    return Prices(**of_market, volume=np.ones_like(close), dollar_volume=traded, source=where)


def _rules(names: Sequence[str]) -> list[str]:
    return [name for prefix in RULES for name in names if name == prefix or name.startswith(f"{prefix}_TOP")]


def _notes(config: ExperimentConfig, tape: MarketTape, settings: StressConfig) -> tuple[str, ...]:
    start, end = (str(tape.dates[row])[:10] for row in (0, -1))
    shocks = "; ".join(
        f"shock_{s.name}: {percent(-s.fall)} in {s.fall_bars} bars at {s.volatility:g} × volatility, correlation "
        f"{s.correlation:g}, then {percent(s.recovery, 0)} of the log fall back in {s.recovery_bars} bars"
        for s in settings.shocks
    )
    return (
        f"{settings.paths} paths of each kind, {settings.bars} bars (shocks: their own length), drawn in blocks of "
        f"{settings.block_bars} bars on average from the returns of {start} to {end}, each after "
        f"{settings.history_bars} real bars of warm-up.",
        *([f"{shocks}."] if shocks else []),
        f"Everyone pays {config.env.costs.proportional_bps:g} bp of traded value. Features are rebuilt on each path and scaled "
        "as in training. A scenario is a question, not a forecast: it has no probability.",
        *([_SERIES_NOTE] if config.features.context is not None and config.features.context.series else []),
    )
