"""EpisodeShards: logged episodes that stay in their files and are read a few files at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from envs.normalizer import ObservationNormalizer
from rlplatform.offline.columns import observed
from rlplatform.offline.episodes import Episodes, joined
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.held_out import HoldOut
from rlplatform.offline.manifest import DatasetManifest, FileRecord
from rlplatform.offline.parquet_columns import ParquetColumns
from rlplatform.offline.raw_episode import together
from rlplatform.offline.reading import DatasetReader, joined_manifest, observed_names, report_left_out

Array = np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """One file as the first pass found it. An episode never crosses files: reading refuses one without an end.

    Attributes:
        directory, record: of its dataset, and its line in dataset.json.
        format: of the file.
        whole: nothing in the file was refused, so that its columns can be trusted from now on.
        observe: columns that join the observation, see `columns.observed`.
        ids, lengths, terminated: (E,) of the episodes that are learnt from, in their order.
        last_obs: (E, D) float32, without these columns. Kept, for a file holds every observation twice only to tell the last.
    """

    directory: Path
    record: FileRecord
    format: str
    whole: bool
    observe: tuple[str, ...]
    ids: Array
    lengths: Array
    terminated: Array
    last_obs: Array

    @property
    def num_rows(self) -> int:
        return int(self.lengths.sum())

    def read(self) -> Episodes:
        """The episodes, without probabilities and extras.

        Raises:
            DatasetError: the file is not what it was in the first pass.
        """
        episodes = self._from_columns() if self.whole and self.format == "parquet" else self._from_episodes()
        return dataclasses.replace(observed(episodes, self.observe), extras={})

    def rewards(self) -> Array:
        """(R,) of the episodes, in their order."""
        return self._columns("rewards")["rewards"] if self.whole and self.format == "parquet" else self.read().rewards

    def _from_episodes(self) -> Episodes:
        reader = DatasetReader(self.directory, skip_bad=not self.whole)
        raw = {episode.episode_id: episode for episode in reader.shard(self.record, set())}
        if not set(self.ids.tolist()) <= set(raw):
            raise self._changed()
        return together([raw[number] for number in self.ids.tolist()])

    def _from_columns(self) -> Episodes:
        columns = self._columns("obs", "actions", "rewards", *self.observe)
        kind = np.int64 if columns["actions"].dtype.kind in "iu" else np.float32
        return Episodes(
            lengths=self.lengths,
            last_obs=self.last_obs,
            terminated=self.terminated,
            obs=columns["obs"].astype(np.float32, copy=False),
            actions=columns["actions"].astype(kind, copy=False),
            rewards=columns["rewards"].astype(np.float32, copy=False),
            log_prob=np.full(self.num_rows, np.nan, np.float32),
            extras={name: columns[name] for name in self.observe},
        )

    def _columns(self, *names: str) -> dict[str, Array]:
        """The rows of the episodes that are learnt from."""
        columns = ParquetColumns().columns(self.directory / self.record.name, ("eps_id", *names))
        numbers = columns["eps_id"]
        wanted = np.isin(numbers, self.ids)
        if not np.array_equal(numbers[wanted], np.repeat(self.ids, self.lengths)):
            raise self._changed()
        return {name: columns[name] if wanted.all() else columns[name][wanted] for name in names}

    def _changed(self) -> DatasetError:
        return DatasetError(
            f"{self.directory / self.record.name} was changed while a training reads it. Start the training again; "
            "what it reads must stay as it is."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeShards:
    """The episodes of a dataset, or of several, that a training reads again in each epoch.

    Attributes:
        shards: at least one, in the order of the datasets.
        manifest: of the mixture; episodes and rows count what is learnt from.
        moments: of the observations at the decisions that are learnt from, frozen.
        reward_std: standard deviation of their rewards.
    """

    shards: tuple[Shard, ...]
    manifest: DatasetManifest
    moments: ObservationNormalizer
    reward_std: float

    def __len__(self) -> int:
        return self.manifest.episodes

    @property
    def num_rows(self) -> int:
        return self.manifest.rows

    def read(self, which: Sequence[int]) -> Episodes:
        """The episodes of these shards, one after another."""
        return joined([self.shards[number].read() for number in which])

    def returns_variance(self, gamma: float) -> float:
        """Of the Monte-Carlo returns at all decisions, discounted by `gamma`. Reads all rewards once."""
        returns = ObservationNormalizer(1)
        for shard in self.shards:
            episodes = _rewards_alone(shard)
            returns.update(episodes.returns_to_go(gamma)[:, None])
        return float(returns.m2[0] / returns.count)


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What one pass over a dataset found.

    Attributes:
        shards: to learn from.
        held_out: with their probabilities, to judge by; None if none were.
        left_between: episodes that reach into the held-out days, of no use.
    """

    shards: EpisodeShards
    held_out: Episodes | None
    left_between: int


