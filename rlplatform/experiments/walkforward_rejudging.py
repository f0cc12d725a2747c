"""A finished walk-forward judged again from its directory: no training, no Ray."""

from __future__ import annotations

import numpy as np

from envs.errors import ConfigError
from rlplatform.evaluation.folds import combinatorial_paths
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.results_directory import FINISHED
from rlplatform.experiments.walkforward_combinatorial import judge_paths
from rlplatform.experiments.walkforward_directory import Folds, Walk, WalkForwardDirectory
from rlplatform.experiments.walkforward_path import WalkForwardResult, judge_walk
from rlplatform.models.policy import Policy


def rejudged(directory: WalkForwardDirectory) -> tuple[WalkForwardResult, Market]:
    """The joined path of the saved policies, each fold's features scaled by the scaler beside its policy.

    Returns:
        The result, and the market of the last fold (its prices are those of all folds).

    Raises:
        ConfigError: a fold is not trained yet.
    """
    walk = directory.walk()
    dates = prepare_market(walk.base).tape.dates
    folds = walk.folds(dates)
    jobs = [(fold.number, seed) for seed in walk.seeds for fold in folds]
    left = [job for job in jobs if directory.fold(*job).record().get("status") != FINISHED]
    if left:
        raise ConfigError(
            f"{directory.path}: fold {left[0][0]}, seed {left[0][1]} is not trained ({len(left)} of {len(jobs)} are left). "
            f"Go on with it: rlplatform walkforward --resume {directory.path}"
        )
    return judge_trained(directory, walk, folds, dates)


def judge_trained(
    directory: WalkForwardDirectory, walk: Walk, folds: Folds, dates: np.ndarray
) -> tuple[WalkForwardResult, Market]:
    """`rejudged` of a walk-forward whose folds are known and trained."""
    runs = [directory.fold(fold.number, walk.seeds[0]).run for fold in folds]
    configs = [walk.config_for(fold, dates, walk.seeds[0]) for fold in folds]
    markets = [prepare_market(config, run.scaler()) for config, run in zip(configs, runs, strict=True)]
    policies = {seed: [Policy.load(directory.fold(fold.number, seed).run.policy) for fold in folds] for seed in walk.seeds}
    tapes, tried = [market.tape for market in markets], walk.walkforward.configs_tried
    if walk.walkforward.combinatorial:
        return judge_paths(walk.base, tapes, combinatorial_paths(folds), policies, tried), markets[-1]
    return judge_walk(walk.base, tapes, folds, policies, tried), markets[-1]
