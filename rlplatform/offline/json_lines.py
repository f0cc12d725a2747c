"""JSON lines: one complete episode a line, the columns of RLlib's SampleBatch.

RLlib's `JsonReader` and its new stack (`input_read_method="read_json", input_read_sample_batches=True`) read them. With
`compress` the column obs is lz4 as RLlib packs it (numpy's pickle, lz4, base64); new_obs never is, the new stack could
not read it. Numbers are the shortest text that gives the same float32 back.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lz4.frame
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlplatform.offline.episodes import Episodes
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.raw_episode import RLLIB_NAMES, Place, RawEpisode, split

Array = np.ndarray

REQUIRED = ("eps_id", "obs", "new_obs", "actions", "rewards", "terminateds", "truncateds")
OURS = (*REQUIRED, "type", "t", "action_logp", "agent_index", "unroll_id")


@dataclass(frozen=True)
class JsonLines:
    """The format; `compress` packs obs with lz4."""

    compress: bool = False
    suffix: ClassVar[str] = "json"

    def write(self, path: Path, episodes: Episodes, first_id: int) -> None:
        with path.open("w", encoding="utf-8") as file:
            for raw in split(episodes, first_id):
                file.write(self._line(raw) + "\n")

    def _line(self, raw: RawEpisode) -> str:
        columns = {
            "type": '"SampleBatch"',
            "eps_id": _text(np.full(len(raw), raw.episode_id)),
            "t": _text(np.arange(len(raw))),
            "obs": f'"{pack(raw.obs)}"' if self.compress else _text(raw.obs),
            "new_obs": _text(raw.next_obs),
            "actions": _text(raw.actions),
            "rewards": _text(raw.rewards),
            "terminateds": _text(raw.terminated),
            "truncateds": _text(raw.truncated),
        }
        if raw.log_prob is not None:
            columns[RLLIB_NAMES["log_prob"]] = _text(raw.log_prob)
        columns |= {name: _text(values) for name, values in raw.extras.items()}
        return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in columns.items()) + "}"

    def places(self, path: Path) -> Iterator[Place]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield Place(f"line {number}", partial(read_line, line))


def read_line(line: bytes) -> RawEpisode:
    """One line as an episode.

    Raises:
        DatasetError: cut off, no JSON object, or a column missing or ragged.
    """
    try:
        content = json.loads(line)
    except ValueError as error:
        cut = not line.endswith(b"\n")
        why = "is cut off in its middle (no end of line); was its writer killed?" if cut else f"is no JSON: {error}."
        raise DatasetError(f"{why} Delete the line, or read with skip-bad") from None
    if not isinstance(content, dict):
        raise DatasetError("is no JSON object; expected one episode of SampleBatch columns")
    for name in REQUIRED:
        if name not in content:
            raise DatasetError(f"has no column {name!r}; expected {', '.join(REQUIRED)}")
    columns = {name: _array(name, values) for name, values in content.items() if name != "type"}
    if len(columns["eps_id"]) == 0 or len(columns["new_obs"]) == 0:
        raise DatasetError("holds no step; expected one complete episode")
    if len(set(columns["eps_id"].tolist())) > 1:
        raise DatasetError(
            f"holds {len(set(columns['eps_id'].tolist()))} episodes (eps_id); expected one complete episode a line"
        )
    return RawEpisode(
        episode_id=int(columns["eps_id"][0]),
        obs=columns["obs"],
        last_obs=columns["new_obs"][-1],
        actions=columns["actions"],
        rewards=columns["rewards"],
        terminated=columns["terminateds"],
        truncated=columns["truncateds"],
        log_prob=columns.get("action_logp"),
        extras={name: values for name, values in columns.items() if name not in OURS},
    )


def _array(name: str, values: Any) -> Array:
    if isinstance(values, str):
        return unpack(values)
    try:
        array = np.array(values)
    except ValueError:
        array = np.array(None)
    if array.dtype == object or array.ndim == 0:
        raise DatasetError(f"column {name!r} is ragged or no list of numbers; expected one entry of equal shape a step")
    return array


def _text(values: Array) -> str:
    """An array (T,) or (T, A) as JSON; floats always with a point or an exponent, so that readers infer one type."""
    if values.dtype == bool or np.issubdtype(values.dtype, np.integer):
        return json.dumps(values.tolist())
    if not np.isfinite(values).all():
        raise DatasetError("a number is NaN or infinite; JSON and RLlib can hold neither. Look at what produced it.")
    numbers = pc.replace_substring_regex(pa.array(values.ravel()).cast(pa.string()), r"^(-?\d+)$", r"\1.0")
    if values.ndim == 1:
        return "[" + ", ".join(numbers.to_pylist()) + "]"
    width = int(np.prod(values.shape[1:]))
    offsets = pa.array(np.arange(0, values.size + 1, width, dtype=np.int32))
    rows = pc.binary_join(pa.ListArray.from_arrays(offsets, numbers), ",")
    return "[[" + "],[".join(rows.to_pylist()) + "]]"


def pack(values: Array) -> str:
    """An array as RLlib's `pack` writes it: pickle, lz4, base64."""
    return base64.b64encode(lz4.frame.compress(pickle.dumps(values))).decode("ascii")


def unpack(text: str) -> Array:
    """Inverse of `pack`, for arrays only: a pickle can run code, so nothing but numpy's own array parts is let in.

    Raises:
        DatasetError: damaged, or something else than an array.
    """
    try:
        array = _ArrayUnpickler(io.BytesIO(lz4.frame.decompress(base64.b64decode(text)))).load()
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DatasetError(f"has a packed column that cannot be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"has a packed column that is a {type(array).__name__}; expected an array")
    return array


class _ArrayUnpickler(pickle.Unpickler):
    ALLOWED = frozenset(
        {("_reconstruct", "numpy.core.multiarray"), ("_reconstruct", "numpy._core.multiarray"), ("ndarray", "numpy")}
        | {("dtype", "numpy"), ("_frombuffer", "numpy.core.numeric"), ("_frombuffer", "numpy._core.numeric")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (name, module) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no part of an array; the file is not to be trusted"
            )
        return super().find_class(module, name)
