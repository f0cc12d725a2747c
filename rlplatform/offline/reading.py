"""Reading: datasets from disk as `Episodes`, checked before anything learns from them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.offline.columns import observed, total_returns
from rlplatform.offline.episodes import Episodes, joined
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.manifest import SHARDS, DatasetManifest, FileRecord, file_sha256, read_manifest, statistics
from rlplatform.offline.raw_episode import Place, RawEpisode, together
from rlplatform.offline.validation import EpisodeCheck
from rlplatform.offline.writing import make_format

Array = np.ndarray
log = logging.getLogger(__name__)

SCALE_TOLERANCE = 1e-3  # relative, of a shard's mean and standard deviation of rewards


class DatasetReader:
    """Reads one dataset's shards, in order.

    Args:
        directory: that holds dataset.json.
        skip_bad: leave bad episodes and shards out instead of stopping at the first; each is told to `left_out`.

    Attributes:
        manifest: what dataset.json says.
        left_out: one line for each episode or shard that was not read.
        episodes_left_out: how many episodes that makes.
    """

    def __init__(self, directory: Path | str, skip_bad: bool = False) -> None:
        self.directory, self.skip_bad = Path(directory), skip_bad
        self.manifest = read_manifest(self.directory)
        self.left_out: list[str] = []
        self.episodes_left_out = 0
        self._check = EpisodeCheck(self.manifest)
        self._format = make_format(self.manifest.format, self.manifest.env_id)

    def __iter__(self) -> Iterator[Episodes]:
        self.check_listing()
        seen: set[int] = set()
        for record in self.manifest.files:
            raw = self.shard(record, seen)
            if raw:
                yield together(raw)

    def shard(self, record: FileRecord, seen: set[int]) -> list[RawEpisode]:
        """The checked episodes of one file.

        Args:
            seen: ids of the episodes before them, which must not come again; theirs are added.
        """
        path = self.directory / record.name
        raw: list[RawEpisode] = []
        if not path.is_file():
            self._refuse(f"{path} is missing; dataset.json lists it. Collect the dataset again.", record.episodes)
            return raw
        for place in self._places(path, record):
            self._take(path, place, raw, seen)
        try:
            self._check_shard(path, record, raw)
        except DatasetError as error:
            self._refuse(str(error), 0)
        return raw

    def _places(self, path: Path, record: FileRecord) -> Iterator[Place]:
        try:
            yield from self._format.places(path)
        except DatasetError as error:
            self._refuse(f"{path} {error}.", record.episodes)

    def _take(self, path: Path, place: Place, raw: list[RawEpisode], seen: set[int]) -> None:
        try:
            episode = self._check(place.read())
            if episode.episode_id in seen:
                raise DatasetError(f"repeats episode {episode.episode_id}; RLlib would drop one of them. Delete one")
        except DatasetError as error:
            self._refuse(f"{path}: {place.where}: {error}.", 1)
            return
        seen.add(episode.episode_id)
        raw.append(episode)

    def _check_shard(self, path: Path, record: FileRecord, raw: list[RawEpisode]) -> None:
        """What no single line shows: rows lost or added, rewards scaled down, bytes changed."""
        rows = sum(len(each) for each in raw)
        if (len(raw), rows) != (record.episodes, record.rows):
            raise DatasetError(
                f"{path} holds {len(raw)} episodes of {rows} rows; dataset.json says {record.episodes} of {record.rows}. "
                "Collect it again, or read with skip-bad."
            )
        rewards = np.concatenate([each.rewards for each in raw] or [np.zeros(1)]).astype(np.float64)
        if abs(rewards.std() - record.reward_std) > SCALE_TOLERANCE * max(record.reward_std, 1e-12):
            raise DatasetError(
                f"{path}: rewards have standard deviation {rewards.std():g}; dataset.json says {record.reward_std:g}. "
                "Another scale (fraction or percent), or other reward weights?"
            )
        found = file_sha256(path)
        if found != record.sha256:
            raise DatasetError(
                f"{path} has sha256 {found[:12]}…; dataset.json says {record.sha256[:12]}…. It was changed after it was "
                "written. Collect it again, or read with skip-bad."
            )

    def check_listing(self) -> None:
        """A shard that dataset.json does not know would still be read by RLlib, which takes all files of a folder."""
        listed = {record.name for record in self.manifest.files}
        for path in sorted((self.directory / SHARDS).glob(f"*.{self._format.suffix}")):
            if str(path.relative_to(self.directory)) not in listed:
                raise DatasetError(f"{path} is not listed in dataset.json, but RLlib would read it. Move it away.")

    def _refuse(self, message: str, episodes: int) -> None:
        if not self.skip_bad:
            raise DatasetError(message)
        self.left_out.append(message)
        self.episodes_left_out += episodes


def iter_episodes(directory: Path | str, skip_bad: bool = False) -> Iterator[Episodes]:
    """A dataset shard by shard, so that memory stays bounded.

    Raises:
        DatasetError: names file and line (or row) of the first thing that is wrong, unless `skip_bad`.
    """
    reader = DatasetReader(directory, skip_bad)
    yield from reader
    report_left_out(reader)


def read_dataset(
    directory: Path | str | Sequence[Path | str], skip_bad: bool = False, observe: Sequence[str] = ()
) -> tuple[Episodes, DatasetManifest]:
    """A whole dataset, or several joined into a mixture.

    Args:
        directory: one, or several whose environment, observation and action space agree.
        skip_bad: leave bad episodes out; how many is logged as a warning, and the manifest counts what was read.
        observe: columns to append to the observation, see `columns.observed`.

    Raises:
        DatasetError: names file and line (or row) of the first thing that is wrong; or datasets that do not belong together.
    """
    directories = [directory] if isinstance(directory, (str, Path)) else list(directory)
    readers = [DatasetReader(path, skip_bad) for path in directories]
    manifest = joined_manifest([(str(reader.directory), reader.manifest) for reader in readers])
    parts = [part for reader in readers for part in reader]
    for reader in readers:
        report_left_out(reader)
    if not parts:
        raise DatasetError(f"{', '.join(map(str, directories))}: no episode is left. Collect the dataset again.")
    episodes = joined(parts)
    names = tuple(observed_names(episodes, observe))
    manifest = dataclasses.replace(
        manifest,
        **measured(episodes),
        observation_names=(*manifest.observation_names, *names),
    )
    return (observed(episodes, observe) if observe else episodes), manifest


def measured(episodes: Episodes) -> dict[str, Any]:
    """The manifest's counts and statistics of these episodes."""
    rewards, totals = episodes.rewards.astype(np.float64), total_returns(episodes)
    return {
        "episodes": len(episodes),
        "rows": episodes.num_rows,
        "rewards": {name: float(getattr(rewards, name)()) for name in ("mean", "std", "min", "max")},
        "episode_return": statistics(episodes.returns()),
        "total_return": None if totals is None else statistics(totals),
    }


