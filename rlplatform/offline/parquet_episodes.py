"""Parquet episodes: RLlib's own form for `input_read_episodes=True`, one binary `item` a row.

An item is the state of a SingleAgentEpisode in msgpack, arrays as msgpack-numpy writes them. Written and read here
without either Ray or msgpack-numpy, whose decoder runs pickles that it finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlplatform.offline.episodes import Episodes
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.raw_episode import RLLIB_NAMES, Place, RawEpisode, split

Array = np.ndarray


@dataclass(frozen=True)
class ParquetEpisodes:
    """The format; `env_id` goes into the files' metadata."""

    env_id: str = ""
    suffix: ClassVar[str] = "parquet"

    def write(self, path: Path, episodes: Episodes, first_id: int) -> None:
        items = [msgpack.packb(_state(raw), default=_encode) for raw in split(episodes, first_id)]
        schema = pa.schema([pa.field("item", pa.binary())], metadata={"env_id": self.env_id})
        pq.write_table(pa.Table.from_arrays([pa.array(items, pa.binary())], schema=schema), path, compression="zstd")

    def places(self, path: Path) -> Iterator[Place]:
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DatasetError(f"cannot be read as Parquet ({str(error).splitlines()[0]}). Collect it again") from None
        if "item" not in table.column_names:
            raise DatasetError(f"has no column 'item'; found {', '.join(table.column_names)}")
        written_for = (table.schema.metadata or {}).get(b"env_id", b"").decode()
        if self.env_id and written_for not in ("", self.env_id):
            raise DatasetError(f"was written for {written_for}, the dataset for {self.env_id}. Keep environments apart")
        for number, item in enumerate(table["item"]):
            yield Place(f"row {number}", partial(read_item, item.as_py()))


def _state(raw: RawEpisode) -> dict[str, Any]:
    """What SingleAgentEpisode.get_state gives for a finished episode, in Ray 2.60."""
    extras = dict(raw.extras)
    if raw.log_prob is not None:
        extras[RLLIB_NAMES["log_prob"]] = raw.log_prob
    return {
        "id_": str(raw.episode_id),
        "agent_id": None,
        "module_id": None,
        "multi_agent_episode_id": None,
        "observations": _buffer(np.concatenate([raw.obs, raw.last_obs[None]])),
        "actions": _buffer(raw.actions),
        "rewards": _buffer(raw.rewards),
        "infos": {"data": [{} for _ in range(len(raw) + 1)], "lookback": 0, "finalized": False, "space": None},
        "extra_model_outputs": {name: _buffer(values) for name, values in extras.items()} or None,
        "is_terminated": bool(raw.terminated[-1]),
        "is_truncated": bool(raw.truncated[-1]),
        "t_started": 0,
        "t": len(raw),
        "_observation_space": None,
        "_action_space": None,
        "_start_time": None,
        "_last_step_time": None,
        "custom_data": {},
    }


def _buffer(values: Array) -> dict[str, Any]:
    return {"data": np.ascontiguousarray(values), "lookback": 0, "finalized": True, "space": None}


def _encode(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}
    raise DatasetError(f"a {type(value).__name__} cannot go into an episode; expected arrays of numbers.")


def _decode(value: dict) -> Any:
    if b"nd" not in value:
        return value
    if value.get(b"kind") not in (b"", None):
        raise DatasetError("holds a pickled array, which can run code; it was not written by this platform. Not read")
    return np.frombuffer(value[b"data"], np.dtype(value[b"type"])).reshape(value[b"shape"] if value[b"nd"] else ())


def read_item(item: bytes) -> RawEpisode:
    """One item as an episode.

    Raises:
        DatasetError: not msgpack, or not an episode's state.
    """
    try:
        state = msgpack.unpackb(item, object_hook=_decode, strict_map_key=False)
        return _episode(state)
    except (msgpack.UnpackException, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"is no episode of RLlib's ({type(error).__name__}: {error}). Collect it again") from None


def _episode(state: Mapping[str, Any]) -> RawEpisode:
    def data(name: str) -> Array:
        return np.asarray(state[name]["data"])

    observations, rewards = data("observations"), data("rewards")
    if len(observations) != len(rewards) + 1 or len(rewards) == 0:
        raise DatasetError(
            f"has {len(observations)} observations and {len(rewards)} rewards; expected one more, of a whole episode"
        )
    extras = {name: np.asarray(buffer["data"]) for name, buffer in (state["extra_model_outputs"] or {}).items()}
    last = np.arange(len(rewards)) == len(rewards) - 1
    return RawEpisode(
        episode_id=int(state["id_"]),
        obs=observations[:-1],
        last_obs=observations[-1],
        actions=data("actions"),
        rewards=rewards,
        terminated=last & bool(state["is_terminated"]),
        truncated=last & bool(state["is_truncated"]),
        log_prob=extras.pop(RLLIB_NAMES["log_prob"], None),
        extras=extras,
    )
