"""Training: one loop around RLlib's Algorithm that looks, remembers and can be taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.rllib.algorithms.algorithm import Algorithm

from envs.tape import MarketTape
from rlplatform.evaluation.metrics import summarize
from rlplatform.experiments.checkpoints import check_trusted, new_checkpoint
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.interruption import StopRequest, TrainingInterrupted
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.ray_session import ray_session
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.trainers import ProcessLostError, Result, Row, Trainer, make_trainer
from rlplatform.files import write_json
from rlplatform.models.policy import Policy

LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
PATIENCE_S = 300.0  # without any runner; a new one takes seconds, a new node of a cluster minutes


def train(
    config: ExperimentConfig,
    tape: MarketTape,
    run: RunDirectory,
    on_row: Callable[[Row], None] = lambda row: None,
    resume: bool = False,
) -> Standing:
    """Train to the length that `config.training` says, writing metrics and checkpoints into `run`.

    With `resume` it goes on from checkpoints/last: weights, Adam's moments, schedules, the adaptive KL coefficient, the
    observation statistics, iteration and env step counters and the best validation figure are those of the checkpoint, and
    later rows of metrics.jsonl are dropped. What RLlib does not restore: random numbers (a seed derived from the
    iteration takes their place, so that a resumed run neither repeats its first draws nor equals the run that was not
    interrupted), the episodes under way (every account starts a new one), and the window over which episode returns are
    averaged (it fills again). The iterations up to the checkpoint are bit for bit those of the run that was not interrupted,
    the number of env steps at the end is the same, the figures after the checkpoint are other draws.

    Args:
        tape: of all rows; training environments get it cut at the end of `split.train`.
        on_row: is told each iteration's metrics.

    Raises:
        ConfigError: nothing to resume, or its checkpoint is a link to another run's.
        CheckpointError: the disk is full; the checkpoint of before is whole.
        TrainingDivergedError: a loss is not finite; the checkpoint of before stays.
        ProcessLostError: a learner died, or every runner and none came back. Of several runners one may die: the others go
            on, and a new one takes its place.
        TrainingInterrupted: Ctrl-C or SIGTERM; checkpoints/last holds the iteration that was finished.
    """
    standing = Standing.of(run) if resume else Standing()
    with ray_session(config.training.num_processes + 2):
        trainer = make_trainer(config, tape, standing.iteration)
        try:
            if resume:
                trainer.algorithm.restore_from_path(str(check_trusted(run.checkpoint("last") / "rllib", run.path)))
                run.keep_metrics_until(standing.iteration)
            with StopRequest() as stop:
                _loop(config, tape, run, trainer, standing, stop, on_row)
        except LOST as error:
            raise ProcessLostError(_lost(run, standing, f"a process died ({type(error).__name__})")) from error
        finally:
            trainer.algorithm.stop()
    return standing


def judged_checkpoint(config: ExperimentConfig, standing: Standing) -> str:
    """Which weights are judged: "best" where asked for and known, else "last"."""
    return "best" if config.evaluation.policy == "best" and standing.best_iteration is not None else "last"


def _loop(
    config: ExperimentConfig,
    tape: MarketTape,
    run: RunDirectory,
    trainer: Trainer,
    standing: Standing,
    stop: StopRequest,
    on_row: Callable[[Row], None],
) -> None:
    row = (run.metrics() or [{}])[-1]
    while getattr(standing, trainer.unit) < config.training.length:
        started = time.perf_counter()
        result = _next_result(trainer, run, standing)
        row = trainer.row(result, standing, time.perf_counter() - started, row)
        finished, stopping = getattr(standing, trainer.unit) >= config.training.length, stop.requested
        if finished or standing.iteration % config.evaluation.interval_iterations == 0:
            _look(config, tape, run, trainer, standing, row)
        elif stopping:
            save_checkpoint(run.checkpoint("last"), trainer.algorithm, trainer.policy(), standing)
        run.append_metrics(row)
        on_row(row)
        if stopping and not finished:
            raise TrainingInterrupted(f"stopped after iteration {standing.iteration}")


def _next_result(trainer: Trainer, run: RunDirectory, standing: Standing) -> Result:
    """Of one iteration. Where every runner died nothing was sampled: it is tried again until one is back."""
    began = time.monotonic()
    while not trainer.has_moved(result := trainer.algorithm.train(), standing):
        if time.monotonic() - began > PATIENCE_S:
            raise ProcessLostError(_lost(run, standing, f"no env runner has answered for {PATIENCE_S:.0f} s"))
    return result


def _lost(run: RunDirectory, standing: Standing, what: str) -> str:
    """The error's text: what happened, and how to go on."""
    if (run.checkpoint("last") / "standing.json").is_file():
        then = f"Go on from iteration {Standing.of(run).iteration}: rlplatform train --resume {run.path}"
    else:
        then = f"There is no checkpoint yet. Start anew: rlplatform train {run.path / 'config.yaml'}"
    return f"{what} after iteration {standing.iteration}; memory and the machine's logs may say why. {then}"


def _look(
    config: ExperimentConfig, tape: MarketTape, run: RunDirectory, trainer: Trainer, standing: Standing, row: Row
) -> None:
    """Validate, remember the best, checkpoint."""
    policy = trainer.policy()
    better = False
    if config.split.validation is not None:
        metrics = summarize(backtest(config, tape, policy, *config.split.validation), config.env.financing.bars_per_year)
        score = getattr(metrics, config.evaluation.metric)
        row[f"validation_{config.evaluation.metric}"] = score if math.isfinite(score) else None
        row["validation_total_return"] = metrics.total_return
        row["validation_turnover_per_day"] = metrics.turnover_per_day
        better = math.isfinite(score) and (standing.best_score is None or score > standing.best_score)
    if better:
        standing.best_score, standing.best_iteration = score, standing.iteration
    for which in ("best", "last") if better else ("last",):
        save_checkpoint(run.checkpoint(which), trainer.algorithm, policy, standing)


def save_checkpoint(directory: Path, algorithm: Algorithm, policy: Policy, standing: Standing) -> None:
    """RLlib's state, the policy on its own, and the standing; all of it or nothing. The one before is kept.

    Raises:
        CheckpointError: it cannot be written.
    """
    with new_checkpoint(directory) as temporary:
        algorithm.save_to_path(str(temporary / "rllib"))
        policy.save(temporary / "policy")
        write_json(temporary / "standing.json", vars(standing))
