"""Walk-forward: a policy trained anew before each test period, the tests joined into one path, the path judged."""

from __future__ import annotations

import datetime
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from ray import tune

from envs.errors import ConfigError, PlatformError
from envs.tape import MarketTape
from rlplatform.evaluation.folds import Fold
from rlplatform.evaluation.report import write_report
from rlplatform.experiments.checkpoints import good_checkpoint
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.experiment import checked_market
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.ray_session import ray_session
from rlplatform.experiments.run_directory import describe_environment
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.sweep import _environment
from rlplatform.experiments.sweep_directory import FAILED, FINISHED, RUNNING, TrialDirectory
from rlplatform.experiments.tracking import Tracker
from rlplatform.experiments.trainers import ProcessLostError
from rlplatform.experiments.training import judged_checkpoint, train
from rlplatform.experiments.walkforward_directory import Walk, WalkForwardDirectory
from rlplatform.experiments.walkforward_path import WalkForwardResult, judge_walk
from rlplatform.files import replaced_file, write_json
from rlplatform.models.policy import Policy

log = logging.getLogger(__name__)
Note = Callable[[str], None]
Job = tuple[int, int]  # fold, seed
ATTEMPTS = 3  # of a fold whose process or node died


class WalkForwardInterrupted(KeyboardInterrupt):
    """Someone stopped the walk-forward; it can be taken up again."""


class WalkForwardFailedError(PlatformError):
    """A fold could not be trained; without it there is no path."""


def new_walk(walk: Walk) -> WalkForwardDirectory:
    """Check prices, folds and settings, then make the directory; a mistake leaves none behind.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices.
    """
    _checked(walk)
    return WalkForwardDirectory.create(walk)


def run_walk(directory: WalkForwardDirectory, on_note: Note = lambda text: None) -> WalkForwardResult:
    """Train every fold that has not been trained, join their tests and judge the path.

    A fold that was under way when it was killed starts again from scratch, so that the result is that of a walk-forward that
    was never interrupted; finished folds are left alone.

    Raises:
        ConfigError: prices or features have changed since it began.
        WalkForwardInterrupted: Ctrl-C; the same call goes on.
        WalkForwardFailedError: a fold failed.
    """
    walk = directory.walk()
    dates, folds, market = _checked(walk)
    _begin(directory, walk, market, folds)
    try:
        jobs = [(fold.number, seed) for seed in walk.seeds for fold in folds]
        if any(_left(directory, job) for job in jobs):
            on_note(f"training {len(folds)} folds with {len(walk.seeds)} seeds")
            _train_all(directory, walk, folds, dates)
        _check_all_trained(directory, jobs)
        on_note("joining the folds and judging the path")
        result = _judged(directory, walk, folds, dates)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        directory.write_manifest(status="interrupted" if interrupted else FAILED, error=f"{type(error).__name__}: {error}")
        raise
    _write(directory, result)
    return result


def _checked(walk: Walk) -> tuple[Any, list[Fold], Market]:
    """Dates of the tape, folds, and the first fold's market: all that can be checked before a training is spent on it."""
    dates = prepare_market(walk.base).tape.dates
    folds = walk.folds(dates)
    market = checked_market(walk.config_for(folds[0], dates, walk.seeds[0]))
    for fold in folds[1:]:  # days that do not follow each other show here
        walk.config_for(fold, dates, walk.seeds[0])
    return dates, folds, market


def _begin(directory: WalkForwardDirectory, walk: Walk, market: Market, folds: list[Fold]) -> None:
    """Raises ConfigError where prices or features have changed since it began."""
    before, now = directory.manifest(), datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    if before.get("tape_sha256", market.tape.sha256) != market.tape.sha256:
        raise ConfigError(f"{directory.name}: prices or features are not those it began with. Start a new walk-forward.")
    resumed = {"resumed": [*before.get("resumed", []), now]} if before else {}
    directory.write_manifest(
        walkforward=walk.base.name,
        status=RUNNING,
        error=None,
        started=before.get("started", now),
        **resumed,
        config_sha256=walk.base.sha256,
        settings=walk.content["walkforward"],
        seeds=list(walk.seeds),
        num_folds=len(folds),
        data={"source": market.prices.source, "sha256": market.prices.sha256, "symbols": list(market.prices.symbols)},
        tape_sha256=market.tape.sha256,
        **describe_environment(),
    )


def _left(directory: WalkForwardDirectory, job: Job) -> bool:
    return directory.fold(*job).record().get("status") != FINISHED


