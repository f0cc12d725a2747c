"""What sweeps and walk-forwards share of Ray Tune: its settings, what one training takes of a cluster, how failures are met."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray import tune

from rlplatform.experiments.config import ExperimentConfig

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
