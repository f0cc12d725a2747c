"""Reporting: all that can be found out about a run or a walk-forward, judged anew, on one HTML page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from envs.errors import PlatformError
from rlplatform.evaluation.attribution import attribute
from rlplatform.evaluation.cost_realism import CostRealism, CostScenario, cost_realism, standard_scenarios
from rlplatform.evaluation.deflated import judge_sharpe
from rlplatform.evaluation.drawdowns import downside
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.html_report import Findings, GuardsFindings, SeedsFindings, WalkFindings, write_html_report
from rlplatform.evaluation.market_detail import MarketDetail
from rlplatform.evaluation.overfitting import Overfitting, backtest_overfitting
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.evaluation.shapley import ExplainConfig
from rlplatform.evaluation.stress import StressConfig
from rlplatform.evaluation.superiority import beaten_baselines
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict
from rlplatform.evaluation.windows import hold_out, market_regimes
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.explaining import explain_decisions
from rlplatform.experiments.guards_ab import compare
from rlplatform.experiments.judging import judge_policy, with_earlier
from rlplatform.experiments.loading import to_yaml
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.registry import setting_of, trials_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.secrets import redacted
from rlplatform.experiments.stressing import stress
from rlplatform.experiments.walkforward_directory import WalkForwardDirectory
from rlplatform.experiments.walkforward_path import SPREAD, WalkForwardResult
from rlplatform.experiments.walkforward_rejudging import rejudged
from rlplatform.models.ensemble import load_policy
from rlplatform.models.policy import Policy

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much work the page may take: few paths of each scenario, for `rlplatform stress` has more."""

    stress: StressConfig = field(default_factory=lambda: StressConfig(paths=5))
    explain: ExplainConfig = field(default_factory=ExplainConfig)


def report_run(path: Path, on_phase: Callable[[str], None] = lambda text: None, settings: ReportConfig | None = None) -> Path:
    """Judge a run or a walk-forward again on its test period and write report/report.html into it.

    Args:
        on_phase: is told what is going on.

    Returns:
        Path of the page.

    Raises:
        ConfigError: no run there, or none with a policy yet, or a walk-forward with folds that are not trained.
    """
    if (Path(path) / WalkForwardDirectory.CONTENT).is_file():
        walk = WalkForwardDirectory.open(path)
        return write_html_report(walk.report, collect_walk(walk, on_phase))
    run = RunDirectory.open(path)
    return write_html_report(run.report, collect(run, on_phase, settings))


class _Search:
    """Asks one thing after the other; what the run or its prices do not allow is left out, with a line that says why."""

    def __init__(self, on_phase: Callable[[str], None]) -> None:
        self.on_phase, self.left_out = on_phase, []

    def found(self, name: str, ask: Callable[[], T]) -> T | None:
        self.on_phase(name)
        try:
            return ask()
        except PlatformError as error:
            self.left_out.append(f"{name}: {error}")
            return None


def collect(
    run: RunDirectory, on_phase: Callable[[str], None] = lambda text: None, settings: ReportConfig | None = None
) -> Findings:
    """Everything the page shows of a run."""
    settings, config, scaler = settings or ReportConfig(), run.config(), run.scaler()
    on_phase("judging the policy and its baselines")
    market, policy = prepare_market(config, scaler), load_policy(run.policy)
    verdict = judge_policy(config, market.tape, policy, *config.split.test, learning_curve=run.metrics())
    search, against, years = _Search(on_phase), benchmark_of(config, verdict), verdict.bars_per_year
    found = search.found
    parts = _path_findings(search, config, market, verdict, against) | {
        "evidence": found(
            "deflated Sharpe ratio", lambda: judge_sharpe(verdict.policy.returns, trials_of(run.path, years), years)
        ),
        "overfitting": found("probability of overfitting", lambda: overfitting_of(run.path, years)),
        "seeds": found("other seeds", lambda: seeds_of(run)),
        "decisions": found("what moved its weights", lambda: explain_decisions(config, market.tape, policy, settings.explain)),
        "stress": found("stress", lambda: stress(config, market, policy, settings.stress, against.name)),
        "guards": found("guards", lambda: guards_findings(config, market, policy)),
        "off_policy": found("off-policy estimates", lambda: off_policy(run)),
        "verdict": found("paths before the test", lambda: with_earlier(config, market.tape, policy, verdict)) or verdict,
    }
    return Findings(
        run=run.name,
        benchmark=against.name,
        manifest=redacted(run.manifest()),
        config=to_yaml(redacted(config)),
        left_out=tuple(search.left_out),
        **parts,
    )


