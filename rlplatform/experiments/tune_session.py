"""What sweeps, ablations and walk-forwards share of Ray Tune: its settings, what a training takes of a cluster, trials."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.ray_session import ray_session

ATTEMPTS = 3  # of a training whose process or node died; what fails for a reason of its own is not tried again
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 the old output says nothing; the new one still does, on standard output
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a config stay what they are
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial writes its own metrics
    "TUNE_GLOBAL_CHECKPOINT_S": "2",  # a snapshot is small; the younger it is, the less a resumed sweep must find out anew
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the row of the trial has its error
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def training_bundles(config: ExperimentConfig) -> list[dict[str, float]]:
    """What one training takes: its own process, and one for each remote runner and learner; GPUs go with the learners."""
    training = config.training
    learners, gpus = training.num_learners, getattr(training, "num_gpus_per_learner", 0)
    learner = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
    own, remote = (learner, []) if learners == 0 else ({"CPU": 1.0}, [learner] * learners)
    return [own, *remote, *[{"CPU": 1.0}] * (training.num_processes - learners)]


def tune_run_config(state: Path, callback: tune.Callback) -> tune.RunConfig:
    """Quiet, with Tune's own state in the directory `state`, and lost processes replaced."""
    return tune.RunConfig(
        name=state.name,
        storage_path=str(state.parent),
        verbose=0,
        callbacks=[callback],
        failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
    )


@contextmanager
def tune_environment() -> Iterator[None]:
    """Settings that Ray Tune takes from the environment only; what a user has set stays."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def run_tasks(
    run: Callable[..., None],
    tasks: Sequence[Any],
    given: Mapping[str, Any],
    *,
    told: Callable[[Any], Iterable[str]],
    state: Path,
    bundles: list[dict[str, float]],
    concurrent: int,
) -> None:
    """Every task as one of Tune's trials, in a Ray session of their own.

    Args:
        run: `run(task, **given)`; what it raises may go better the next time, and Tune tries again.
        told: lines for standard error once a task has ended; Tune pickles it.
        state: directory of Tune's own state, begun anew: our records say what is left.
        bundles: what one task takes, from `training_bundles`.
        concurrent: tasks at once.
    """
    trainable = tune.with_parameters(_run_task, run=run, tasks=tasks, given=given)
    with tune_environment(), ray_session(concurrent * len(bundles) + 1):
        shutil.rmtree(state, ignore_errors=True)
        tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory(bundles)),
            param_space={"task": tune.grid_search(list(range(len(tasks))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
            run_config=tune_run_config(state, _Told(tasks, told)),
        ).fit()


def _run_task(sample: dict[str, int], run: Callable[..., None], tasks: Sequence[Any], given: Mapping[str, Any]) -> None:
    run(tasks[sample["task"]], **given)
    tune.report({"done": 1})


class _Told(tune.Callback):
    """Says that tasks have ended, on standard error."""

    def __init__(self, tasks: Sequence[Any], told: Callable[[Any], Iterable[str]]) -> None:
        self.tasks, self.told = tasks, told

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        from rlplatform.experiments.progress import TrainingProgress

        note = TrainingProgress().note  # a console cannot be pickled, and Tune pickles its callbacks
        for line in self.told(self.tasks[trial.config["task"]]):
            note(line)
