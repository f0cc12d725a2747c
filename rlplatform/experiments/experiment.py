"""The experiments behind the commands: train and judge, judge again, judge baselines alone."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import finite_or_none
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.checkpoints import good_checkpoint, recover_checkpoint
from rlplatform.experiments.config import ExperimentConfig, load_config
from rlplatform.experiments.judged_report import guards_in_manifest, judge_and_report
from rlplatform.experiments.judging import check_judging
from rlplatform.experiments.logged_data import check_dataset_fits
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.pretraining import check_pretraining
from rlplatform.experiments.provenance import describe_environment, timestamp
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.storage import Place, stored_afterwards
from rlplatform.experiments.teachers import teachers
from rlplatform.experiments.tracking import Tracker
from rlplatform.experiments.trainers import Row, bound_model, training_env
from rlplatform.experiments.training import judged_checkpoint, train
from rlplatform.files import recover_directory
from rlplatform.models.policy import ENSEMBLE_DIRECTORY, Policy

log = logging.getLogger(__name__)
# What a run that goes on may change, with all of tracking; anything else would make it another run.
RESUMABLE = {"env_steps": "training.total_env_steps", "gradient_steps": "training.gradient_steps"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training that is ready to start: everything that can be checked beforehand has been."""

    config: ExperimentConfig
    market: Market
    run: RunDirectory
    resume: bool = False


def new_job(config: ExperimentConfig) -> Job:
    """Check prices and settings, then make the run directory; a mistake leaves none behind.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices.
    """
    return Job(config=config, market=checked_market(config), run=RunDirectory.create(config))


def checked_market(config: ExperimentConfig) -> Market:
    """The market of a training, after all that can be checked of it and of the settings.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices.
    """
    Place.of(config.results_dir)
    market = prepare_market(config)
    check_training(config, market)
    return market


def check_training(config: ExperimentConfig, market: Market) -> None:
    """Whether the settings suit each other and this market.

    Raises:
        ConfigError: they do not.
    """
    env = training_env(config, market.tape)
    config.training.check(bound_model(config, market.tape), env.task)
    if config.dataset is not None:
        check_dataset_fits(config, env)
    check_pretraining(config)
    check_judging(config, market.tape.symbols)