def collect_walk(walk: WalkForwardDirectory, on_phase: Callable[[str], None] = lambda text: None) -> Findings:
    """Everything the page shows of a walk-forward: its judged path, the folds, the seeds."""
    on_phase("joining the folds and judging the path")
    result, market = rejudged(walk)
    config, verdict = walk.walk().base, result.verdict
    search, against = _Search(on_phase), benchmark_of(config, result.verdict)
    search.left_out.append("what moved its weights, stress: each fold has a policy of its own; ask for one of folds/.")
    return Findings(
        run=walk.name,
        verdict=verdict,
        benchmark=against.name,
        evidence=result.evidence,
        walk=_folds_of_walk(result),
        seeds=_seeds_of_walk(result) if len(result.tracks) > 1 else None,
        manifest=redacted(walk.manifest()),
        config=to_yaml(redacted(walk.walk().content)),
        **_path_findings(search, config, market, verdict, against),
        left_out=tuple(search.left_out),
    )


def _path_findings(
    search: _Search, config: ExperimentConfig, market: Market, verdict: Verdict, against: Track
) -> dict[str, Any]:
    """What is found out from the judged path alone."""
    found, track = search.found, verdict.policy
    sound = [baseline for baseline in verdict.baselines if not baseline.ruined]
    regimes = found("market regimes", lambda: market_regimes(market.tape, track.dates))
    terms = (config.env.costs, config.env.financing)
    return {
        "regimes": regimes,
        "hold_out": found("hold-out windows", lambda: hold_out(track, against, regimes=regimes)),
        "costs": found("cost realism", lambda: realism(config, market, track, against)),
        "downside": found("drawdowns", lambda: downside(track)),
        "superiority": found("all baselines at once", lambda: beaten_baselines(track, sound, config.evaluation.bootstrap)),
        "result": found("where the result came from", lambda: attribute(track, market.tape, *terms)),
    }


def overfitting_of(run: Path, bars_per_year: int) -> Overfitting | None:
    """Of the sweep that the run was chosen from, over its trials' daily returns; None for a run by itself."""
    for sweep in (run.parent, run.parent.parent):
        returns = sweep / "trial_returns.parquet"
        if (sweep / "sweep.yaml").is_file() and returns.is_file():
            return backtest_overfitting(pd.read_parquet(returns).to_numpy(), bars_per_year=bars_per_year)
    return None


def seeds_of(run: RunDirectory) -> SeedsFindings | None:
    """Judged runs of the same setting beside this one, itself included; None where it is alone."""
    setting, stem = setting_of(run.path), run.config().name
    beside = [path.parent for path in sorted(run.path.parent.glob(f"{stem}-*/manifest.json"))]
    same = [RunDirectory(path) for path in beside if (path / "config.yaml").is_file() and setting_of(path) == setting]
    tests = {other.name: other.manifest().get("test") for other in same}
    judged = {name: test for name, test in tests.items() if test}
    if len(judged) < 2 or run.name not in judged:
        return None
    spread = {figure: SeedSpread.of(test.get(figure) for test in judged.values()) for figure in SPREAD}
    own = {figure: value for figure, value in judged[run.name].items() if value is not None}
    return SeedsFindings(names=tuple(judged), spread=spread, own=own)


def _folds_of_walk(result: WalkForwardResult) -> WalkFindings:
    rows = {"tracks": result.tracks, "folds": result.folds_of_tracks}
    return WalkFindings(seed=result.seed, sentence=result.sentence, trained=result.trained, **rows)


def _seeds_of_walk(result: WalkForwardResult) -> SeedsFindings:
    names, own = tuple(f"seed {seed}" for seed in result.tracks), result.metrics[result.seed]
    return SeedsFindings(names=names, spread=result.spread, own={name: getattr(own, name) for name in SPREAD})


def benchmark_of(config: ExperimentConfig, verdict: Verdict) -> Track:
    """The baseline that the gate compares with."""
    tracks = {track.name: track for track in verdict.baselines}
    return tracks[find_benchmark(list(tracks), config.evaluation.gate.benchmark)]


def realism(config: ExperimentConfig, market: Market, track: Track, against: Track) -> CostRealism:
    """Cost realism with the run's own proportional cost, of which up to 1 bp is commission."""
    detail = MarketDetail.of(market.prices)
    return cost_realism(
        track, against, market.tape, detail, config.env.financing, scenarios_of(config.env.costs.proportional_bps)
    )


def scenarios_of(proportional_bps: float) -> list[CostScenario]:
    """The standard scenarios around a run's own cost [bp of traded value]."""
    commission = min(1.0, proportional_bps)
    return standard_scenarios(commission_bps=commission, half_spread_bps=proportional_bps - commission)


def guards_findings(config: ExperimentConfig, market: Market, policy: Policy) -> GuardsFindings | None:
    """The policy with and without its guards; None for a run that has none."""
    if config.env.guards is None:
        return None
    comparison = compare(config, market.tape, policy)
    return GuardsFindings(lines=tuple(comparison.lines()), rows=tuple(comparison.figure_rows()))


def off_policy(run: RunDirectory) -> dict[str, Any] | None:
    """What `rlplatform offline evaluate` wrote into the run, if it has been asked."""
    path = run.report / "off_policy.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