def observed_names(episodes: Episodes, observe: Sequence[str]) -> Iterator[str]:
    """Names of the entries by which these columns widen the observation."""
    for name in observe:
        values = episodes.extras.get(name)
        if values is None or values.ndim == 1:
            yield name
        else:
            yield from (f"{name}_{i}" for i in range(values.shape[1]))


def joined_manifest(parts: Sequence[tuple[str, DatasetManifest]]) -> DatasetManifest:
    """The manifest of a mixture: the first one's, with all behaviours and the columns that all share.

    Raises:
        DatasetError: parts whose environment, observation, action space or feature scaling differ.
    """
    if not parts:
        raise DatasetError("no dataset was given. Give at least one directory.")
    (first_name, first), *others = parts
    for name, other in others:
        for attribute in ("env", "observation_names", "action_space", "scaler"):
            ours, theirs = (_given(getattr(manifest, attribute)) for manifest in (first, other))
            if ours != theirs:
                difference = _difference(ours, theirs)
                raise DatasetError(
                    f"{name} cannot be joined with {first_name}: {attribute} differs{difference}. Collect them alike."
                )
    manifests = [manifest for _, manifest in parts]
    shared = {name: text for name, text in first.columns.items() if all(name in other.columns for other in manifests)}
    return dataclasses.replace(
        first,
        behaviours=tuple({str(b): b for manifest in manifests for b in manifest.behaviours}.values()),
        columns=shared,
        has_log_prob=all(manifest.has_log_prob for manifest in manifests),
        files=() if others else first.files,
    )


def _given(settings: object) -> object:
    """Without settings that are empty: one that did not exist yet when a dataset was collected says the same."""
    if not isinstance(settings, dict):
        return settings
    return {key: value for key, value in settings.items() if value not in (None, [], ())}


def _difference(ours: object, theirs: object) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
        return f" in {keys[0]}: {ours.get(keys[0])!r} and {theirs.get(keys[0])!r}" if keys else ""
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return f": {len(ours)} and {len(theirs)} entries" if len(ours) != len(theirs) else ""
    return ""


def report_left_out(reader: DatasetReader) -> None:
    """Warn of what a reader left out, if it did."""
    if reader.left_out:
        log.warning(
            "%s: left out %d episode(s) of %d. %s",
            reader.directory, reader.episodes_left_out, reader.manifest.episodes, " | ".join(reader.left_out[:5]),
        )  # fmt: skip
