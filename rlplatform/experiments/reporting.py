"""Reporting: all that can be found out about a run, judged anew, on one HTML page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from envs.errors import PlatformError
from rlplatform.evaluation.cost_realism import CostRealism, CostScenario, cost_realism, standard_scenarios
from rlplatform.evaluation.deflated import judge_sharpe
from rlplatform.evaluation.drawdowns import downside
from rlplatform.evaluation.gate import find_benchmark
from rlplatform.evaluation.html_report import Findings, GuardsFindings, write_html_report
from rlplatform.evaluation.market_detail import MarketDetail
from rlplatform.evaluation.superiority import beaten_baselines
from rlplatform.evaluation.track import Track
from rlplatform.evaluation.verdict import Verdict
from rlplatform.evaluation.windows import hold_out, market_regimes
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.guards_ab import compare
from rlplatform.experiments.judging import judge_policy, with_earlier
from rlplatform.experiments.loading import to_yaml
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.registry import trials_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.secrets import redacted
from rlplatform.models.policy import Policy

T = TypeVar("T")


def report_run(path: Path, on_phase: Callable[[str], None] = lambda text: None) -> Path:
    """Judge a run's policy again on its test period and write report/report.html into the run.

    Args:
        on_phase: is told what is going on.

    Returns:
        Path of the page.

    Raises:
        ConfigError: no run there, or none with a policy yet.
    """
    run = RunDirectory.open(path)
    return write_html_report(run.report, collect(run, on_phase))


def collect(run: RunDirectory, on_phase: Callable[[str], None] = lambda text: None) -> Findings:
    """Everything the page shows. What the run or its prices do not allow is left out, with a line that says why."""
    config, scaler = run.config(), run.scaler()
    on_phase("judging the policy and its baselines")
    market, policy = prepare_market(config, scaler), Policy.load(run.policy)
    verdict = judge_policy(config, market.tape, policy, *config.split.test, learning_curve=run.metrics())
    track, left_out = verdict.policy, []
    against = benchmark_of(config, verdict)

    def found(name: str, ask: Callable[[], T]) -> T | None:
        on_phase(name)
        try:
            return ask()
        except PlatformError as error:
            left_out.append(f"{name}: {error}")
            return None

    sound = [baseline for baseline in verdict.baselines if not baseline.ruined]
    years = verdict.bars_per_year
    regimes = found("market regimes", lambda: market_regimes(market.tape, track.dates))
    return Findings(
        run=run.name,
        benchmark=against.name,
        hold_out=found("hold-out windows", lambda: hold_out(track, against, regimes=regimes)),
        costs=found("cost realism", lambda: realism(config, market, track, against)),
        downside=found("drawdowns", lambda: downside(track)),
        evidence=found("deflated Sharpe ratio", lambda: judge_sharpe(track.returns, trials_of(run.path, years), years)),
        superiority=found("all baselines at once", lambda: beaten_baselines(track, sound, config.evaluation.bootstrap)),
        regimes=regimes,
        guards=found("guards", lambda: guards_findings(config, market, policy)),
        off_policy=found("off-policy estimates", lambda: off_policy(run)),
        manifest=redacted(run.manifest()),
        config=to_yaml(redacted(config)),
        verdict=found("paths before the test", lambda: with_earlier(config, market.tape, policy, verdict)) or verdict,
        left_out=tuple(left_out),
    )


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
    rows = tuple({"part": row["part"], "windows": row["windows"]} | _percentages(row) for row in comparison.rows())
    return GuardsFindings(lines=tuple(comparison.lines()), rows=rows)


def off_policy(run: RunDirectory) -> dict[str, Any] | None:
    """What `rlplatform offline evaluate` wrote into the run, if it has been asked."""
    path = run.report / "off_policy.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _percentages(row: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:+.2%}".replace("-", "−") for name, value in row.items() if isinstance(value, float)}
