"""Publication: the instant at which a value becomes known, and the instant at which a bar closes. Both in UTC."""

from __future__ import annotations

from functools import lru_cache

import exchange_calendars
import numpy as np
import pandas as pd

from envs.errors import ConfigError
from rlplatform.data.prices import Prices

Array = np.ndarray

DAY = np.timedelta64(1, "D")


def same_close(days: Array, calendar: str) -> Array:
    """(R,) UTC close of `calendar`'s session of each day; of the next session where the day is none."""
    sessions, closes = _closes_around(calendar, days)
    return closes[np.searchsorted(sessions, days, side="left")]


def next_session(days: Array, calendar: str) -> Array:
    """(R,) UTC close of `calendar`'s first session after each day."""
    sessions, closes = _closes_around(calendar, days)
    return closes[np.searchsorted(sessions, days, side="right")]


def after(days: Array, lag_days: int, at: str, zone: str) -> Array:
    """(R,) UTC instant `lag_days` calendar days after each day, at `at` o'clock in `zone`.

    An hour that the clocks skip or repeat counts as the later reading.
    """
    hour, minute = map(int, at.split(":"))
    local = pd.DatetimeIndex(days.astype("datetime64[ns]")) + pd.Timedelta(days=lag_days, hours=hour, minutes=minute)
    return in_utc(local, zone)


def in_utc(local: pd.DatetimeIndex, zone: str) -> Array:
    """(R,) wall-clock times of `zone` as UTC; an hour that the clocks skip or repeat counts as the later reading."""
    repeated = np.zeros(len(local), bool)  # standard time, which comes second
    there = local.tz_localize(zone, ambiguous=repeated, nonexistent="shift_forward")
    return there.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")


def bar_closes(prices: Prices) -> Array:
    """(T,) UTC instant at which each bar closes: until then, and no longer, its row may know things.

    - A bar a day on an exchange's calendar closes with the session (13:00 in New York on a half day).
    - A bar a day without a calendar closes when its UTC day ends, as those of a market that never closes do.
    - A bar inside a day closes at its own time of day. A file does not say whose; of the exchange's zone and UTC the earlier
      one is taken, so that a row may miss what is some hours old, and never knows what is yet to come.
    """
    dates, calendar = prices.dates, prices.calendar
    days = dates.astype("datetime64[D]")
    if (days != dates).any():
        if calendar is None:
            return dates
        zone = str(exchange_calendars.get_calendar(calendar).tz)
        return np.minimum(in_utc(pd.DatetimeIndex(dates), zone), dates)
    if calendar is None:
        return (days + DAY).astype("datetime64[ns]")
    sessions, closes = _closes_around(calendar, days)
    return closes[np.searchsorted(sessions, days, side="right") - 1]


def _closes_around(calendar: str, days: Array) -> tuple[Array, Array]:
    """Sessions (S,) and their UTC closes (S,), from before the first day to after the last."""
    years = days.astype("datetime64[Y]").astype(int) + 1970
    return _closes(calendar, int(years.min()), int(years.max()))


@lru_cache(maxsize=16)
def _closes(name: str, first_year: int, last_year: int) -> tuple[Array, Array]:
    start, end = pd.Timestamp(first_year - 1, 12, 1), pd.Timestamp(last_year + 1, 1, 31)
    try:
        calendar = exchange_calendars.get_calendar(name, start=start, end=end)
    except ValueError as error:
        raise ConfigError(
            f"calendar {name!r} does not cover {first_year} to {last_year}: {error} Choose another calendar or later prices."
        ) from error
    closes = calendar.closes
    return (
        closes.index.to_numpy().astype("datetime64[D]"),
        closes.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[ns]"),
    )
