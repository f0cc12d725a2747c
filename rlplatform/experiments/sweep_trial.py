"""One trial of a sweep, in a process of its own: train, look at the validation period, report to Tune.

A trial finds its own directory again, so whatever Tune's snapshot says after a crash, it goes on from its own last
checkpoint, and a finished one answers at once. It never sees a row after the validation period.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from envs.tape import MarketTape
from rlplatform.evaluation.metrics import Metrics
from rlplatform.evaluation.track import Track
from rlplatform.experiments.checkpoints import recover_checkpoint
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.results_directory import read_json
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.search import METRICS, Settings, SweepConfig
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.sweep_directory import FAILED, FINISHED, STOPPED, SweepDirectory, TrialDirectory
from rlplatform.experiments.tracking import Tracker
from rlplatform.experiments.training import judged_checkpoint, train
from rlplatform.experiments.visible_rows import rows_before_test
from rlplatform.files import replaced_directory

log = logging.getLogger(__name__)
INDEX = "trial"  # key of a planned trial's number in what Tune hands over

Figures = dict[str, float | None]
OnLook = Callable[[Figures, int], None]
UNDEFINED: Figures = dict.fromkeys(METRICS)


@dataclass(frozen=True)
class Task:
    """One training."""

    name: str
    settings: Settings
    seed: int


def tasks_of(sweep: SweepConfig, sample: dict[str, Any], trial_id: str) -> list[Task]:
    """What one of Tune's trials trains: a seed of a planned setting, or every seed of one that Optuna proposes.

    Args:
        sample: `{"trial": number}` of a grid or random search; else a value (of a choice its index) of each parameter.
        trial_id: Tune's; that of a population's member ends with its number.
    """
    if INDEX in sample:
        setting, seed = divmod(sample[INDEX], len(sweep.seeds))
        return [Task(f"{sample[INDEX]:04d}", sweep.search.draws()[setting], sweep.seeds[seed])]
    settings = {key: domain.decoded(sample[key]) for key, domain in sweep.search.parameters.items()}
    if sweep.search.algorithm == "pbt":
        member = int(trial_id.rpartition("_")[2])
        return [Task(f"{member:04d}", settings, sweep.seeds[0] + member)]
    single = len(sweep.seeds) == 1
    return [Task(trial_id if single else f"{trial_id}-seed{seed}", settings, seed) for seed in sweep.seeds]


def run_trial(sample: dict[str, Any], sweep: SweepConfig, path: str, tape: MarketTape) -> None:
    """What Tune calls.

    Args:
        sample: see `tasks_of`.
        path: the sweep's directory, which every node must reach.
        tape: of the base config, see `rows_before_test`.
    """
    tasks, directory = tasks_of(sweep, sample, tune.get_context().get_trial_id()), SweepDirectory(Path(path))
    if len(tasks) == 1:
        trial = directory.trial(tasks[0].name)
        population = sweep.search.algorithm == "pbt"
        _train(sweep, tasks[0], trial, tape, partial(_report, checkpointed=trial if population else None))
        return
    figures = []
    for task in tasks:
        trial = directory.trial(task.name)
        _train(sweep, task, trial, tape, _say_nothing)
        figures.append(UNDEFINED if trial.record()["status"] == FAILED else trial.validation()["metrics"])
    _report({key: _mean([each[key] for each in figures]) for key in METRICS}, 1)


def _report(figures: Figures, looks: int, checkpointed: TrialDirectory | None = None) -> None:
    """NaN where a figure is undefined: Tune takes no None."""
    numbers = {key: math.nan if value is None else value for key, value in figures.items()}
    known = checkpointed is not None and figures is not UNDEFINED
    checkpoint = tune.Checkpoint.from_directory(str(checkpointed.run.checkpoint("last"))) if known else None
    tune.report(numbers | {"look": looks}, checkpoint=checkpoint)


def _say_nothing(figures: Figures, looks: int) -> None:
    """One seed of several is no result yet."""


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)


def _train(sweep: SweepConfig, task: Task, trial: TrialDirectory, tape: MarketTape, on_look: OnLook) -> None:
    """Train one run to its end, from its last checkpoint if it has one.

    A training that fails for a reason of its own, such as a loss that is no number, has an answer: figures that are
    undefined. What may go better the next time is raised, so that Tune tries again.
    """
    before, population = trial.record(), sweep.search.algorithm == "pbt"
    if before.get("status") == FAILED and before["final"]:
        return on_look(UNDEFINED, 1)
    if before.get("status") in (FINISHED, STOPPED) and not population:
        return on_look(trial.validation()["metrics"], looks_of(trial.run.config(), Standing.of(trial.run).iteration))
    handed_out = tune.get_checkpoint()
    if before and handed_out is not None and _is_complete(handed_out, sweep):
        # Whoever takes over weights that are trained to the end has nothing left to train with its new settings.
        task, handed_out = replace(task, settings=before["settings"]), None
    trial.begin(task.settings, task.seed)
    try:
        config = sweep.config_for(task.settings, task.seed)
        trial.run.write_config(config)
        resume = _recovered(trial.run, handed_out)
        own_tape = _tape_for(config, sweep, tape)
        _train_tracked(sweep, config, own_tape, trial, partial(_look, config, trial, population, on_look), resume)
    except Exception as error:
        if not trial.fail(error):
            raise
        return on_look(UNDEFINED, 1)
    trial.end(FINISHED)


def _train_tracked(
    sweep: SweepConfig,
    config: ExperimentConfig,
    tape: MarketTape,
    trial: TrialDirectory,
    look: Callable[[Track, Metrics], None],
    resume: bool,
) -> None:
    """Shown where `config.tracking` says, all trials of a sweep in one group."""
    with Tracker(config.tracking.in_sweep(sweep.base.name), log.warning) as tracker:
        tracker.start(config, trial.run.path)
        train(config, tape, trial.run, tracker.log, resume, on_look=look)
        tracker.finish()


def _is_complete(checkpoint: tune.Checkpoint, sweep: SweepConfig) -> bool:
    with checkpoint.as_directory() as source:
        return read_json(Path(source) / "standing.json")[sweep.base.step_unit] >= sweep.base.training.length


def _recovered(run: RunDirectory, handed_out: tune.Checkpoint | None) -> bool:
    """Put checkpoints right after a kill, or take over the one that PBT hands out. True if there is one to go on from."""
    if handed_out is not None:
        with handed_out.as_directory() as source, replaced_directory(run.checkpoint("last")) as directory:
            shutil.copytree(source, directory, dirs_exist_ok=True)
    for which in ("last", "best"):
        if run.checkpoint(which).parent.is_dir():
            recover_checkpoint(run.checkpoint(which), log.warning)
    return (run.checkpoint("last") / "standing.json").is_file()


def _look(
    config: ExperimentConfig, trial: TrialDirectory, population: bool, on_look: OnLook, track: Track, metrics: Metrics
) -> None:
    """After each look: the figures of the policy that would be judged so far; a population's are those of its last one."""
    standing = Standing.of(trial.run)
    judged = judged_checkpoint(config, standing) == "last" or standing.best_iteration == standing.iteration
    if judged or not trial.validation():
        trial.write_validation(standing.iteration, metrics, track)
    own = {f"validation_{name}": value for name, value in metrics.to_dict().items()}
    on_look(own if population else trial.validation()["metrics"], looks_of(config, standing.iteration))


def looks_of(config: ExperimentConfig, iteration: int) -> int:
    """How often a run has looked at the validation period by the end of `iteration`; the last one may come early."""
    return math.ceil(iteration / config.evaluation.interval_iterations)


def _tape_for(config: ExperimentConfig, sweep: SweepConfig, tape: MarketTape) -> MarketTape:
    """The sweep's own, unless this trial varies the features."""
    return tape if config.features == sweep.base.features else rows_before_test(config, prepare_market(config).tape)
