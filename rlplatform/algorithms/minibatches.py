"""Minibatches: a shuffled table of logged transitions, in which every epoch uses each row exactly once."""

from __future__ import annotations

import warnings

import numpy as np
import ray
import torch
from ray.rllib.core.columns import Columns
from torch import Tensor

from envs.normalizer import ObservationNormalizer
from rlplatform.models.rl_module import ActorCriticModule
from rlplatform.offline.episodes import Episodes

Array = np.ndarray
Table = dict[str, Array]

RETURNS, TAIL_DISCOUNT, END_ROW = "returns", "tail_discount", "end_row"
CHUNK = 65_536  # rows normalised at once: float64 copies of a whole dataset would triple its memory


class Minibatches:
    """A shuffled endless stream of minibatches in which every epoch uses each row exactly once.

    Minibatch number k is a function of the seed and k alone, so a restored training goes on where it was. Minibatches of an
    epoch differ by at most one row (or sequence) in size. Several learners take equal parts of each.

    Small to send: the table travels by reference, and `open` brings it to a device.

    Attributes:
        table: the columns on the device, from `turn_to` on.
        length: L of sequences; 1 for single rows.
        size: rows or sequences of a minibatch, of each learner.
    """

    table: dict[str, Tensor]

    def __init__(
        self, table: Table | ray.ObjectRef, batch_size: int, length: int = 1, seed: int = 0, shard: int = 0, shards: int = 1
    ) -> None:
        self._table, self._seed, self._shard, self._shards = table, seed, shard, shards
        self.length = length
        self.size = max(1, batch_size // length)
        self._order: tuple[tuple[int, int], list[Array]] = ((-1, -1), [])

    def open(self, device: torch.device | str = "cpu") -> Minibatches:
        """Bring the table to the device: without a copy on the CPU. Returns self."""
        table = ray.get(self._table) if isinstance(self._table, ray.ObjectRef) else self._table
        self._show(table, device)
        return self

    def turn_to(self, number: int) -> tuple[int, int]:
        """Make `table` the one in which minibatch `number` lies; (its epoch, which of the epoch's tables: 0, there is one)."""
        return self._place(number)[:2]

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        return self._parts(len(self.units))

    def reward_std(self) -> float:
        """Of the rewards of the whole dataset."""
        return float(self.table[Columns.REWARDS][self.table[Columns.LOSS_MASK]].double().std(correction=0))

    def returns_variance(self) -> float:
        """Of the Monte-Carlo returns of the whole dataset."""
        return float(self.table[RETURNS][self.table[Columns.LOSS_MASK]].double().var(correction=0))

    def rows(self, number: int) -> Tensor:
        """(U,) or (U, L) rows of the table that are in minibatch `number`, counted from 0 over all epochs."""
        epoch, which, part, parts = self._place(number)
        if self._order[0] != (epoch, which):
            order = np.random.default_rng([self._seed, epoch, which]).permutation(self.units)
            self._order = ((epoch, which), np.array_split(order, parts))
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

    def _place(self, number: int) -> tuple[int, int, int, int]:
        """(epoch, table of the epoch, part of the table, parts of the table) of a minibatch."""
        epoch, part = divmod(number, self.per_epoch)
        return epoch, 0, part, self.per_epoch

    def _parts(self, units: int) -> int:
        """Minibatches into which so many rows or sequences are cut."""
        return -(-units // (self.size * self._shards))

    def _show(self, table: Table, device: torch.device | str) -> None:
        mask = table[Columns.LOSS_MASK]
        self.units = np.flatnonzero(mask) if self.length == 1 else np.arange(0, len(mask), self.length)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to the table
            self.table = {name: torch.from_numpy(column).to(device) for name, column in table.items()}


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


def _normalise_into(target: Array, places: Array, obs: Array, normalizer: ObservationNormalizer | None) -> None:
    for start in range(0, len(obs), CHUNK):
        part = slice(start, start + CHUNK)
        target[places[part]] = obs[part] if normalizer is None else normalizer.normalize(obs[part])
