"""Reading a series: its file, and the instant at which each of its values became known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from envs.errors import ConfigError, MarketDataError
from rlplatform.features.context.publication import after, in_utc, next_session, same_close
from rlplatform.features.context.releases import Release, release_of
from rlplatform.features.context.series import PUBLISHED, Series, Table, find_file, read_table, refuse_twice

if TYPE_CHECKING:
    from rlplatform.features.context.config import SeriesConfig

Array = np.ndarray

RULES = ("same_close", "next_session", "after", "column")
END_OF_DAY = "23:59"


def read_series(config: SeriesConfig, name: str, folder: str | None, since: np.datetime64 | None) -> Series:
    """The series, each value with the instant of its publication. Arguments and errors: see `SeriesConfig.load`."""
    known, where = release_of(name), f"features.context.series.{name}"
    path = config.path or folder
    if path is None:
        raise ConfigError(f"{where} has no path, and neither has features.context. Give one of them a path.")
    kind = config.kind or (known.kind if known else "level")
    file = find_file(name, path)
    table = read_table(file, name, config.column, positive=kind == "price" or (known is not None and known.positive))
    rule = _rule(config, table, known, where)
    table = _since(table, since)
    if len(table.days) == 0:
        raise MarketDataError(f"{table.file} has no value on or after {since}, when the prices begin. Leave {name} out.")
    published = _instants(config, table, rule, known)
    if table.published_at is not None and rule != "column":
        _refuse_late(table, published, _stated(table, config.zone), f"{where}.published = {rule}")
    refuse_twice(table, published)
    return Series(
        name=name,
        days=table.days,
        values=table.values,
        published=published,
        kind=kind,
        max_age_days=config.max_age_days,
        origin=f"{path if Path(path) == file else Path(path) / file.name}, published {rule}",
    )


def _rule(config: SeriesConfig, table: Table, known: Release | None, where: str) -> str:
    """What the config says, else the file's own column, else what is known of the name."""
    if config.published == "column" and table.published_at is None:
        raise MarketDataError(f"{table.file} has no column {PUBLISHED}, which {where}.published = column needs. Add it.")
    if known is not None and config.published in known.never:
        raise ConfigError(
            f"{where}.published = {config.published} is too early: {known.why}. Expected {known.published}, or a later rule."
        )
    if config.published is not None:
        return config.published
    if table.published_at is not None:
        return "column"
    if known is None:
        raise ConfigError(
            f"{where}.published is missing, and {table.file} has no column {PUBLISHED}; expected one of "
            f"{', '.join(RULES[:3])}: when does the world learn a day's value?"
        )
    return known.published


def _instants(config: SeriesConfig, table: Table, rule: str, known: Release | None) -> Array:
    if rule == "same_close":
        return same_close(table.days, config.calendar)
    if rule == "next_session":
        return next_session(table.days, config.calendar)
    if rule == "column":
        return _stated(table, config.zone)
    by_name = known.at if known is not None and config.published is None else None
    return after(table.days, config.lag_days, config.at or by_name or END_OF_DAY, config.zone)


def _since(table: Table, day: np.datetime64 | None) -> Table:
    if day is None:
        return table
    kept = table.days >= day
    published = None if table.published_at is None else table.published_at[kept]
    return replace(table, rows=table.rows[kept], days=table.days[kept], values=table.values[kept], published_at=published)


def _stated(table: Table, zone: str) -> Array:
    """(R,) UTC instants of the column `published_at`, none before the day that its value is about."""
    local = _local_times(table, zone)
    early = local.normalize().to_numpy().astype("datetime64[D]") < table.days
    if early.any():
        i = int(np.argmax(early))
        raise MarketDataError(
            f"{table.file} row {table.rows[i]}: {PUBLISHED} {table.published_at.iloc[i]} is before its own date "
            f"{table.days[i]}; expected that day or later ({early.sum()} such row(s)). Correct the row."
        )
    return in_utc(local, zone)


def _local_times(table: Table, zone: str) -> pd.DatetimeIndex:
    """`published_at` as wall-clock times of `zone`; a date alone is the end of its day."""
    times = [_local_time(value, zone) for value in table.published_at]
    for row, given, time in zip(table.rows, table.published_at, times, strict=True):
        if time is None:
            raise MarketDataError(
                f"{table.file} row {row}: {PUBLISHED} {given!r}; expected a date such as 2020-03-16 or a time such as "
                "2020-03-16 16:15. Correct the row."
            )
    return pd.DatetimeIndex(times)


def _local_time(value: object, zone: str) -> pd.Timestamp | None:
    time = pd.to_datetime(value, errors="coerce")
    if pd.isna(time):
        return None
    if time.tzinfo is not None:
        return time.tz_convert(zone).tz_localize(None)
    return time + pd.Timedelta(hours=23, minutes=59) if time == time.normalize() else time


def _refuse_late(table: Table, claimed: Array, stated: Array, rule: str) -> None:
    """A rule that shows a value before its own file says that it was published."""
    late = stated > claimed
    if late.any():
        i = int(np.argmax(late))
        raise MarketDataError(
            f"{table.file} row {table.rows[i]}: the value of {table.days[i]} was published {_utc(stated[i])}, but {rule} would "
            f"show it at {_utc(claimed[i])}; expected no earlier ({late.sum()} such row(s)). Set published: column."
        )


def _utc(instant: np.datetime64) -> str:
    return f"{str(instant)[:16].replace('T', ' ')} UTC"
