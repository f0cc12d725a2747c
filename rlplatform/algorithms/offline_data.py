"""EpisodesData: logged episodes in memory, shared through Ray's object store, batched without Ray Data."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from ray.rllib.offline.offline_data import OfflineData
from ray.tune.registry import register_input, registry_contains_input, registry_get_input
from torch import Tensor

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.models.rl_module import MODEL, ActorCriticModule
from rlplatform.offline.episodes import Episodes

Array = np.ndarray
Table = dict[str, Array]

NAME_PREFIX = "episodes@"
RETURNS, TAIL_DISCOUNT, END_ROW = "returns", "tail_discount", "end_row"
CHUNK = 65_536  # rows normalised at once: float64 copies of a whole dataset would triple its memory


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


class EpisodesData(OfflineData):
    """RLlib's OfflineData over registered episodes: no Ray Data, no actors, nothing read from disk.

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

    A dataset larger than memory would stream: `config.offline_data(input_=paths, offline_data_class=None,
    dataset_num_iters_per_learner=n)` takes Ray Data's path with RLlib's own Learner, and its defects (NOTES-RLLIB.md).

    Attributes:
        episodes: as they were registered.
        normalizer: of observations, or None.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        # Not super().__init__: it opens files.
        self.config = config
        self.iter_batches_kwargs: dict[str, Any] = {}
        self.locality_hints = self.learner_handles = self.module_spec = self.spaces = None
        self.episodes = registered_episodes(config.input_[0] if isinstance(config.input_, list | tuple) else config.input_)
        self.normalizer = _fitted(self.episodes, config.model_config)
        self._shared: list[Minibatches] | None = None

    def sample(
        self, num_samples: int, return_iterator: bool = True, num_shards: int = 1, module_state: dict | None = None
    ) -> list[Minibatches]:
        """One source of minibatches for each learner; `num_samples` transitions in each minibatch of each learner."""
        if self._shared is None:
            self._shared = self._sources(num_samples, max(1, num_shards), remote=self.config.num_learners > 0)
        return self._shared

    def _sources(self, batch_size: int, shards: int, remote: bool) -> list[Minibatches]:
        length = sequence_length(self.config.model_config)
        table = training_table(self.episodes, self.normalizer, self.config.gamma, length)
        place = ray.put(table) if remote else table
        seed = self.config.seed or 0
        sources = [Minibatches(place, batch_size, length, seed, shard, shards) for shard in range(shards)]
        if len(table[Columns.OBS]) < shards * length:
            raise ConfigError(
                f"{shards} learners share {self.episodes.num_rows} rows; expected at least one sequence for each."
            )
        return sources


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