def resumed_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Take up a run at its last checkpoint.

    Args:
        overrides: "training.total_env_steps=…" (offline: gradient_steps) to train longer, "tracking.…=…" to be shown
            elsewhere; they go into the run's config.yaml.

    Raises:
        ConfigError: no run or no checkpoint there, another override, or prices or features have changed since it began.
    """
    run = RunDirectory.open(path)
    if (run.policy / ENSEMBLE_DIRECTORY).is_dir():
        raise ConfigError(
            f"{run.path.name} is an ensemble and has no training to go on with. Resume its members (manifest.json: ensemble) "
            "and make it again: rlplatform ensemble RUN_DIR RUN_DIR …"
        )
    for which in ("last", "best"):
        recover_checkpoint(run.checkpoint(which), log.warning)
    recover_directory(run.policy)
    standing, unit = Standing.of(run), run.config().step_unit
    longer = [override for override in overrides if not override.startswith("tracking.")]
    for key in (override.partition("=")[0] for override in longer):
        if key != RESUMABLE[unit]:
            raise ConfigError(
                f"--resume with {key}: a run goes on as it began; only {RESUMABLE[unit]} may change. "
                f"For another run: rlplatform train {run.path / 'config.yaml'} {key}=…"
            )
    config = load_config(run.path / "config.yaml", overrides)
    if longer and config.training.length <= getattr(standing, unit):
        raise ConfigError(
            f"{longer[-1]}: {run.path.name} has made {getattr(standing, unit)} {unit.replace('_', ' ')} already. Give more."
        )
    market = prepare_market(config)
    if run.manifest().get("tape_sha256", market.tape.sha256) != market.tape.sha256:
        raise ConfigError(
            f"{run.path.name}: prices or features are not those it began with (tape_sha256 in manifest.json). "
            f"Start it anew: rlplatform train {run.path / 'config.yaml'}"
        )
    run.write_config(config)
    return Job(config=config, market=market, run=run, resume=True)


def train_and_judge(
    job: Job,
    on_row: Callable[[Row], None] = lambda row: None,
    on_phase: Callable[[str], None] = lambda text: None,
    on_note: Callable[[str], None] = log.warning,
) -> Verdict:
    """The main job: train, judge out of sample, write all that DESIGN.md says a run leaves behind.

    Args:
        on_row: is told each iteration's metrics.
        on_phase: is told what is going on around the iterations.
        on_note: is told lines that should stay: where the run is shown, what of that failed, a damaged checkpoint.
    """
    storing = stored_afterwards(job.run.path, job.config.results_dir, on_note)
    with storing, Tracker(job.config.tracking, on_note) as tracker:
        tracker.start(job.config, job.run.path)

        def seen(row: Row) -> None:
            tracker.log(row)
            on_row(row)

        verdict = _train_and_judge(job, seen, on_phase, on_note)
        tracker.finish(verdict)
    return verdict


def _train_and_judge(
    job: Job, on_row: Callable[[Row], None], on_phase: Callable[[str], None], on_note: Callable[[str], None]
) -> Verdict:
    began, before = time.monotonic(), job.run.manifest()
    manifest = _manifest(job, before)

    def record(status: str, **figures: Any) -> None:
        seconds = before.get("wall_seconds", 0.0) + time.monotonic() - began
        job.run.write_manifest(manifest | {"status": status, "wall_seconds": round(seconds, 3)} | figures)

    record("running")
    try:
        on_phase("starting Ray" if job.config.needs_ray else "starting")
        standing = train(job.config, job.market.tape, job.run, on_row, job.resume)
        on_phase("judging the policy and its baselines")
        policy = Policy.load(good_checkpoint(job.run.checkpoint(judged_checkpoint(job.config, standing)), on_note) / "policy")
        job.run.write_policy(policy, job.market.scaler)
        verdict = judge_and_report(job.config, job.market, policy, job.run)
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))  # Ray turns SIGTERM into SystemExit while it starts
        with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
            record("interrupted" if stopped else "failed", error=f"{type(error).__name__}: {error}")
        raise
    record("finished", **_outcome(job.config, standing, policy, verdict))
    return verdict


def _manifest(job: Job, before: dict[str, Any]) -> dict[str, Any]:
    now = timestamp()
    manifest = {
        "run": job.config.name,
        "started": before.get("started", now),
        "config_sha256": job.config.sha256,
        "data": job.market.described(),
        "tape_sha256": job.market.tape.sha256,
        "seeds": [job.config.seed],
        **teachers(job.config),
        **describe_environment(),
    }
    if job.resume:
        standing = Standing.of(job.run)
        steps = {name: getattr(standing, name) for name in ("env_steps", "gradient_steps")}
        resumption = {"at": now, "iteration": standing.iteration, **steps}
        manifest["resumed"] = [*before.get("resumed", []), resumption]
    return manifest


def _outcome(config: ExperimentConfig, standing: Standing, policy: Policy, verdict: Verdict) -> dict[str, Any]:
    parameters = policy.num_parameters
    unit = config.step_unit
    done = getattr(standing, unit)
    return {
        "finished": timestamp(),
        "iterations": standing.iteration,
        unit: done,
        "train_seconds": round(standing.train_seconds, 3),
        f"{unit}_per_second": round(done / max(standing.train_seconds, 1e-9), 1),
        "parameters": parameters,
        "estimated_flops": 2 * parameters * config.training.passes(done),
        "best_iteration": standing.best_iteration,
        "best_validation": standing.best_score,
        "best_by": standing.best_by,
        "judged": judged_checkpoint(config, standing),
        "test": verdict.metrics[verdict.policy.name].to_dict(),
        **({} if verdict.share_of_optimum is None else {"share_of_optimum": finite_or_none(verdict.share_of_optimum)}),
        **guards_in_manifest(verdict),
        "verdict": verdict.sentence,
    }
