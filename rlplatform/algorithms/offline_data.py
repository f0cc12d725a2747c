"""EpisodesData: logged episodes, in memory or in their files, as RLlib's offline data, batched without Ray Data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.offline.offline_data import OfflineData
from ray.tune.registry import register_input, registry_contains_input, registry_get_input

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.minibatches import CHUNK, Minibatches, training_table
from rlplatform.algorithms.offline_stream import StreamedMinibatches, check_learners
from rlplatform.models.config import model_config_from
from rlplatform.models.rl_module import MODEL
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.shards import EpisodeShards

Array = np.ndarray

NAME_PREFIX = "episodes@"


@dataclass(frozen=True, kw_only=True)
class RegisteredEpisodes:
    """Episodes that every process of this Ray session can reach by name.

    Attributes:
        name: for `config.offline_data(input_=[name])`: "episodes@" and the first 12 digits of the content's hash.
        observation_space, action_space: for `config.environment(...)`; no environment is needed.
        num_rows, num_episodes: how many.
    """

    name: str
    observation_space: gym.Space
    action_space: gym.Space
    num_rows: int
    num_episodes: int


@dataclass(frozen=True)
class EpisodesCreator:
    """Reads the columns from the object store on any worker; arrays are views of shared memory."""

    columns: ray.ObjectRef

    def __call__(self) -> Episodes:
        return Episodes(**ray.get(self.columns))


def register_episodes(episodes: Episodes, action_space: gym.Space) -> RegisteredEpisodes:
    """Put episodes into the object store once and make them known to RLlib and Tune.

    The name lives as long as this Ray session: register again before restoring a checkpoint in a new one; the same
    content gets the same name.

    Raises:
        ConfigError: no episodes.
    """
    if not len(episodes):
        raise ConfigError("the dataset has no episode; expected at least one. Collect some first.")
    columns = {f.name: getattr(episodes, f.name) for f in fields(Episodes)}
    columns["extras"] = dict(episodes.extras)
    name = NAME_PREFIX + _sha256(columns)[:12]
    register_input(name, EpisodesCreator(ray.put(columns)))
    return RegisteredEpisodes(
        name=name,
        observation_space=gym.spaces.Box(-np.inf, np.inf, episodes.obs.shape[1:], np.float32),
        action_space=action_space,
        num_rows=episodes.num_rows,
        num_episodes=len(episodes),
    )


@dataclass(frozen=True)
class ShardsCreator:
    """Where the files are and how much of them is held in memory at once, on any worker that reaches the same paths."""

    shards: ray.ObjectRef
    buffer_rows: int

    def __call__(self) -> StreamedShards:
        return StreamedShards(self.shards, ray.get(self.shards), self.buffer_rows)


class StreamedShards(NamedTuple):
    """What `register_shards` put under a name."""

    reference: ray.ObjectRef
    shards: EpisodeShards
    buffer_rows: int


def register_shards(shards: EpisodeShards, buffer_rows: int, action_space: gym.Space) -> RegisteredEpisodes:
    """`register_episodes` for a dataset that stays in its files, to be read again in each epoch.

    Args:
        shards: from `survey_dataset`.
        buffer_rows: that a learner holds in memory at once, and as many again that come next.
    """
    digest = hashlib.sha256(str(buffer_rows).encode())
    for shard in shards.shards:
        digest.update(f"{shard.record.sha256} {shard.ids.tolist()}".encode())
    name = NAME_PREFIX + digest.hexdigest()[:12]
    register_input(name, ShardsCreator(ray.put(shards), buffer_rows))
    return RegisteredEpisodes(
        name=name,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (shards.manifest.obs_size,), np.float32),
        action_space=action_space,
        num_rows=shards.num_rows,
        num_episodes=len(shards),
    )


class EpisodesData(OfflineData):
    """RLlib's OfflineData over registered episodes: no Ray Data and no actors.

    How to use it, for any algorithm on the new API stack (`OfflineTraining` and `MinibatchLearner` are in
    `offline_learner.py`):

        data = register_episodes(episodes, env.action_space)
        class FastCQL(OfflineTraining, CQL): ...
        class FastCQLLearner(MinibatchLearner, CQLTorchLearner):
            batch_columns = (Columns.OBS, Columns.NEXT_OBS, Columns.ACTIONS, Columns.REWARDS, Columns.TERMINATEDS)
        config = CQLConfig(algo_class=FastCQL).training(learner_class=FastCQLLearner, train_batch_size_per_learner=2_048)
        use_episodes(config, data, minibatches_per_iteration=100)

    Observations are normalised once, by the moments of the dataset's rows, where the model says so
    (`normalize_observations` of its ModelConfig); `normalizer` is frozen and goes into the exported policy. Without one of
    our models in `model_config` they stay as they are.

    Episodes of `register_episodes` are learnt from in memory, those of `register_shards` are read while they are learnt from.

    Attributes:
        episodes: as they were registered; None of those that stay in their files.
        normalizer: of observations, or None.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        # Not super().__init__: it opens files.
        self.config = config
        self.iter_batches_kwargs: dict[str, Any] = {}
        self.locality_hints = self.learner_handles = self.module_spec = self.spaces = None
        name = config.input_[0] if isinstance(config.input_, list | tuple) else config.input_
        source = _registered(name)
        self.episodes = source if isinstance(source, Episodes) else None
        self._streamed = None if isinstance(source, Episodes) else source
        self.normalizer = _fitted(source, config.model_config)
        self._shared: list[Minibatches] | None = None

    def sample(
        self, num_samples: int, return_iterator: bool = True, num_shards: int = 1, module_state: dict | None = None
    ) -> list[Minibatches]:
        """One source of minibatches for each learner; `num_samples` transitions in each minibatch of each learner."""
        if self._shared is None:
            self._shared = self._sources(num_samples, max(1, num_shards), remote=self.config.num_learners > 0)
        return self._shared

    def _sources(self, batch_size: int, shards: int, remote: bool) -> list[Minibatches]:
        length, seed, gamma = sequence_length(self.config.model_config), self.config.seed or 0, self.config.gamma
        if self._streamed is not None:
            reference, known, buffer_rows = self._streamed
            check_learners(known, shards, length)
            settings = (reference if remote else known, self.normalizer, gamma, buffer_rows, batch_size, length, seed)
            return [StreamedMinibatches(*settings, shard, shards) for shard in range(shards)]
        table = training_table(self.episodes, self.normalizer, gamma, length)
        if len(table[Columns.OBS]) < shards * length:
            raise ConfigError(
                f"{shards} learners share {self.episodes.num_rows} rows; expected at least one sequence for each."
            )
        place = ray.put(table) if remote else table
        return [Minibatches(place, batch_size, length, seed, shard, shards) for shard in range(shards)]


