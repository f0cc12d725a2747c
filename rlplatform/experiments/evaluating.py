"""Judging again: a run's policy on other days, prices or assets, and simple policies alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs import make
from envs.errors import ConfigError
from envs.tape import MarketTape
from envs.terms import CostConfig, FinancingConfig
from rlplatform.data import BundledConfig, FolderConfig, SyntheticConfig, load_prices
from rlplatform.data.request import clean_period
from rlplatform.evaluation.baselines import judge_baselines
from rlplatform.evaluation.report import write_report
from rlplatform.evaluation.scoretable import ScoreTable
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.config import DataConfig, ExperimentConfig
from rlplatform.experiments.judging import OUT_OF_SAMPLE, judge_policy, named_regimes, sample_of, with_earlier
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.models.ensemble import Ensemble, load_policy
from rlplatform.models.heads import head_for
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.policy import Policy
from rlplatform.models.transfer import for_assets


def evaluate_run(
    run: RunDirectory,
    prices: Path | None = None,
    start: Any = None,
    end: Any = None,
    report: Path | None = None,
    symbols: Sequence[str] = (),
) -> Verdict:
    """Judge a run's policy again: on its own test period, or on other prices, days or assets.

    Args:
        prices: folder with the symbols; the run's own source if not given.
        start, end: the run's test period if neither is given; one alone reaches to the end of the prices. With other
            prices their whole span.
        report: directory to write a report into.
        symbols: other assets, more or fewer, that a GNN's policy takes on; the run's own if not given. A fitted graph is fitted
            anew on their rows before the first decision.

    Raises:
        ConfigError: the run has no policy yet, or one that knows its own assets only.
        MarketDataError: the prices lack a symbol, or no such days.
    """
    scaler, config, known = run.scaler(), run.config(), run.manifest()["data"]["symbols"]
    start, end = clean_period("period", start, end)
    if prices is not None:
        config = dataclasses.replace(config, data=_folder_like(config.data, prices, symbols or known))
    elif symbols:
        config = dataclasses.replace(config, data=_with_symbols(config.data, symbols))
    market = prepare_market(config, scaler)
    if start is None and end is None and prices is None:
        start, end = config.split.test
    start, end = _span(market.tape, start, end)
    policy, sample = load_policy(run.policy), sample_of(config.split, start, end)
    if symbols and tuple(symbols) != tuple(known):
        policy = _carried(policy, config, market.tape, start)
    verdict = judge_policy(config, market.tape, policy, start, end, run.metrics(), sample)
    if report is not None:
        follows = prices is None and not symbols and sample == OUT_OF_SAMPLE and str(start) > str(config.split.train[0])
        write_report(report, with_earlier(config, market.tape, policy, verdict) if follows else verdict)
    return verdict


def _with_symbols(data: DataConfig, symbols: Sequence[str]) -> DataConfig:
    if isinstance(data, SyntheticConfig):
        raise ConfigError("--symbols: a synthetic market has its own assets. Give other prices with --prices DIR.")
    return dataclasses.replace(data, symbols=tuple(symbols))


def _carried(policy: Policy | Ensemble, config: ExperimentConfig, tape: MarketTape, start: str) -> Policy:
    """The policy for the assets of this tape; only rows up to `start` tell it who is whose neighbour."""
    if isinstance(policy, Ensemble):
        raise ConfigError("--symbols: an ensemble knows its members' assets only. Judge its members one by one.")
    env, first = make(config.env, tape), tape.row_range(start)[0]
    layout = ObservationLayout(tape.symbols, env.task.observation_names)
    return for_assets(policy, layout, head_for(env.action_space), tape.gross[1 : first + 1] - 1)


def _folder_like(data: DataConfig, path: Path, symbols: Sequence[str]) -> FolderConfig:
    """The folder, read with the calendar and alignment of the run's own source."""
    same = {name: getattr(data, name) for name in ("calendar", "align") if hasattr(data, name)}
    # Bundled prices are those of New York sessions; a synthetic market has none.
    calendar = "XNYS" if isinstance(data, BundledConfig) else None
    return FolderConfig(**{"path": str(path), "symbols": tuple(symbols), "calendar": calendar} | same)


def baselines_table(data: DataConfig, start: Any = None, end: Any = None, costs: CostConfig | None = None) -> ScoreTable:
    """Every baseline on a source of prices, no learning. With three assets the sixteen regimes too."""
    start, end = clean_period("period", start, end)
    prices = load_prices(data)
    tape = MarketTape(dates=prices.dates, symbols=prices.symbols, gross=prices.gross())
    regimes = named_regimes(tape.symbols) if tape.num_assets == 3 else None
    tracks = judge_baselines(tape, *_span(tape, start, end), costs or CostConfig(), FinancingConfig(), regimes=regimes)
    return ScoreTable.of(tracks)


def _span(tape: MarketTape, start: Any, end: Any) -> tuple[str, str]:
    """First and last day, the tape's where not given."""
    first, last = (str(date)[:10] for date in (tape.dates[0], tape.dates[-1]))
    return str(start or first), str(end or last)
