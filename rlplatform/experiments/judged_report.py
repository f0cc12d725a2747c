"""The report of a judged policy: the verdict, the path in windows, and what is left of it as trading gets dearer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envs.errors import PlatformError
from rlplatform.evaluation.report import write_report
from rlplatform.evaluation.verdict import Verdict
from rlplatform.evaluation.windows import hold_out, market_regimes
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import judge_policy, with_earlier
from rlplatform.experiments.market import Market
from rlplatform.experiments.reporting import benchmark_of, overfitting_of, realism
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.sweep_directory import SweepDirectory
from rlplatform.models.policy import Policy


def judge_and_report(config: ExperimentConfig, market: Market, policy: Policy, run: RunDirectory) -> Verdict:
    """Judge a run's policy on its test period and write report/."""
    verdict = judge_policy(config, market.tape, policy, *config.split.test, learning_curve=run.metrics())
    write_report(run.report, with_earlier(config, market.tape, policy, verdict), report_details(config, market, verdict))
    return verdict


def report_details(config: ExperimentConfig, market: Market, verdict: Verdict) -> dict[str, Any]:
    """What report.json says beyond the verdict: "hold_out" and "cost_realism" against the gate's benchmark.

    What the prices or the period do not allow is null, with a line in "left_out" that says why.
    """
    track, against, left_out = verdict.policy, benchmark_of(config, verdict), []

    def asked(name: str, ask: Callable[[], Any]) -> dict[str, Any] | None:
        try:
            return ask().to_dict()
        except PlatformError as error:
            left_out.append(f"{name}: {error}")
            return None

    return {
        "hold_out": asked("windows", lambda: hold_out(track, against, regimes=market_regimes(market.tape, track.dates))),
        "cost_realism": asked("cost realism", lambda: realism(config, market, track, against)),
        "left_out": left_out,
    }


def guards_in_manifest(verdict: Verdict) -> dict[str, dict[str, float]]:
    """What the guards did on the test period, beside "test"; nothing where the account has none."""
    return {"guards": verdict.policy.guard_summary} if verdict.policy.guards else {}


def sweep_overfitting(sweep: SweepDirectory, bars_per_year: int) -> dict[str, Any]:
    """For a sweep's manifest: the probability that choosing its winner overfitted; where there is none, why."""
    try:
        found = overfitting_of(sweep.winner, bars_per_year)
    except PlatformError as error:
        return {"probability": None, "left_out": str(error)}
    return {"probability": None} if found is None else found.to_dict()
