"""Comparing runs: their policies on the days that all of them held out, with the costs of the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.errors import ConfigError
from envs.tape import MarketTape
from rlplatform.evaluation.baselines import judge_baselines, standard_baselines
from rlplatform.evaluation.comparison import Comparison, Contender, compare_policies
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.track import Track
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.registry import setting_of, trials_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.models.ensemble import load_policy


@dataclass(frozen=True, kw_only=True)
class _Entrant:
    run: RunDirectory
    config: ExperimentConfig
    name: str


def compare_runs(paths: Sequence[Path], bootstrap: BootstrapConfig | None = None) -> Comparison:
    """Replay each run's policy on the common part of the test periods and compare.

    Everyone pays the costs and financing of the first run, whatever they were trained under.

    Raises:
        ConfigError: fewer than two runs, one twice, one without a policy, test periods without a common part, other bars a
            year, or other trading days.
    """
    entrants = _entrants(paths)
    first = entrants[0].config
    start, end = common_period({entrant.name: entrant.config.split.test for entrant in entrants})
    tracks, tape = [], None
    for entrant in entrants:
        market = prepare_market(entrant.config, entrant.run.scaler())
        tape = tape or market.tape
        same_terms = _with_terms_of(entrant.config, first)
        tracks.append(backtest(same_terms, market.tape, load_policy(entrant.run.policy), start, end, entrant.name))
    _check_dates(tracks)
    contenders = [
        Contender(track=track, trials=trials_of(entrant.run.path), setting=setting_of(entrant.run.path))
        for track, entrant in zip(tracks, entrants, strict=True)
    ]
    bars_per_year = first.env.financing.bars_per_year
    benchmark = _benchmark(first, tape, start, end)
    settings = bootstrap or first.evaluation.bootstrap
    return compare_policies(contenders, benchmark, settings, bars_per_year, _notes(entrants))


def common_period(periods: dict[str, tuple]) -> tuple[str, str]:
    """The days that lie in every period.

    Raises:
        ConfigError: there are none.
    """
    latest, earliest = max(periods, key=lambda name: periods[name][0]), min(periods, key=lambda name: periods[name][1])
    start, end = periods[latest][0], periods[earliest][1]
    if start >= end:
        raise ConfigError(
            f"{latest} is tested from {start} and {earliest} until {end}: no day in common. Compare runs whose test periods "
            "overlap, or judge them again on the same days with rlplatform evaluate --start --end."
        )
    return str(start), str(end)


def _entrants(paths: Sequence[Path]) -> list[_Entrant]:
    runs = [RunDirectory.open(path) for path in paths]
    if len(runs) < 2:
        raise ConfigError(f"{len(runs)} run given; a comparison needs at least two directories such as results/<run>.")
    twice = {run.path for run in runs if [other.path for other in runs].count(run.path) > 1}
    if twice:
        raise ConfigError(f"{sorted(twice)[0]} is given twice. Give each run once.")
    entrants = []
    for run in runs:
        run.scaler()  # says what to do where there is no policy yet
        entrants.append(_Entrant(run=run, config=run.config(), name=_name(run, runs)))
    years = {entrant.config.env.financing.bars_per_year for entrant in entrants}
    if len(years) > 1:
        raise ConfigError(
            f"env.financing.bars_per_year differs ({', '.join(map(str, sorted(years)))}); compare bars of one kind."
        )
    return entrants


def _name(run: RunDirectory, runs: Sequence[RunDirectory]) -> str:
    """The directory's name, after its parent's where that is not enough, as of two sweeps' winners."""
    alone = [other.name for other in runs].count(run.name) == 1 and run.name != "winner"
    return run.name if alone else f"{run.path.parent.name}/{run.name}"


def _with_terms_of(config: ExperimentConfig, other: ExperimentConfig) -> ExperimentConfig:
    env = dataclasses.replace(config.env, costs=other.env.costs, financing=other.env.financing)
    return dataclasses.replace(config, env=env)


def _check_dates(tracks: Sequence[Track]) -> None:
    for track in tracks[1:]:
        if not track.ruined and not tracks[0].ruined and not np.array_equal(track.dates, tracks[0].dates):
            raise ConfigError(
                f"{tracks[0].name} trades {len(tracks[0])} bars and {track.name} {len(track)} from "
                f"{track.period[0]} to {track.period[1]}: not the same trading days. Compare runs on prices of one calendar."
            )


def _benchmark(config: ExperimentConfig, tape: MarketTape, start: str, end: str) -> Track:
    rules, env = config.evaluation.baselines, config.env
    name = find_benchmark(list(standard_baselines(tape.symbols, rules)), config.evaluation.gate.benchmark)
    return judge_baselines(tape, start, end, env.costs, env.financing, config=rules, only=[name], liquidity=env.liquidity)[0]


def _notes(entrants: Sequence[_Entrant]) -> list[str]:
    first = entrants[0]
    costs = first.config.env.costs
    impact = f" and square-root impact {costs.impact:g}" if costs.impact else ""
    notes = [f"Everyone pays what {first.name} pays: {costs.proportional_bps:g} bp of traded value{impact}."]
    for entrant in entrants[1:]:
        if (entrant.config.env.costs, entrant.config.env.financing) != (costs, first.config.env.financing):
            notes.append(f"{entrant.name} was trained under other costs or financing.")
        if entrant.config.env.liquidity != first.config.env.liquidity:
            notes.append(f"{entrant.name} keeps its own env.constraints.liquidity, which is not that of {first.name}.")
        if entrant.config.data != first.config.data:
            notes.append(f"{entrant.name} trades other prices than {first.name}.")
    return notes
