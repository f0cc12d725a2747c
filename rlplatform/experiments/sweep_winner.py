"""The winner of a sweep, and the one time that the test period is opened."""

from __future__ import annotations

import shutil
from typing import Any

from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judged_report import guards_in_manifest, judge_and_report
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.provenance import describe_environment, timestamp
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.sweep_directory import SweepDirectory, TrialDirectory
from rlplatform.experiments.training import judged_checkpoint
from rlplatform.files import replaced_directory
from rlplatform.models.policy import Policy


def judge_winner(directory: SweepDirectory, trial: TrialDirectory, sweep_figures: dict[str, Any]) -> Verdict:
    """Make `winner/` out of a trial: its run, judged on the test period, with a report.

    Args:
        sweep_figures: goes into its manifest, so that whoever reads the test figures knows how many trials they were
            chosen from.
    """
    config, standing = directory.config().config_for(trial.settings, trial.record()["seed"]), Standing.of(trial.run)
    market = prepare_market(config)
    judged = judged_checkpoint(config, standing)
    with replaced_directory(directory.winner) as temporary:
        shutil.copytree(
            trial.path, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("trial.json", "validation.json")
        )
        run = RunDirectory(temporary)
        run.write_config(config)
        policy = Policy.load(run.checkpoint(judged) / "policy")
        run.write_policy(policy, market.scaler)
        verdict = judge_and_report(config, market, policy, run)
        run.write_manifest(_manifest(config, market, standing, judged, verdict) | {"sweep": sweep_figures})
    return verdict


def _manifest(config: ExperimentConfig, market: Market, standing: Standing, judged: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "run": config.name,
        "status": "finished",
        "finished": timestamp(),
        "config_sha256": config.sha256,
        "data": market.described(),
        "tape_sha256": market.tape.sha256,
        "seeds": [config.seed],
        **describe_environment(),
        "iterations": standing.iteration,
        "env_steps": standing.env_steps,
        "gradient_steps": standing.gradient_steps,
        "train_seconds": round(standing.train_seconds, 3),
        "best_iteration": standing.best_iteration,
        "best_validation": standing.best_score,
        "judged": judged,
        "test": verdict.metrics[verdict.policy.name].to_dict(),
        **guards_in_manifest(verdict),
        "verdict": verdict.sentence,
    }
