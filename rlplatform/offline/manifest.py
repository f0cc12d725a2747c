"""dataset.json: what a dataset is, so that it can be checked, joined, and a policy trained from it judged later."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs.catalog import CATALOG
from rlplatform.models.heads import head_from
from rlplatform.offline.errors import DatasetError

Array = np.ndarray

SCHEMA_VERSION = 1
MANIFEST_FILE, SHARDS = "dataset.json", "shards"
FORMATS = ("json", "parquet", "parquet_episodes")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One shard.

    Attributes:
        name: relative to the dataset's directory.
        episodes, rows, bytes: how much it holds.
        reward_mean, reward_std: of its rows; another scale shows here.
    """

    name: str
    sha256: str
    episodes: int
    rows: int
    bytes: int
    reward_mean: float
    reward_std: float


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """All that is known of a dataset.

    Attributes:
        format: one of `FORMATS`.
        env: the environment's whole config as plain values; `env["id"]` names it, `env["reward"]` the reward's weights.
        observation_names: D names, in the order of `obs`.
        action_space: description that `heads.head_from` reads.
        behaviours: settings of each behaviour that logged rows.
        columns: extras → meaning, unit, per_asset, known.
        has_log_prob: whether rows carry the behaviour's log-probability.
        seed: of start rows and actions; None where nothing was drawn.
        period: {"name", "start", "end", "days"}: which days decisions may fall on.
        experiment: the whole ExperimentConfig as plain values, from which the very same observation can be rebuilt.
        scaler: of the features, as `FeatureScaler.to_dict` gives it; None without features.
        prices_sha256, tape_sha256: what the environment read.
        rewards: mean, std, min and max of the rows.
        episode_return, total_return: mean, std, min, max and quantiles over episodes; total_return, of wealth, may be None.
        files: the shards, in order.
    """

    format: str
    env: Mapping[str, Any]
    observation_names: tuple[str, ...]
    action_space: Mapping[str, Any]
    behaviours: tuple[Mapping[str, Any], ...]
    columns: Mapping[str, Mapping[str, Any]]
    has_log_prob: bool
    seed: int | None
    period: Mapping[str, Any]
    experiment: Mapping[str, Any] | None
    scaler: Mapping[str, Any] | None
    prices_sha256: str
    tape_sha256: str
    episodes: int = 0
    rows: int = 0
    rewards: Mapping[str, float] = field(default_factory=dict)
    episode_return: Mapping[str, float] = field(default_factory=dict)
    total_return: Mapping[str, float] | None = None
    files: tuple[FileRecord, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def env_id(self) -> str:
        return str(self.env["id"])

    @property
    def obs_size(self) -> int:
        return len(self.observation_names)

    @property
    def space(self) -> gym.Space:
        """The action space."""
        return head_from(self.action_space).space()

    @property
    def is_discrete(self) -> bool:
        return isinstance(self.space, gym.spaces.Discrete)

    @property
    def fingerprint(self) -> str:
        """Hash of all that was known before the first row was collected."""
        known = {k: v for k, v in self.to_dict().items() if k not in _FOUND_OUT}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=_plain))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> DatasetManifest:
        """Inverse of `to_dict`.

        Raises:
            DatasetError: another schema version, a key missing or unknown, or an environment that no longer exists.
        """
        if content.get("schema_version") != SCHEMA_VERSION:
            raise DatasetError(
                f"{where}: schema_version = {content.get('schema_version')!r}; this version reads {SCHEMA_VERSION}."
            )
        expected = {f.name for f in dataclasses.fields(cls)}
        if expected != set(content):
            lacking, extra = sorted(expected - set(content)), sorted(set(content) - expected)
            raise DatasetError(f"{where}: keys missing {lacking}, unknown {extra}. Was it edited? Collect the dataset again.")
        if content["env"].get("id") not in CATALOG:
            raise DatasetError(
                f"{where}: written for {content['env'].get('id')!r}; this version has {', '.join(CATALOG)}. Collect it again."
            )
        if content["format"] not in FORMATS:
            raise DatasetError(f"{where}: format = {content['format']!r}; expected one of {', '.join(FORMATS)}.")
        files = tuple(FileRecord(**record) for record in content["files"])
        sequences = {name: tuple(content[name]) for name in ("observation_names", "behaviours")}
        return cls(**{**content, **sequences, "files": files})


_FOUND_OUT = ("episodes", "rows", "rewards", "episode_return", "total_return", "files")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else dict(value)


def read_manifest(directory: Path) -> DatasetManifest:
    """The manifest in a dataset's directory.

    Raises:
        DatasetError: none there, which also means that the dataset is not whole; or it cannot be read.
    """
    path = Path(directory) / MANIFEST_FILE
    if not path.is_file():
        unfinished = (path.parent / SHARDS).is_dir()
        cure = "Its collection was interrupted: give the same command again." if unfinished else "Give a dataset's directory."
        raise DatasetError(f"{path} does not exist. {cure}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is damaged: {error}. Collect the dataset again.") from None
    return DatasetManifest.from_dict(content, str(path))


def statistics(values: Array, quantiles: Sequence[float] = QUANTILES) -> dict[str, float]:
    """Mean, std (n), min, max and quantiles of (E,) values."""
    values = np.asarray(values, dtype=np.float64)
    figures = {name: float(getattr(values, name)()) for name in ("mean", "std", "min", "max")}
    return figures | {f"q{round(100 * q):02d}": float(np.quantile(values, q)) for q in quantiles}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
