"""LearningData: the logged episodes of an offline training, in memory or in their files, and those that only judge it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import ray

from rlplatform.algorithms.offline_data import RegisteredEpisodes, register_episodes, register_shards
from rlplatform.experiments.logged_data import DatasetConfig, columns_to_observe, logged_episodes
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.held_out import HoldOut
from rlplatform.offline.manifest import DatasetManifest, read_manifest
from rlplatform.offline.shards import EpisodeShards, survey_dataset

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of what is free, that learning from memory may take at its peak
STORE_SHARE = 0.5  # of Ray's object store, that the episodes may take
COPIES = 4  # of the table at that peak: files as they are read, joined, in the object store, as the table
COLUMNS_BYTES = 40  # of a row beside observation, action and extras: rewards, returns, flags, places


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningData:
    """Episodes.

    Attributes:
        learnt: in memory, or in their files.
        held_out: that no training sees; None if none were asked for, or none was left.
        action_space: of the dataset.
        buffer_rows: of a stream.
    """

    learnt: Episodes | EpisodeShards
    held_out: Episodes | None
    action_space: gym.Space
    buffer_rows: int

    def register(self) -> RegisteredEpisodes:
        """Make them known to RLlib, in this Ray session."""
        if isinstance(self.learnt, Episodes):
            return register_episodes(self.learnt, self.action_space)
        return register_shards(self.learnt, self.buffer_rows, self.action_space)


def learning_data(
    config: DatasetConfig, observe: Sequence[str] = (), held_out: float | None = None, seed: int = 0
) -> LearningData:
    """Read a dataset for a training; which way was taken is logged.

    Args:
        observe: `env.observe` of the experiment.
        held_out: share that only judges, see `HoldOut`; None for none.
        seed: of a draw of held-out episodes.

    Raises:
        DatasetError: a dataset that is not whole or not like the others, or too little to hold anything out.
    """
    manifests = [read_manifest(Path(path)) for path in config.paths]
    hold_out = None if held_out is None else HoldOut.of(manifests, held_out, seed)
    if not learns_from_memory(config, manifests):
        added = columns_to_observe(manifests[0], observe)
        survey = survey_dataset([Path(path) for path in config.paths], config.skip_bad, hold_out, added)
        learnt, judged, between = survey.shards, survey.held_out, survey.left_between
        space = learnt.manifest.space
    else:
        learnt, manifest = logged_episodes(config, observe)
        judged, between, space = None, 0, manifest.space
        if hold_out is not None:
            learnt, judged, between = _split(learnt, hold_out)
    if hold_out is not None:
        _say_split(hold_out, len(learnt), 0 if judged is None else len(judged), between)
    return LearningData(learnt=learnt, held_out=judged, action_space=space, buffer_rows=config.buffer_rows)


def learns_from_memory(config: DatasetConfig, manifests: Sequence[DatasetManifest]) -> bool:
    """What `dataset.in_memory` says; for auto, whether `COPIES` tables fit into `MEMORY_SHARE` of the free memory, and one into
    `STORE_SHARE` of the object store."""
    table, free, store = sum(map(table_bytes, manifests)), free_memory(), object_store_bytes()
    fits = COPIES * table <= MEMORY_SHARE * free and table <= STORE_SHARE * store
    chosen = fits if config.in_memory == "auto" else bool(config.in_memory)
    rows, paths = sum(manifest.rows for manifest in manifests), ", ".join(config.paths)
    sizes = f"{rows:,} rows, a table of {_size(table)}; free: memory {_size(free)}, object store {_size(store)}"
    if chosen:
        log.info("%s: learnt from in memory (%s)", paths, sizes)
    else:
        log.warning("%s: read from its files while it is learnt from (%s)", paths, sizes)
    return chosen


def table_bytes(manifest: DatasetManifest) -> int:
    """Estimated size of a dataset's training table [bytes]."""
    width = manifest.obs_size + int(np.prod(manifest.space.shape)) + len(manifest.columns)
    return manifest.rows * (4 * width + COLUMNS_BYTES)


def free_memory() -> int:
    """What this process may still take [bytes]: of the machine, and of its container where that has a limit."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free = 1024 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError):  # not Linux: half of all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    limit, used = (_number_in(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(0, limit - used))


def object_store_bytes() -> int:
    """Of the Ray session [bytes]."""
    return int(ray.cluster_resources().get("object_store_memory", 0))


def _number_in(path: Path) -> int | None:
    """None where there is no such file, or no limit ("max")."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _split(episodes: Episodes, hold_out: HoldOut) -> tuple[Episodes, Episodes | None, int]:
    learnt, judged = hold_out.split(episodes)
    if not len(learnt):
        raise DatasetError("no episode is left to learn from. Collect more, or hold out less: evaluation.held_out.")
    return episodes.select(learnt), episodes.select(judged) if len(judged) else None, len(episodes) - len(learnt) - len(judged)


def _say_split(hold_out: HoldOut, learnt: int, judged: int, between: int) -> None:
    where = (
        "drawn at random" if hold_out.first_day is None else f"from {np.datetime64(hold_out.first_day, 's').astype('M8[D]')} on"
    )
    reach = f"; {between:,} that reach across that day are left out" if between else ""
    log.warning("%s episodes are learnt from, %s %s are held out to judge by%s", f"{learnt:,}", f"{judged:,}", where, reach)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
