"""Any episodes as a dataset on disk, for trainings that read it while they learn."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np

from rlplatform.models.heads import head_for
from rlplatform.offline.columns import describe_columns
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.manifest import DatasetManifest
from rlplatform.offline.shards import EpisodeShards, survey_dataset
from rlplatform.offline.writing import write_dataset


def store(
    directory: Path, episodes: Episodes, space: gym.Space, per_shard: int = 2, format: str = "parquet", **known
) -> DatasetManifest:
    """Write `per_shard` episodes into each file."""
    plan = DatasetManifest(
        **{
            "format": format,
            "env": {"id": "Portfolio-v0"},
            "observation_names": tuple(f"o{i}" for i in range(episodes.obs.shape[1])),
            "action_space": head_for(space).describe(),
            "behaviours": ({"kind": "test"},),
            "columns": describe_columns(list(episodes.extras)),
            "has_log_prob": not np.isnan(episodes.log_prob).any(),
            "seed": None,
            "period": {"name": "train", "start": "2020-01-01", "end": "2020-12-31", "days": 366},
            "experiment": None,
            "scaler": None,
            "prices_sha256": "0" * 64,
            "tape_sha256": "0" * 64,
            **known,
        }
    )
    groups = [np.arange(first, min(first + per_shard, len(episodes))) for first in range(0, len(episodes), per_shard)]
    return write_dataset(directory, plan, [lambda group=group: episodes.select(group) for group in groups])


def stored(directory: Path, episodes: Episodes, space: gym.Space, per_shard: int = 2, **options) -> EpisodeShards:
    """The same, surveyed."""
    store(directory, episodes, space, per_shard, **options)
    return survey_dataset([directory]).shards
