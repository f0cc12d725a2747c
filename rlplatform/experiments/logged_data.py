"""The datasets of an experiment: read once, joined, and held to be of one environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from envs.trading_env import TradingEnv
from rlplatform.models.heads import head_for
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.manifest import DatasetManifest, read_manifest
from rlplatform.offline.reading import read_dataset

# Sections that an experiment takes from its dataset unless it says otherwise.
FROM_DATASET = ("data", "split", "env", "features")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which logged episodes to learn from.

    Attributes:
        paths: directories of datasets of one environment, mixed.
        skip_bad: leave damaged episodes out and say how many, instead of refusing them.
    """

    paths: tuple[str, ...]
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("dataset.paths is empty; expected at least one directory, such as offline_data/sample.")


def logged_episodes(config: DatasetConfig) -> tuple[Episodes, DatasetManifest]:
    """All episodes of the datasets, and the first one's manifest.

    Raises:
        DatasetError: a dataset is not whole or not like the others.
    """
    return read_dataset([Path(path) for path in config.paths], config.skip_bad)


def dataset_sections(content: Mapping[str, Any]) -> dict[str, Any]:
    """Market, features, split and environment of the dataset that an experiment's YAML content names; none if it names none."""
    dataset = content.get("dataset")
    paths = dataset.get("paths") if isinstance(dataset, Mapping) else None
    if not isinstance(paths, list) or not paths:
        return {}
    recorded = read_manifest(Path(str(paths[0]))).experiment or {}
    return {name: recorded[name] for name in FROM_DATASET if name in recorded}


def check_dataset_fits(config: Any, env: TradingEnv) -> None:
    """A policy learnt from the dataset must be able to trade in the experiment's environment, and its test must be unseen.

    Args:
        config: an ExperimentConfig with a dataset.
        env: a training account of it.

    Raises:
        ConfigError: another environment, observation or action, or decisions logged after the end of training.
        DatasetError: a dataset that is not whole.
    """
    for path in config.dataset.paths:
        manifest = read_manifest(Path(path))
        ours, theirs = env.task.observation_names, manifest.observation_names
        if manifest.env_id != config.env.id or tuple(ours) != tuple(theirs):
            raise ConfigError(
                f"{path} was logged in {manifest.env_id} with {len(theirs)} observations; env.id = {config.env.id} here gives "
                f"{len(ours)}. Leave `env` and `features` out of the config to take the dataset's."
            )
        if manifest.action_space != head_for(env.action_space).describe():
            raise ConfigError(f"{path} has actions {manifest.action_space}; env here takes {env.action_space}.")
        if str(manifest.period["end"]) > str(config.split.train[1]):
            raise ConfigError(
                f"{path} has decisions until {manifest.period['end']}; split.train ends {config.split.train[1]}. What was seen "
                "in training cannot be a test: move the split, or collect an earlier period."
            )
