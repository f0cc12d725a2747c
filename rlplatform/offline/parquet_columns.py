"""Parquet columns: one row a step. RLlib's new stack reads them without flags, and so does pandas.

Each field's metadata carries its meaning and unit; the file's metadata the environment's id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlplatform.offline.columns import describe_columns
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.json_lines import REQUIRED
from rlplatform.offline.raw_episode import RLLIB_NAMES, Place, RawEpisode

Array = np.ndarray

OURS = (*REQUIRED, "t", "action_logp")


@dataclass(frozen=True)
class ParquetColumns:
    """The format; `env_id` goes into the files' metadata."""

    env_id: str = ""
    suffix: ClassVar[str] = "parquet"

    def write(self, path: Path, episodes: Episodes, first_id: int) -> None:
        columns = {
            "eps_id": np.repeat(first_id + np.arange(len(episodes)), episodes.lengths),
            "t": np.arange(episodes.num_rows) - np.repeat(episodes.starts, episodes.lengths),
            "obs": episodes.obs,
            "new_obs": episodes.next_obs(),
            "actions": episodes.actions,
            "rewards": episodes.rewards,
            "terminateds": episodes.is_last & np.repeat(episodes.terminated, episodes.lengths),
            "truncateds": episodes.is_last & ~np.repeat(episodes.terminated, episodes.lengths),
        }
        if not np.isnan(episodes.log_prob).all():
            columns[RLLIB_NAMES["log_prob"]] = episodes.log_prob
        columns |= dict(episodes.extras)
        units = {name: {k: str(v) for k, v in text.items()} for name, text in describe_columns(list(episodes.extras)).items()}
        arrays = {name: _arrow(values) for name, values in columns.items()}
        fields = [pa.field(name, array.type, metadata=units.get(name)) for name, array in arrays.items()]
        schema = pa.schema(fields, metadata={"env_id": self.env_id})
        pq.write_table(pa.Table.from_arrays(list(arrays.values()), schema=schema), path, compression="zstd")

    def places(self, path: Path) -> Iterator[Place]:
        columns = self._read(path)
        starts = np.flatnonzero(np.diff(columns["eps_id"], prepend=columns["eps_id"][0] - 1))
        for start, end in zip(starts, np.append(starts[1:], len(columns["eps_id"])), strict=True):
            yield Place(f"rows {start} to {end - 1}", partial(_episode, columns, slice(start, end)))

    def columns(self, path: Path, names: Sequence[str]) -> dict[str, Array]:
        """Some columns of a file, unchecked: a third of the time where the wide ones are not asked for.

        Raises:
            DatasetError: no Parquet, no such column, or empty cells.
        """
        table = _table(path, names)
        return {name: _numpy(name, table[name]) for name in names}

    def _read(self, path: Path) -> dict[str, Array]:
        table = _table(path)
        written_for = (table.schema.metadata or {}).get(b"env_id", b"").decode()
        if self.env_id and written_for not in ("", self.env_id):
            raise DatasetError(f"was written for {written_for}, the dataset for {self.env_id}. Keep environments apart")
        if table.num_rows == 0:
            raise DatasetError("holds no rows")
        return {name: _numpy(name, table[name]) for name in table.column_names}


def _table(path: Path, names: Sequence[str] | None = None) -> pa.Table:
    try:
        table = pq.read_table(path, columns=None if names is None else list(names))
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"cannot be read as Parquet ({str(error).splitlines()[0]}). Collect it again") from None
    for name in REQUIRED if names is None else names:
        if name not in table.column_names:
            raise DatasetError(f"has no column {name!r}; expected {', '.join(REQUIRED if names is None else names)}")
    return table


def _arrow(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))


def _numpy(name: str, column: pa.ChunkedArray) -> Array:
    array = column.combine_chunks()
    if array.null_count:
        raise DatasetError(f"column {name!r} has {array.null_count} empty cell(s); expected a number in each")
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)):
        return array.to_numpy(zero_copy_only=False)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    if len(array) == 0 or len(flat) % len(array):
        raise DatasetError(f"column {name!r} is ragged; expected one entry of equal shape a row")
    return flat.reshape(len(array), -1)


def _episode(columns: Mapping[str, Array], rows: slice) -> RawEpisode:
    cut = {name: values[rows] for name, values in columns.items()}
    return RawEpisode(
        episode_id=int(cut["eps_id"][0]),
        obs=cut["obs"],
        last_obs=cut["new_obs"][-1],
        actions=cut["actions"],
        rewards=cut["rewards"],
        terminated=cut["terminateds"],
        truncated=cut["truncateds"],
        log_prob=cut.get("action_logp"),
        extras={name: values for name, values in cut.items() if name not in OURS},
    )