def use_episodes(config: AlgorithmConfig, data: RegisteredEpisodes, minibatches_per_iteration: int) -> AlgorithmConfig:
    """Make `config` learn from registered episodes; returns it.

    Args:
        minibatches_per_iteration: gradient steps in each `train()`.
    """
    config.environment(observation_space=data.observation_space, action_space=data.action_space)
    config.offline_data(
        input_=[data.name], offline_data_class=EpisodesData, dataset_num_iters_per_learner=minibatches_per_iteration
    )
    return config


def sequence_length(model_config: Any) -> int:
    """L of training sequences: `max_seq_len` of a model with memory, else 1."""
    settings = model_config if isinstance(model_config, dict) else {}
    return int(settings.get("max_seq_len", 1))


def registered_episodes(name: Any) -> Episodes:
    """What `register_episodes` put under this name; what `register_shards` did is read into memory.

    Raises:
        ConfigError: nothing, in this Ray session.
    """
    source = _registered(name)
    return source if isinstance(source, Episodes) else source.shards.read(range(len(source.shards.shards)))


def _registered(name: Any) -> Episodes | StreamedShards:
    if not str(name).startswith(NAME_PREFIX) or not registry_contains_input(name):
        raise ConfigError(
            f"dataset {name!r} is not known to this Ray session; expected a name that `register_episodes` gave. "
            "Load the dataset and register it first, also before restoring a checkpoint."
        )
    return registry_get_input(name)()


def _fitted(source: Episodes | StreamedShards, model_config: Any) -> ObservationNormalizer | None:
    settings = model_config.get(MODEL) if isinstance(model_config, dict) else None
    model = None if settings is None else model_config_from(settings)
    if model is None or not model.normalize_observations:
        return None
    form = {"clip": model.observation_clip, "groups": model.observation_groups}
    if isinstance(source, StreamedShards):
        return ObservationNormalizer.from_state(source.shards.moments.state() | form).freeze()
    normalizer = ObservationNormalizer(source.obs.shape[1], **form)
    for start in range(0, source.num_rows, CHUNK):
        normalizer.update(source.obs[start : start + CHUNK])
    return normalizer.freeze()


def _sha256(columns: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, column in sorted((columns | columns["extras"]).items()):
        if isinstance(column, np.ndarray):
            digest.update(f"{name} {column.dtype} {column.shape}".encode())
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
