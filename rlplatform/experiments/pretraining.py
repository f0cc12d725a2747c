"""Going on from an earlier run: what it takes, and whether it may."""

from __future__ import annotations

import json
from pathlib import Path

from envs.errors import ConfigError
from rlplatform.algorithms.pretraining import PretrainConfig
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.loading import plain
from rlplatform.experiments.logged_data import DatasetConfig
from rlplatform.experiments.run_directory import RunDirectory


def pretrain_overrides(path: Path) -> list[str]:
    """The overrides by which a training goes on from a run: its policy, its model, and its critic if it trained one.

    Raises:
        ConfigError: no run there.
    """
    run = RunDirectory.open(path)
    config = run.config()
    with_critic = config.training.algorithm not in ("bc", "differentiable")
    model = [f"model.{key}={json.dumps(value)}" for key, value in plain(config.model).items()]
    return [f"training.pretrain.run={run.path}", f"training.pretrain.load_value={json.dumps(with_critic)}", *model]


def dataset_of(pretrain: PretrainConfig) -> DatasetConfig:
    """What the earlier run learnt from.

    Raises:
        ConfigError: no dataset.
    """
    dataset = RunDirectory.open(Path(pretrain.run)).config().dataset
    if dataset is None:
        raise ConfigError(
            f"training.pretrain.mix_coeff = {pretrain.mix_coeff}, but {pretrain.run} learnt from no dataset. Set it to 0."
        )
    return dataset


def check_pretraining(config: ExperimentConfig) -> None:
    """An earlier policy must see the same numbers, and must not have seen the days that will judge this one.

    Raises:
        ConfigError: no policy there, another environment or other features, or a training that ended later than this one's.
    """
    pretrain = config.training.pretrain
    if pretrain is None:
        return
    if pretrain.policy_directory == Path(pretrain.run):  # a bare policy says nothing of its days
        return
    earlier = RunDirectory.open(Path(pretrain.run)).config()
    for name, ours, theirs in (
        ("env.id", config.env.id, earlier.env.id),
        ("env.observe", config.env.observe, earlier.env.observe),
        ("features", config.features, earlier.features),
        ("split.train's first day", config.split.train[0], earlier.split.train[0]),
    ):
        if ours != theirs:
            raise ConfigError(
                f"training.pretrain.run = {pretrain.run}: its {name} is {theirs}, here it is {ours}. A policy reads numbers "
                "as it learnt them; use the same."
            )
    seen, last = (earlier.split.validation or earlier.split.train)[1], (config.split.validation or config.split.train)[1]
    if pretrain.mix_coeff > 0:
        dataset_of(pretrain)
    if seen > last:
        raise ConfigError(
            f"training.pretrain.run = {pretrain.run}: it was trained and chosen on days until {seen}; here they end {last}, "
            "and the test would not be unseen. Train it again on the earlier days."
        )
