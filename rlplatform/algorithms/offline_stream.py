"""StreamedMinibatches: minibatches of a dataset larger than memory, read from its files while it is learnt from."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import ray
import torch

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.minibatches import Minibatches, Table, training_table
from rlplatform.offline.shards import EpisodeShards, Shard

Array = np.ndarray


class StreamedMinibatches(Minibatches):
    """What `Minibatches` gives, from tables of a few shards each.

    In each epoch the shards are shuffled and dealt out into tables of about `buffer_rows` rows; within a table rows (or
    sequences) are shuffled. While one table is learnt from a thread reads the next: two are in memory at once. Every epoch uses
    each row exactly once, and minibatch k is a function of the seed and k alone: how many lie in each table follows
    from the lengths of the episodes, which one pass over the data has found before. Where one table holds the whole dataset the
    minibatches are those of `Minibatches`. Rows that lie far apart meet in a minibatch only if their shards meet in a table.

    An episode lies in one shard, so returns, tail discounts and recurrent states are those of whole episodes.

    Shard by shard and not through Ray Data, which issue 4 names: Ray Data shuffles blocks in whatever order its tasks end,
    has no place to resume from, takes logical CPUs from the learners (with two it hangs, NOTES-RLLIB.md), and gave RLlib's own
    path 21k transitions a second (docs/LOG.md). Here it is one thread, and no process.

    Args:
        shards: or a reference to them.
        normalizer: of observations, or None.
        gamma: discount of the returns [per step].
        buffer_rows: of a table, about; at least one shard.
        batch_size, length, seed, shard, learners: as in `Minibatches`. Each learner reads all shards.
    """

    def __init__(
        self,
        shards: EpisodeShards | ray.ObjectRef,
        normalizer: ObservationNormalizer | None,
        gamma: float,
        buffer_rows: int,
        batch_size: int,
        length: int = 1,
        seed: int = 0,
        shard: int = 0,
        learners: int = 1,
    ) -> None:
        super().__init__({}, batch_size, length, seed, shard, learners)
        self._source, self._normalizer, self._gamma, self._buffer_rows = shards, normalizer, gamma, buffer_rows
        self._first = [0]  # minibatch of each epoch, as far as it was asked for
        self._deals: dict[int, tuple[list[Array], list[int]]] = {}
        self._shown: tuple[int, int] | None = None
        self._coming: tuple[tuple[int, int], Future[Table]] | None = None

    def open(self, device: torch.device | str = "cpu") -> StreamedMinibatches:
        """Get ready to read; the first table is read by the first `turn_to`. Returns self."""
        self._device = device
        self._source = ray.get(self._source) if isinstance(self._source, ray.ObjectRef) else self._source
        self._reader = ThreadPoolExecutor(1, "offline-stream")
        return self

    def turn_to(self, number: int) -> tuple[int, int]:
        """Make `table` the one in which minibatch `number` lies; (its epoch, which of the epoch's tables).

        Raises:
            DatasetError: a file is gone, or not what it was.
        """
        place = self._place(number)[:2]
        if place != self._shown:
            self.table = {}  # gone before the next is on the device
            table = self._read(place)
            self._show(table, self._device)
            self._shown = place
            self._begin_reading(self._after(place))
        return place

    def reward_std(self) -> float:
        return self._source.reward_std

    def returns_variance(self) -> float:
        return self._source.returns_variance(self._gamma)

    @property
    def per_epoch(self) -> int:
        """Minibatches in the first epoch; other epochs have a few more or less where shards differ in size."""
        return sum(self._counts(0))

    def _place(self, number: int) -> tuple[int, int, int, int]:
        while self._first[-1] <= number:
            self._first.append(self._first[-1] + sum(self._counts(len(self._first) - 1)))
        epoch = int(np.searchsorted(self._first, number, side="right")) - 1
        counts = self._counts(epoch)
        ends = np.cumsum(counts)
        part = number - self._first[epoch]
        which = int(np.searchsorted(ends, part, side="right"))
        return epoch, which, part - int(ends[which] - counts[which]), counts[which]

    def _counts(self, epoch: int) -> list[int]:
        """Minibatches in each table of an epoch."""
        return self._dealt(epoch)[1]

    def _dealt(self, epoch: int) -> tuple[list[Array], list[int]]:
        """Shards of each table of an epoch, and the minibatches in each."""
        if epoch not in self._deals:
            shards = self._source.shards
            rows = np.array([shard.num_rows for shard in shards])
            tables = dealt(rows, self._buffer_rows, np.random.default_rng([self._seed, epoch, SHARDS]))
            counts = [self._parts(sum_units([shards[number] for number in table], self.length)) for table in tables]
            self._deals = {known: deal for known, deal in self._deals.items() if known == epoch - 1} | {epoch: (tables, counts)}
        return self._deals[epoch]

    def _after(self, place: tuple[int, int]) -> tuple[int, int]:
        epoch, which = place
        return (epoch, which + 1) if which + 1 < len(self._counts(epoch)) else (epoch + 1, 0)

    def _read(self, place: tuple[int, int]) -> Table:
        if self._coming is None or self._coming[0] != place:
            self._begin_reading(place)
        table = self._coming[1].result()
        self._coming = None
        return table

    def _begin_reading(self, place: tuple[int, int]) -> None:
        self._coming = place, self._reader.submit(self._made, self._dealt(place[0])[0][place[1]])

    def _made(self, which: Array) -> Table:
        return training_table(self._source.read(which), self._normalizer, self._gamma, self.length)


SHARDS = 2**31  # the random stream of the shards' order, beside those of tables 0, 1, 2, … of the same seed and epoch


def dealt(rows: Array, buffer_rows: int, rng: np.random.Generator) -> list[Array]:
    """Shards in a random order, cut into tables of about equal size; within a table they stand in the dataset's order.

    Args:
        rows: (S,) of each shard.
        buffer_rows: wanted of a table; one has at most half the largest shard more.
    """
    order = rng.permutation(len(rows))
    tables = max(1, -(-int(rows.sum()) // buffer_rows))
    middle = np.cumsum(rows[order]) - 0.5 * rows[order]
    table = (tables * middle / rows.sum()).astype(int)
    return [np.sort(order[table == number]) for number in np.unique(table)]


def sum_units(shards: list[Shard], length: int) -> int:
    """Rows of these shards, or sequences of their table: `training_table` puts one row behind each episode."""
    rows = sum(shard.num_rows for shard in shards)
    return rows if length == 1 else -(-(rows + sum(len(shard.ids) for shard in shards)) // length)


def check_learners(shards: EpisodeShards, learners: int, length: int) -> None:
    """Every table can be shared out.

    Raises:
        ConfigError: a shard with fewer rows (or sequences) than learners.
    """
    for shard in shards.shards:
        if sum_units([shard], length) < learners:
            raise ConfigError(
                f"{learners} learners share {shard.record.name} of {shard.num_rows} rows; expected at least one sequence for "
                "each. Set training.num_learners lower, or dataset.in_memory: true."
            )
