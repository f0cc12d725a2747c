"""Writing: shards one by one, then the manifest; what was finished before an interruption is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlplatform.files import replaced_file, write_json
from rlplatform.offline.columns import total_returns
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.json_lines import JsonLines
from rlplatform.offline.manifest import (
    MANIFEST_FILE,
    SHARDS,
    DatasetManifest,
    FileRecord,
    file_sha256,
    read_manifest,
    statistics,
)
from rlplatform.offline.parquet_columns import ParquetColumns
from rlplatform.offline.parquet_episodes import ParquetEpisodes
from rlplatform.offline.raw_episode import Format, RawEpisode, together
from rlplatform.offline.validation import EpisodeCheck

Array = np.ndarray
Progress = Callable[[int, int], None]  # episodes and rows so far

PLAN_FILE = ".collecting"


def make_format(name: str, env_id: str = "", compress: bool = False) -> Format:
    """The file format of that name (see `manifest.FORMATS`)."""
    if name == "json":
        return JsonLines(compress)
    return ParquetColumns(env_id) if name == "parquet" else ParquetEpisodes(env_id)


@dataclass
class _Tally:
    """What is found out about a dataset while it is written; no row is kept."""

    files: list[FileRecord] = field(default_factory=list)
    returns: list[Array] = field(default_factory=list)
    totals: list[Array | None] = field(default_factory=list)
    bounds: list[tuple[float, float]] = field(default_factory=list)

    @property
    def episodes(self) -> int:
        return sum(record.episodes for record in self.files)

    @property
    def rows(self) -> int:
        return sum(record.rows for record in self.files)

    def add(self, directory: Path, path: Path, episodes: Episodes) -> None:
        rewards = episodes.rewards.astype(np.float64)
        self.files.append(
            FileRecord(
                name=str(path.relative_to(directory)),
                sha256=file_sha256(path),
                episodes=len(episodes),
                rows=episodes.num_rows,
                bytes=path.stat().st_size,
                reward_mean=float(rewards.mean()),
                reward_std=float(rewards.std()),
            )
        )
        self.returns.append(episodes.returns())
        self.totals.append(total_returns(episodes))
        self.bounds.append((float(rewards.min()), float(rewards.max())))

    def manifest(self, plan: DatasetManifest) -> DatasetManifest:
        weight = np.array([record.rows for record in self.files]) / self.rows
        means, stds = (np.array([getattr(record, name) for record in self.files]) for name in ("reward_mean", "reward_std"))
        mean = float(weight @ means)
        std = float(np.sqrt(weight @ (stds**2 + (means - mean) ** 2)))
        lows, highs = zip(*self.bounds, strict=True)
        known = [total for total in self.totals if total is not None]
        return dataclasses.replace(
            plan,
            episodes=self.episodes,
            rows=self.rows,
            rewards={"mean": mean, "std": std, "min": min(lows), "max": max(highs)},
            episode_return=statistics(np.concatenate(self.returns)),
            total_return=statistics(np.concatenate(known)) if len(known) == len(self.totals) else None,
            files=tuple(self.files),
        )


def write_dataset(
    directory: Path,
    plan: DatasetManifest,
    shards: Iterable[Callable[[], Episodes]],
    compress: bool = False,
    on_shard: Progress = lambda episodes, rows: None,
) -> DatasetManifest:
    """Write a dataset shard by shard; only one is in memory at a time.

    An interrupted call goes on where it stopped when it is made again with the same plan: finished shards are read back
    and kept, and since a shard depends on its own seed alone, the dataset ends with the same bytes. A whole dataset of the
    same plan is left as it is.

    Args:
        plan: the manifest but for what is found out on the way.
        shards: calls that make each shard's episodes.
        compress: pack obs with lz4; JSON only.

    Raises:
        DatasetError: the directory holds something else, or a made episode is not what the plan says.
    """
    directory = Path(directory)
    fingerprint = {"fingerprint": plan.fingerprint, "compress": compress}
    if (directory / MANIFEST_FILE).exists():
        return _already_whole(directory, plan)
    _claim(directory, fingerprint)
    file_format, check = make_format(plan.format, plan.env_id, compress), EpisodeCheck(plan)
    tally = _Tally()
    for number, make in enumerate(shards):
        path = directory / SHARDS / f"shard-{number:05d}.{file_format.suffix}"
        if path.exists():
            episodes = together([check(place.read()) for place in file_format.places(path)])
        else:
            episodes = make()
            _check_made(episodes, check)
            with replaced_file(path) as draft:
                file_format.write(draft, episodes, first_episode_id(plan) + tally.episodes)
        tally.add(directory, path, episodes)
        on_shard(tally.episodes, tally.rows)
    manifest = tally.manifest(plan)
    write_json(directory / MANIFEST_FILE, manifest.to_dict())
    (directory / PLAN_FILE).unlink()
    return manifest


def first_episode_id(plan: DatasetManifest) -> int:
    """Where a dataset's episode numbers begin.

    Other datasets begin elsewhere: RLlib drops an episode whose id it has seen. Below 2^53, so that JSON holds it exactly.
    """
    return (int(plan.fingerprint[:6], 16)) << 28


def _already_whole(directory: Path, plan: DatasetManifest) -> DatasetManifest:
    there = read_manifest(directory)
    if there.fingerprint != plan.fingerprint:
        raise DatasetError(
            f"{directory} holds another dataset, or one collected with other settings. Choose another directory."
        )
    return there


def _claim(directory: Path, fingerprint: dict) -> None:
    """Make the directory this plan's own; what a killed writer left half done goes away."""
    plan_file = directory / PLAN_FILE
    if plan_file.exists():
        if plan_file.read_text(encoding="utf-8") != _text(fingerprint):
            raise DatasetError(
                f"{directory} holds an unfinished dataset of other settings. Choose another directory, or delete it."
            )
    elif directory.exists() and any(directory.iterdir()):
        raise DatasetError(f"{directory} is not empty and holds no dataset. Choose another directory.")
    (directory / SHARDS).mkdir(parents=True, exist_ok=True)
    for leftover in (directory / SHARDS).glob(".*.tmp"):
        leftover.unlink()
    with replaced_file(plan_file) as draft:
        draft.write_text(_text(fingerprint), encoding="utf-8")


def _text(fingerprint: dict) -> str:
    return f"{fingerprint['fingerprint']} compress={fingerprint['compress']}\n"


def _check_made(episodes: Episodes, check: EpisodeCheck) -> None:
    """The same check that reading makes, so that nothing is written that cannot be read."""
    rows = episodes.num_rows
    end = np.arange(rows) == rows - 1
    whole = RawEpisode(
        episode_id=0,
        obs=episodes.obs,
        last_obs=episodes.last_obs[-1],
        actions=episodes.actions,
        rewards=episodes.rewards,
        terminated=end,
        truncated=np.zeros(rows, bool),
        log_prob=episodes.log_prob if check.manifest.has_log_prob else None,
        extras=episodes.extras,
    )
    try:
        check(whole)
    except DatasetError as error:
        raise DatasetError(f"the behaviour or the environment made what cannot be written: {error}.") from None
