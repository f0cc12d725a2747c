"""Sessions: the days on which an exchange trades."""

from __future__ import annotations

from dataclasses import dataclass

import exchange_calendars
import numpy as np
import pandas as pd

from envs.errors import ConfigError
from rlplatform.data.prices import show_date
from rlplatform.data.request import did_you_mean

Array = np.ndarray


@dataclass(frozen=True)
class SessionCheck:
    """Dates of one symbol held against a calendar, by day; bars inside a day count as that day.

    Attributes:
        missing: (M,) datetime64[D] sessions inside the span without a row.
        extra: (E,) datetime64[D] days with a row that are no sessions.
    """

    missing: Array
    extra: Array


def check_calendar(where: str, name: str | None) -> None:
    """Refuse a calendar that exchange_calendars does not know; None turns the check off."""
    known = exchange_calendars.get_calendar_names()
    if name is not None and name not in known:
        raise ConfigError(
            f"{where} = {name!r} is not an exchange calendar; expected a name such as XNYS or XLON, or null for markets that "
            f"trade every day.{did_you_mean(name, known)}"
        )


def sessions(name: str, first: Array, last: Array) -> Array:
    """(S,) datetime64[D]: the sessions of calendar `name` from day `first` to day `last`, both included.

    Raises:
        ConfigError: the calendar is not known or does not reach back to `first`.
    """
    check_calendar("data.calendar", name)
    margin = pd.Timedelta(days=14)  # a calendar may not begin and end inside one holiday
    try:
        calendar = exchange_calendars.get_calendar(name, start=pd.Timestamp(first) - margin, end=pd.Timestamp(last) + margin)
    except ValueError as error:
        raise ConfigError(f"data.calendar = {name!r} does not cover {first} to {last}: {error} Set calendar: null.") from error
    days = calendar.sessions.to_numpy().astype("datetime64[D]")
    return days[(days >= first) & (days <= last)]


def check_sessions(dates: Array, name: str) -> SessionCheck:
    """Sessions that sorted `dates` lack inside their own span, and days they have that are no sessions."""
    days = np.unique(np.asarray(dates).astype("datetime64[D]"))
    expected = sessions(name, days[0], days[-1])
    return SessionCheck(missing=np.setdiff1d(expected, days), extra=np.setdiff1d(days, expected))


def list_dates(dates: Array, most: int = 5) -> str:
    """'2020-01-02, 2020-01-03 … (7 in all)'."""
    shown = ", ".join(show_date(date) for date in dates[:most])
    return shown if len(dates) <= most else f"{shown} … ({len(dates)} in all)"
