"""Shards: the forecasts of one forecaster for one symbol in one year, as a Parquet file that knows when it is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs.errors import PlatformError
from rlplatform.features.forecasts.forecast import LEVELS
from rlplatform.features.forecasts.schema import BY_NAME
from rlplatform.files import replaced_file

Array = np.ndarray

CHECKSUM = b"content_sha256"


class ShardDamagedError(PlatformError):
    """A file of the feature store is not what was written."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shard:
    """Forecasts of one symbol, row by row.

    Attributes:
        dates: (R,) datetime64[ns] closes at which they were made, increasing.
        inputs: (R,) uint64, hash of all dates and returns up to that close: whether a row still holds is seen from it alone.
        quantiles: (R, H, K) float32 log returns; NaN where there is none.
        reasons: (R,) text, why not.
    """

    dates: Array
    inputs: Array
    quantiles: Array
    reasons: Array

    def rows(self, wanted: Array) -> Shard:
        """Only these."""
        return Shard(**{name: getattr(self, name)[wanted] for name in ("dates", "inputs", "quantiles", "reasons")})

    def merged(self, other: Shard) -> Shard:
        """Both, by date; no date may be in both."""
        order = np.argsort(np.concatenate([self.dates, other.dates]), kind="stable")
        names = ("dates", "inputs", "quantiles", "reasons")
        return Shard(**{name: np.concatenate([getattr(self, name), getattr(other, name)])[order] for name in names})


def input_hashes(dates: Array, log_returns: Array) -> Array:
    """(T,) uint64: row t is the SHA-256 of dates and returns (T,) of rows ≤ t, its first 8 bytes."""
    rows = np.column_stack([dates.astype("datetime64[ns]").view(np.int64), np.ascontiguousarray(log_returns).view(np.int64)])
    digest, hashes = hashlib.sha256(), np.empty(len(rows), np.uint64)
    for t, row in enumerate(rows):
        digest.update(row.tobytes())
        hashes[t] = int.from_bytes(digest.copy().digest()[:8], "little")
    return hashes


def write_shard(path: Path, shard: Shard, horizons: tuple[int, ...]) -> None:
    """Write it whole, with its checksum: one row for each (day, horizon)."""
    repeated = {"date": shard.dates, "input": shard.inputs, "reason": shard.reasons.astype(str)}
    columns: dict[str, Any] = {name: np.repeat(values, len(horizons)) for name, values in repeated.items()}
    columns["horizon"] = np.tile(np.asarray(horizons, np.int32), len(shard.dates))
    flat = shard.quantiles.reshape(-1, len(LEVELS))
    columns |= {_level_name(level): np.ascontiguousarray(flat[:, k]) for k, level in enumerate(LEVELS)}
    write_checked(path, pa.table(columns, schema=_quantile_schema()))


def read_shard(path: Path, horizons: tuple[int, ...]) -> Shard | None:
    """The shard at `path`; None if there is none.

    Raises:
        ShardDamagedError: it cannot be read, or its checksum is another.
    """
    table = read_checked(path)
    if table is None:
        return None
    each = len(horizons)
    column = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    quantiles = np.stack([column[_level_name(level)] for level in LEVELS], axis=-1)
    return Shard(
        dates=column["date"][::each].astype("datetime64[ns]"),
        inputs=column["input"][::each].astype(np.uint64),
        quantiles=quantiles.reshape(-1, each, len(LEVELS)).astype(np.float32),
        reasons=column["reason"][::each].astype(object),
    )


def _level_name(level: float) -> str:
    return f"q{round(100 * level):02d}"


def _quantile_schema() -> pa.Schema:
    def described(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
        return pa.field(name, kind, metadata={"unit": unit, "description": description})

    return pa.schema(
        [
            described("date", pa.timestamp("ns"), "close", "when the forecast was made"),
            described("input", pa.uint64(), "−", "hash of dates and returns up to that close"),
            described("reason", pa.string(), "text", "why there is no forecast"),
            described("horizon", pa.int32(), "bars", "return from the close to so many bars later"),
            *(
                described(_level_name(level), pa.float32(), "natural log", f"quantile {level:.0%} of that log return")
                for level in LEVELS
            ),
        ]
    )


def statistics_table(dates: Array, horizons: tuple[int, ...], columns: Mapping[str, Array]) -> pa.Table:
    """(R, H) statistics of one symbol as a table: one row for each (day, horizon), units in the schema."""
    statistics = [BY_NAME[name] for name in columns]
    kinds = {"number": pa.float32(), "flag": pa.int8(), "text": pa.dictionary(pa.int32(), pa.string())}
    fields = [
        pa.field("date", pa.timestamp("ns"), metadata={"unit": "close"}),
        pa.field("horizon", pa.int32(), metadata={"unit": "bars"}),
        *(pa.field(s.name, kinds[s.kind], metadata={"unit": s.unit, "description": s.description}) for s in statistics),
    ]
    data = [pa.array(np.repeat(dates, len(horizons)), pa.timestamp("ns"))]
    data.append(pa.array(np.tile(np.asarray(horizons, np.int32), len(dates))))
    for statistic in statistics:
        values = columns[statistic.name].reshape(-1)
        if statistic.kind == "text":
            data.append(pa.array(values.astype(str)).dictionary_encode())
        else:
            data.append(pa.array(values.astype(np.int8 if statistic.kind == "flag" else np.float32)))
    return pa.Table.from_arrays(data, schema=pa.schema(fields))


def write_checked(path: Path, table: pa.Table) -> None:
    """Write a table in one step, its checksum in the metadata."""
    metadata = (table.schema.metadata or {}) | {CHECKSUM: _content_sha256(table).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_checked(path: Path) -> pa.Table | None:
    """The table at `path`; None if there is none.

    Raises:
        ShardDamagedError: it cannot be read, or its checksum is another.
    """
    if not path.exists():
        return None
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ShardDamagedError(f"{path} cannot be read: {error}. `rlplatform features build` makes it anew.") from None
    if (table.schema.metadata or {}).get(CHECKSUM, b"").decode() != _content_sha256(table):
        raise ShardDamagedError(f"{path} is not what was written (checksum). `rlplatform features build` makes it anew.")
    return table


def replace_if_changed(path: Path, table: pa.Table) -> bool:
    """Write a table where another one, a damaged one or none lies; whether it was written."""
    try:
        before = read_checked(path)
    except ShardDamagedError:
        before = None
    if before is not None and _content_sha256(before) == _content_sha256(table):
        return False
    write_checked(path, table)
    return True


def _content_sha256(table: pa.Table) -> str:
    """Of the names and values of all columns, however they are stored."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(name.encode())
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
            digest.update("\x1f".join(map(str, column.to_pylist())).encode())
        else:
            digest.update(column.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """What is missing of one shard.

    Attributes:
        leaf: the forecaster.
        symbol, year: which shard.
        rows: rows of the prices to forecast at.
        why: "absent", "new rows", "changed data" or "damaged".
    """

    leaf: str
    symbol: str
    year: int
    rows: tuple[int, ...] = field(repr=False)
    why: str
