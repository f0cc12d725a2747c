"""Releases: what is known of well-known series: what kind of number they are, and when their value becomes public."""

from __future__ import annotations

import re
from dataclasses import dataclass

CURRENCIES = "USD|EUR|GBP|JPY|CHF|AUD|CAD|NZD|CNY|CNH|HKD|SGD|SEK|NOK|DKK|MXN|ZAR|INR|BRL|KRW|TRY|PLN"
CURRENCY_PAIR = re.compile(rf"({CURRENCIES})({CURRENCIES})")


@dataclass(frozen=True, kw_only=True)
class Release:
    """A family of series.

    Attributes:
        names: regular expression of their names.
        kind: "level" (changes are differences) or "price" (> 0, changes are log returns).
        published: rule, see `SeriesConfig`, that holds unless the config gives one.
        at: time of day for the rule "after", in New York.
        positive: values are > 0 though it is a level.
        never: rules that would know the value before the world does.
        why: one sentence.
    """

    names: str
    kind: str
    published: str
    why: str
    at: str | None = None
    positive: bool = False
    never: tuple[str, ...] = ()


RELEASES = (
    Release(
        names=r"VIX\w*|VVIX|VXN|RVX|VXD",
        kind="level",
        published="same_close",
        positive=True,
        why="Cboe computes it through the day; its last print comes at 16:15, a quarter of an hour after the stocks' close",
    ),
    Release(
        names=r"DGS\d+(MO)?",
        kind="level",
        published="next_session",
        never=("same_close",),
        why="the Treasury posts a day's par yields in its evening, after the stocks' close, and the Fed's H.15 follows",
    ),
    Release(
        names=r"SOFR|EFFR|OBFR|DFF",
        kind="level",
        published="next_session",
        never=("same_close",),
        why="the New York Fed publishes a day's rate on the next morning",
    ),
    Release(
        names=rf"DXY|{CURRENCY_PAIR.pattern}",
        kind="price",
        published="after",
        at="17:00",
        why="the currency day ends at 17:00 in New York, after the stocks' close",
    ),
    Release(
        names=r"SPX|NDX|DJI|RUT|XL[BCEFIKPUVY]|XLRE",
        kind="price",
        published="same_close",
        why="it closes with the stocks",
    ),
)


def release_of(name: str) -> Release | None:
    """What is known of the series of that name; None of one that is not well known."""
    return next((release for release in RELEASES if re.fullmatch(release.names, name)), None)