class Minibatches:
    """A shuffled endless stream of minibatches in which every epoch uses each row exactly once.

    Minibatch number k is a function of the seed and k alone, so a restored training goes on where it was. Minibatches of an
    epoch differ by at most one row (or sequence) in size. Several learners take equal parts of each.

    Small to send: the table travels by reference, and `open` brings it to a device.
    """

    def __init__(
        self, table: Table | ray.ObjectRef, batch_size: int, length: int = 1, seed: int = 0, shard: int = 0, shards: int = 1
    ) -> None:
        self._table, self._seed, self._shard, self._shards = table, seed, shard, shards
        self.length = length
        self.size = max(1, batch_size // length)  # units (rows or sequences) of each learner
        self._order: tuple[int, list[Array]] = (-1, [])

    def open(self, device: torch.device | str = "cpu") -> Minibatches:
        """Bring the table to the device: without a copy on the CPU. Returns self."""
        table = ray.get(self._table) if isinstance(self._table, ray.ObjectRef) else self._table
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to the table
            self._table = table
            self.table = {name: torch.from_numpy(column).to(device) for name, column in table.items()}
        return self

    @cached_property
    def units(self) -> Array:
        """(U,) first row of each row or sequence that can be drawn."""
        mask = self._table[Columns.LOSS_MASK]
        return np.flatnonzero(mask) if self.length == 1 else np.arange(0, len(mask), self.length)

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        return -(-len(self.units) // (self.size * self._shards))

    def rows(self, number: int) -> Tensor:
        """(U,) or (U, L) rows of the table that are in minibatch `number`, counted from 0 over all epochs."""
        epoch, part = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self.units)
            self._order = (epoch, np.array_split(order, self.per_epoch))
        first = torch.from_numpy(self._order[1][part][self._shard :: self._shards])
        return first if self.length == 1 else first[:, None] + torch.arange(self.length)

    def columns(self, rows: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """These columns of these rows; sequences also have `is_first` and the loss mask."""
        if self.length > 1:
            names = (*names, ActorCriticModule.IS_FIRST, Columns.LOSS_MASK)
        rows = rows.to(self.table[Columns.OBS].device)
        batch = {name: self.table[name][rows] for name in names if name != Columns.NEXT_OBS}
        if Columns.NEXT_OBS in names:
            batch[Columns.NEXT_OBS] = self.table[Columns.OBS][(rows + 1).clamp(max=len(self.table[Columns.OBS]) - 1)]
        return batch


def training_table(episodes: Episodes, normalizer: ObservationNormalizer | None, gamma: float, length: int = 1) -> Table:
    """Episode after episode, each followed by one row with its last observation, so the next of row i is row i + 1.

    Args:
        gamma: discount of the returns [per step].
        length: L of sequences; rows are appended until L divides their number.

    Returns:
        Columns of S rows: `obs` (S, D) float32 normalised, `actions`, `rewards`, `terminateds`, `truncateds` (bool, true in
        an episode's last decision), `is_first` (bool), `loss_mask` (bool, a decision stands here), `returns` (Monte-Carlo,
        Σ γᵏ r to the episode's real end), `tail_discount` (γ^steps to the end, 0 where it terminated: the weight of
        V(last observation) in a bootstrapped return), `end_row` (int64, where the episode's last observation stands),
        and the extras.
    """
    starts, lengths = episodes.starts, np.asarray(episodes.lengths, dtype=np.int64)
    episode = np.repeat(np.arange(len(episodes)), lengths)
    place = np.arange(episodes.num_rows) + episode  # each earlier episode has put one row more
    ends = episodes.ends + np.arange(len(episodes)) + 1
    total = -(-(episodes.num_rows + len(episodes)) // length) * length

    def spread(values: Array, fill: float = 0) -> Array:
        column = np.full((total, *values.shape[1:]), fill, values.dtype)
        column[place] = values
        return column

    obs = np.zeros((total, *episodes.obs.shape[1:]), np.float32)
    _normalise_into(obs, place, episodes.obs, normalizer)
    _normalise_into(obs, ends, episodes.last_obs, normalizer)
    actions = spread(episodes.actions)
    actions[ends] = episodes.actions[episodes.ends]  # any valid action: the mask hides it, its density must be finite
    actions[ends[-1] + 1 :] = episodes.actions[-1]
    first, last, ended = np.zeros(total, bool), episodes.is_last, episodes.terminated[episode]
    first[starts + np.arange(len(episodes))] = True
    first[ends[-1] + 1 :] = True
    steps_left = episodes.ends[episode] + 1 - np.arange(episodes.num_rows)
    return {
        Columns.OBS: obs,
        Columns.ACTIONS: actions,
        Columns.REWARDS: spread(episodes.rewards),
        Columns.TERMINATEDS: spread(last & ended),
        Columns.TRUNCATEDS: spread(last & ~ended),
        Columns.LOSS_MASK: spread(np.ones(episodes.num_rows, bool)),
        ActorCriticModule.IS_FIRST: first,
        RETURNS: spread(episodes.returns_to_go(gamma).astype(np.float32)),
        TAIL_DISCOUNT: spread(np.where(ended, 0.0, float(gamma) ** steps_left).astype(np.float32)),
        END_ROW: spread(ends[episode], fill=ends[-1]),
        **{name: spread(values) for name, values in episodes.extras.items() if values.dtype.kind in "biuf"},
    }


def sequence_length(model_config: Any) -> int:
    """L of training sequences: `max_seq_len` of a model with memory, else 1."""
    settings = model_config if isinstance(model_config, dict) else {}
    return int(settings.get("max_seq_len", 1))


def registered_episodes(name: Any) -> Episodes:
    """What `register_episodes` put under this name.

    Raises:
        ConfigError: nothing, in this Ray session.
    """
    if not str(name).startswith(NAME_PREFIX) or not registry_contains_input(name):
        raise ConfigError(
            f"dataset {name!r} is not known to this Ray session; expected a name that `register_episodes` gave. "
            "Load the dataset and register it first, also before restoring a checkpoint."
        )
    return registry_get_input(name)()


def _fitted(episodes: Episodes, model_config: Any) -> ObservationNormalizer | None:
    model = model_config.get(MODEL, {}) if isinstance(model_config, dict) else {}
    if not model.get("normalize_observations", False):
        return None
    normalizer = ObservationNormalizer(episodes.obs.shape[1], clip=model["observation_clip"])
    for start in range(0, episodes.num_rows, CHUNK):
        normalizer.update(episodes.obs[start : start + CHUNK])
    return normalizer.freeze()


def _normalise_into(target: Array, places: Array, obs: Array, normalizer: ObservationNormalizer | None) -> None:
    for start in range(0, len(obs), CHUNK):
        part = slice(start, start + CHUNK)
        target[places[part]] = obs[part] if normalizer is None else normalizer.normalize(obs[part])


def _sha256(columns: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, column in sorted((columns | columns["extras"]).items()):
        if isinstance(column, np.ndarray):
            digest.update(f"{name} {column.dtype} {column.shape}".encode())
            digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
