"""The datasets of an experiment: read once, joined, and held to be of one environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
        in_memory: true reads all of them once into memory; false reads them file by file, again in each epoch, in bounded
            memory; auto is true where they fit (`learning_data.learns_from_memory`). Parquet rows are the fastest to stream.
        buffer_rows: that are shuffled together when they are read file by file. As many again wait in memory.
    """

    paths: tuple[str, ...]
    skip_bad: bool = False
    in_memory: bool | Literal["auto"] = "auto"
    buffer_rows: int = 131_072

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("dataset.paths is empty; expected at least one directory, such as offline_data/sample.")
        if self.buffer_rows < 1:
            raise ConfigError(f"dataset.buffer_rows = {self.buffer_rows}; expected at least 1, usually 131072.")


def logged_episodes(config: DatasetConfig, observe: Sequence[str] = ()) -> tuple[Episodes, DatasetManifest]:
    """All episodes of the datasets, and the first one's manifest.

    Args:
        observe: `env.observe` of the experiment that reads them.

    Raises:
        DatasetError: a dataset is not whole or not like the others.
        ConfigError: a column to observe that the datasets do not have.
    """
    paths = [Path(path) for path in config.paths]
    return read_dataset(paths, config.skip_bad, columns_to_observe(read_manifest(paths[0]), observe))


def columns_to_observe(manifest: DatasetManifest, observe: Sequence[str]) -> tuple[str, ...]:
    """What `env.observe` asks for beyond what the dataset was logged with: to be taken from its columns.

    Both put what is added on the right in the same order. Where the logged observation begins otherwise nothing is taken,
    and the observations differ.
    """
    logged = tuple(manifest.env.get("observe", ()))
    return tuple(observe[len(logged) :]) if tuple(observe[: len(logged)]) == logged else ()


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
        added = columns_to_observe(manifest, config.env.observe)
        missing = [name for name in added if name not in manifest.columns]
        if missing:
            raise ConfigError(
                f"env.observe: {missing[0]!r} is no column of {path}; it has {', '.join(manifest.columns)}. Leave it out, or "
                f"collect with env.observe = {list(config.env.observe)}."
            )
        ours, theirs = env.task.observation_names, (*manifest.observation_names, *added)
        if manifest.env_id != config.env.id or tuple(ours) != tuple(theirs):
            raise ConfigError(
                f"{path} was logged in {manifest.env_id} with {len(theirs)} observations; env.id = {config.env.id} here gives "
                f"{len(ours)}. Leave `env` and `features` out of the config to take the dataset's."
            )
        if config.evaluation.select_by in ("wis", "dr") and not manifest.has_log_prob:
            raise ConfigError(
                f"evaluation.select_by = {config.evaluation.select_by} divides by the behaviour's probabilities; {path} has "
                "none. Use validation, or collect with noise or ε."
            )
        if manifest.action_space != head_for(env.action_space).describe():
            raise ConfigError(f"{path} has actions {manifest.action_space}; env here takes {env.action_space}.")
        if str(manifest.period["end"]) > str(config.split.train[1]):
            raise ConfigError(
                f"{path} has decisions until {manifest.period['end']}; split.train ends {config.split.train[1]}. What was seen "
                "in training cannot be a test: move the split, or collect an earlier period."
            )
