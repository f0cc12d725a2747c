"""One training of several, such as a fold or an arm: from its first step to the policy that validation chose."""

from __future__ import annotations

import logging
import shutil

from rlplatform.experiments.checkpoints import good_checkpoint
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.results_directory import FINISHED
from rlplatform.experiments.search import Settings
from rlplatform.experiments.sweep_directory import TrialDirectory
from rlplatform.experiments.tracking import Tracker
from rlplatform.experiments.training import judged_checkpoint, train
from rlplatform.experiments.visible_rows import rows_before_test
from rlplatform.models.policy import Policy

log = logging.getLogger(__name__)


def train_trial(config: ExperimentConfig, trial: TrialDirectory, settings: Settings) -> None:
    """Train anew and keep the policy that validation chose; it sees no row of the test.

    Args:
        settings: what sets this one apart from the others, for its record.
    """
    shutil.rmtree(trial.path, ignore_errors=True)
    trial.begin(settings, config.seed)
    trial.run.write_config(config)
    market = prepare_market(config)
    with Tracker(config.tracking.in_sweep(config.name), log.warning) as tracker:
        tracker.start(config, trial.path)
        standing = train(config, rows_before_test(config, market.tape), trial.run, tracker.log)
        tracker.finish()
    chosen = good_checkpoint(trial.run.checkpoint(judged_checkpoint(config, standing)), log.warning)
    trial.run.write_policy(Policy.load(chosen / "policy"), market.scaler)
    trial.end(FINISHED)
