"""Training: one loop around RLlib's Algorithm that looks, remembers and can be taken up again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.rllib.algorithms.algorithm import Algorithm

from envs.tape import MarketTape
from rlplatform.evaluation.metrics import Metrics, summarize
from rlplatform.evaluation.track import Track
from rlplatform.experiments.checkpoints import check_trusted, new_checkpoint
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.interruption import StopRequest, TrainingInterrupted
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.ray_session import ray_session
from rlplatform.experiments.resumption import load_sampling, restore_sampling, save_sampling
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.standing import VALIDATION, Standing
from rlplatform.experiments.trainers import ProcessLostError, Result, Row, Trainer, make_trainer, number
from rlplatform.files import write_json
from rlplatform.models.policy import Policy

log = logging.getLogger(__name__)
LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
PATIENCE_S = 300.0  # without any runner; a new one takes seconds, a new node of a cluster minutes


def train(
    config: ExperimentConfig,
    tape: MarketTape,
    run: RunDirectory,
    on_row: Callable[[Row], None] = lambda row: None,
    resume: bool = False,
    on_look: Callable[[Track, Metrics], None] = lambda track, metrics: None,
) -> Standing:
    """Train to the length that `config.training` says, writing metrics and checkpoints into `run`.

    With `resume` it goes on from checkpoints/last, bit for bit as if it had not been interrupted: RLlib restores weights,
    optimiser, schedules, statistics and counters, `resumption` the random numbers, the accounts under way, the recurrent
    states and the window of episodes. Rows of metrics.jsonl after the checkpoint are dropped and made again. This holds on
    the same machine with one runner, local or remote; a runner that died begins anew. Not with `training.fast: false`, nor
    from a checkpoint of an earlier version: there every account starts a new episode with draws from a seed derived from the
    iteration, and only the number of env steps at the end is the same.

    Args:
        tape: of all rows; training environments get it cut at the end of `split.train`.
        on_row: is told each iteration's metrics.
        on_look: is told, after the checkpoint and the row, how the policy did on the validation period.

    Raises:
        ConfigError: nothing to resume, or its checkpoint is a link to another run's.
        CheckpointError: the disk is full; the checkpoint of before is whole.
        TrainingDivergedError: a loss is not finite; the checkpoint of before stays.
        ProcessLostError: a learner died, or every runner and none came back. Of several runners one may die: the others go
            on, and a new one takes its place.
        TrainingInterrupted: Ctrl-C or SIGTERM; checkpoints/last holds the iteration that was finished.
    """
    standing = Standing.of(run) if resume else Standing()
    with ray_session(config.training.num_processes + 2) if config.needs_ray else nullcontext():
        sampling = load_sampling(run.checkpoint("last"), config) if resume else None
        trainer = make_trainer(config, tape, standing.iteration, draws_restored=sampling is not None)
        try:
            if resume:
                trainer.algorithm.restore_from_path(str(check_trusted(run.checkpoint("last") / trainer.state_name, run.path)))
            run.keep_metrics_until(standing.iteration)  # a sweep's trial that died before its first checkpoint begins anew
            if sampling is not None:
                restore_sampling(trainer.algorithm, sampling)
            with StopRequest() as stop:
                _loop(config, tape, run, trainer, standing, stop, on_row, on_look)
        except LOST as error:
            raise ProcessLostError(_lost(run, standing, f"a process died ({type(error).__name__})")) from error
        finally:
            trainer.algorithm.stop()
    return standing


def judged_checkpoint(config: ExperimentConfig, standing: Standing) -> str:
    """Which weights are judged: "best" where asked for and known, else "last"."""
    return "best" if config.evaluation.policy == "best" and standing.best_iteration is not None else "last"


def ends_early(config: ExperimentConfig, standing: Standing) -> bool:
    """Whether `evaluation.patience` is over: so many looks showed no better checkpoint."""
    patience = config.evaluation.patience
    return patience is not None and standing.looks_since_best >= patience


def _loop(
    config: ExperimentConfig,
    tape: MarketTape,
    run: RunDirectory,
    trainer: Trainer,
    standing: Standing,
    stop: StopRequest,
    on_row: Callable[[Row], None],
    on_look: Callable[[Track, Metrics], None],
) -> None:
    row = (run.metrics() or [{}])[-1]
    while getattr(standing, trainer.unit) < config.training.length and not ends_early(config, standing):
        started = time.perf_counter()
        result = _next_result(trainer, run, standing)
        row = trainer.row(result, standing, time.perf_counter() - started, row)
        finished, stopping = getattr(standing, trainer.unit) >= config.training.length, stop.requested
        due = finished or standing.iteration % config.evaluation.interval_iterations == 0
        policy = trainer.policy() if due else _policy_aside(trainer) if stopping else None
        look = _look(config, tape, policy, trainer, standing, row) if due else None
        places = ["best"] if due and standing.best_iteration == standing.iteration else []
        places += ["last"] if due or stopping else []
        run.append_metrics(row)  # before the checkpoint: a resumed run drops a row too many, but cannot make a missing one
        for which in places:
            save_checkpoint(run.checkpoint(which), config, trainer, policy, standing)
        on_row(row)
        if look is not None:
            on_look(*look)
        if stopping and not finished and not ends_early(config, standing):
            raise TrainingInterrupted(f"stopped after iteration {standing.iteration}")
    if ends_early(config, standing):
        log.warning(
            "no better checkpoint in %d looks: ended after iteration %d; the best is that of iteration %d",
            standing.looks_since_best, standing.iteration, standing.best_iteration,
        )  # fmt: skip


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


def _policy_aside(trainer: Trainer) -> Policy:
    """The policy, without the draws that making a network takes: a run that is not stopped here does not take them either."""
    with torch.random.fork_rng(devices=[]):
        return trainer.policy()


def _look(
    config: ExperimentConfig, tape: MarketTape, policy: Policy, trainer: Trainer, standing: Standing, row: Row
) -> tuple[Track, Metrics] | None:
    """Judge the policy and remember the best; its track on the validation period, where there is one."""
    scores, look = {}, None
    if config.split.validation is not None:
        track = backtest(config, tape, policy, *config.split.validation)
        metrics = summarize(track, config.env.financing.bars_per_year)
        look, scores[VALIDATION] = (track, metrics), getattr(metrics, config.evaluation.metric)
        row[f"validation_{config.evaluation.metric}"] = number(scores[VALIDATION])
        row["validation_total_return"] = metrics.total_return
        row["validation_turnover_per_day"] = metrics.turnover_per_day
        row |= {f"validation_{name}": value for name, value in track.guard_summary.items()}
    if trainer.judge is not None:
        scores[trainer.judge.estimator] = trainer.judge.score(policy, row)
    standing.remember(scores)
    return look


def save_checkpoint(directory: Path, config: ExperimentConfig, trainer: Trainer, policy: Policy, standing: Standing) -> None:
    """RLlib's state, that of sampling, the policy on its own, and the standing; all or nothing. The one before is kept.

    Raises:
        CheckpointError: it cannot be written.
    """
    with new_checkpoint(directory) as temporary:
        trainer.algorithm.save_to_path(str(temporary / trainer.state_name))
        if isinstance(trainer.algorithm, Algorithm):  # ours holds its draws itself
            save_sampling(trainer.algorithm, config, temporary)
        policy.save(temporary / "policy")
        write_json(temporary / "standing.json", vars(standing))