def _train_all(directory: WalkForwardDirectory, walk: Walk, folds: list[Fold], dates: Any) -> None:
    """One of Tune's trials for each fold and seed; with a warm start for each seed, its folds one after the other."""
    numbers, seeds = [fold.number for fold in folds], walk.seeds
    if walk.walkforward.warm_start:
        chains = [[(number, seed) for number in numbers] for seed in seeds]
    else:
        chains = [[(number, seed)] for number in numbers for seed in seeds]
    chains = [chain for chain in chains if any(_left(directory, job) for job in chain)]
    bundles = _bundles(walk.base)
    data = {"chains": chains, "path": str(directory.path), "walk": walk, "folds": folds, "dates": dates}
    concurrent = walk.walkforward.max_concurrent
    with _environment(), ray_session(concurrent * len(bundles) + 1):
        trainable = tune.with_resources(tune.with_parameters(run_chain, **data), tune.PlacementGroupFactory(bundles))
        shutil.rmtree(directory.tune, ignore_errors=True)  # our own records say what is left
        tune.Tuner(
            trainable,
            param_space={"chain": tune.grid_search(list(range(len(chains))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
            run_config=tune.RunConfig(
                name=directory.tune.name,
                storage_path=str(directory.path),
                verbose=0,
                callbacks=[_Told(directory, chains, len(folds) * len(seeds))],
                failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
            ),
        ).fit()


def _bundles(config: ExperimentConfig) -> list[dict[str, float]]:
    """What one training takes: its own process, and one for each remote runner and learner; GPUs go with the learners."""
    training = config.training
    learners, gpus = training.num_learners, getattr(training, "num_gpus_per_learner", 0)
    learner = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
    own, remote = (learner, []) if learners == 0 else ({"CPU": 1.0}, [learner] * learners)
    return [own, *remote, *[{"CPU": 1.0}] * (training.num_processes - learners)]


class _Told(tune.Callback):
    """Says that folds have ended, on standard error."""

    def __init__(self, directory: WalkForwardDirectory, chains: list[list[Job]], total: int) -> None:
        self.directory, self.chains, self.total = directory, chains, total

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        from rlplatform.experiments.progress import TrainingProgress

        note = TrainingProgress().note  # a console cannot be pickled, and Tune pickles its callbacks
        done = len([path for path in self.directory.folds() if path.record()["status"] == FINISHED])
        for number, seed in self.chains[trial.config["chain"]]:
            record = self.directory.fold(number, seed).record()
            note(f"{done}/{self.total} · fold {number}, seed {seed} {record.get('status', 'not begun')}")


def run_chain(sample: dict[str, Any], chains: list[list[Job]], path: str, walk: Walk, folds: list[Fold], dates: Any) -> None:
    """What Tune calls: train the folds of one chain that have not been trained, oldest first.

    A training that fails for a reason of its own, such as a loss that is no number, ends the chain with its error written
    down. What may go better the next time is raised, so that Tune tries again.
    """
    directory = WalkForwardDirectory(Path(path))
    for number, seed in chains[sample["chain"]]:
        if not _left(directory, (number, seed)):
            continue
        start = directory.fold(number - 1, seed).path if walk.walkforward.warm_start and number > 0 else None
        config, trial = walk.config_for(folds[number], dates, seed, start), directory.fold(number, seed)
        try:
            train_fold(config, trial, number)
        except Exception as error:
            final = isinstance(error, PlatformError) and not isinstance(error, ProcessLostError)
            trial.end(FAILED, f"{type(error).__name__}: {error}", final=final)
            if not final:
                raise
            break
    tune.report({"done": 1})


def train_fold(config: ExperimentConfig, trial: TrialDirectory, number: int) -> None:
    """Train one fold from its first step and keep the policy that validation chose; it sees no row of its test."""
    shutil.rmtree(trial.path, ignore_errors=True)
    trial.begin({"fold": number}, config.seed)
    trial.run.write_config(config)
    market = prepare_market(config)
    with Tracker(config.tracking.in_sweep(config.name), log.warning) as tracker:
        tracker.start(config, trial.path)
        standing: Standing = train(config, rows_before_test(config, market.tape), trial.run, tracker.log)
        tracker.finish()
    chosen = good_checkpoint(trial.run.checkpoint(judged_checkpoint(config, standing)), log.warning)
    trial.run.write_policy(Policy.load(chosen / "policy"), market.scaler)
    trial.end(FINISHED)


def rows_before_test(config: ExperimentConfig, tape: MarketTape) -> MarketTape:
    """The tape up to the last row that training or validation may see."""
    last_day = (config.split.validation or config.split.train)[1]
    return tape.rows(0, tape.row_range(None, str(last_day))[1])


def _check_all_trained(directory: WalkForwardDirectory, jobs: list[Job]) -> None:
    for job in jobs:
        record = directory.fold(*job).record()
        if record.get("status") == FAILED:
            raise WalkForwardFailedError(
                f"{directory.name}: fold {job[0]}, seed {job[1]}: {record['error']} Without it there is no path. "
                f"Once that is put right: rlplatform walkforward --resume {directory.path}"
            )
    if any(_left(directory, job) for job in jobs):
        raise WalkForwardInterrupted("stopped before all folds were trained")


def _judged(directory: WalkForwardDirectory, walk: Walk, folds: list[Fold], dates: Any) -> WalkForwardResult:
    """Each fold's features are scaled by the scaler that lies beside its policy."""
    first = walk.seeds[0]
    configs = [walk.config_for(fold, dates, first) for fold in folds]
    scalers = [directory.fold(fold.number, first).run.scaler() for fold in folds]
    tapes = [prepare_market(config, scaler).tape for config, scaler in zip(configs, scalers, strict=True)]
    load = partial(_policy, directory)
    policies = {seed: [load(fold, seed) for fold in folds] for seed in walk.seeds}
    return judge_walk(walk.base, tapes, folds, policies, walk.walkforward.configs_tried)


def _policy(directory: WalkForwardDirectory, fold: Fold, seed: int) -> Policy:
    return Policy.load(directory.fold(fold.number, seed).run.policy)


def _write(directory: WalkForwardDirectory, result: WalkForwardResult) -> None:
    write_report(directory.report, result.verdict)
    write_json(directory.path / "walkforward.json", result.to_dict())
    for name, table, index in (("folds.csv", pd.DataFrame(result.folds), False), ("path.csv", result.wealth(), True)):
        with replaced_file(directory.path / name) as draft:
            table.to_csv(draft, index=index)
    directory.write_manifest(
        status=FINISHED,
        finished=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        seed=result.seed,
        test=result.verdict.metrics[result.verdict.policy.name].to_dict(),
        deflated_sharpe=result.evidence.to_dict(),
        verdict=result.verdict.sentence,
    )