def survey_dataset(
    directories: Sequence[Path], skip_bad: bool = False, hold_out: HoldOut | None = None, observe: Sequence[str] = ()
) -> Survey:
    """Check every row of a dataset, or of several, as `read_dataset` does, keeping no more than one file in memory.

    What is kept of an episode that is learnt from is its length and its last observation.

    Args:
        hold_out: which episodes only judge.
        observe: columns to append to the observation, see `columns.observed`.

    Raises:
        DatasetError: as `read_dataset`.
    """
    readers = [DatasetReader(path, skip_bad) for path in directories]
    manifest = joined_manifest([(str(reader.directory), reader.manifest) for reader in readers])
    tally = _Tally(hold_out, tuple(observe))
    for reader in readers:
        for shard, episodes in _checked_shards(reader, tally.observe):
            tally.add(shard, episodes)
        report_left_out(reader)
    if not tally.shards:
        names = ", ".join(map(str, directories))
        raise DatasetError(f"{names}: no episode is left to learn from. Collect more, or hold out less.")
    found = tally.found(manifest)
    return Survey(shards=found, held_out=joined(tally.held) if tally.held else None, left_between=tally.between)


@dataclass
class _Tally:
    """What is found out on the way; of what is learnt from no row is kept."""

    hold_out: HoldOut | None
    observe: tuple[str, ...]
    shards: list[Shard] = field(default_factory=list)
    held: list[Episodes] = field(default_factory=list)
    names: tuple[str, ...] = ()
    seen: int = 0
    between: int = 0
    obs: ObservationNormalizer | None = None
    rewards: ObservationNormalizer = field(default_factory=lambda: ObservationNormalizer(1))

    def add(self, shard: Shard, episodes: Episodes) -> None:
        learnt, judged = np.arange(len(episodes)), np.arange(0)
        if self.hold_out is not None:
            learnt, judged = self.hold_out.split(episodes, self.seen)
        self.seen += len(episodes)
        self.between += len(episodes) - len(learnt) - len(judged)
        self.names = tuple(observed_names(episodes, self.observe))
        if len(judged):
            self.held.append(dataclasses.replace(observed(episodes.select(judged), self.observe), extras={}))
        if len(learnt):
            kept = observed(episodes.select(learnt), self.observe)
            self.obs = self.obs or ObservationNormalizer(kept.obs.shape[1])
            self.obs.update(kept.obs)
            self.rewards.update(kept.rewards[:, None])
            self.shards.append(_only(shard, learnt))

    def found(self, manifest: DatasetManifest) -> EpisodeShards:
        counted = dataclasses.replace(
            manifest,
            episodes=sum(len(shard.ids) for shard in self.shards),
            rows=self.obs.count,
            observation_names=(*manifest.observation_names, *self.names),
        )
        std = float(np.sqrt(self.rewards.m2[0] / self.rewards.count))
        return EpisodeShards(shards=tuple(self.shards), manifest=counted, moments=self.obs.freeze(), reward_std=std)


def _checked_shards(reader: DatasetReader, observe: tuple[str, ...]) -> Iterator[tuple[Shard, Episodes]]:
    reader.check_listing()
    seen: set[int] = set()
    for record in reader.manifest.files:
        refused = len(reader.left_out)
        raw = reader.shard(record, seen)
        if raw:
            episodes = together(raw)
            shard = Shard(
                directory=reader.directory,
                record=record,
                format=reader.manifest.format,
                whole=len(reader.left_out) == refused,
                observe=observe,
                ids=np.array([episode.episode_id for episode in raw], dtype=np.int64),
                lengths=episodes.lengths,
                terminated=episodes.terminated,
                last_obs=episodes.last_obs,
            )
            yield shard, episodes


def _only(shard: Shard, which: Array) -> Shard:
    chosen = {name: getattr(shard, name)[which] for name in ("ids", "lengths", "terminated", "last_obs")}
    return dataclasses.replace(shard, **chosen)


def _rewards_alone(shard: Shard) -> Episodes:
    """The episodes with observations of no width: returns need rewards and ends."""
    rows = shard.num_rows
    return Episodes(
        lengths=shard.lengths,
        obs=np.zeros((rows, 0), np.float32),
        last_obs=np.zeros((len(shard.ids), 0), np.float32),
        actions=np.zeros(rows, np.int64),
        rewards=shard.rewards(),
        terminated=shard.terminated,
        log_prob=np.full(rows, np.nan, np.float32),
    )
