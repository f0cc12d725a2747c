"""ContextConfig: which series from outside, known when, and which columns are made of them and of the market itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from envs.errors import ConfigError
from rlplatform.data.calendar import check_calendar
from rlplatform.data.request import check_choice
from rlplatform.features.context.reading import RULES, read_series
from rlplatform.features.context.releases import CURRENCY_PAIR, release_of
from rlplatform.features.context.schema import BY_NAME
from rlplatform.features.context.series import Series

KINDS = ("level", "price")
HERE = "features.context"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class SeriesConfig:
    """One series: a file, and when its values become known.

    | published | a value about day d is known |
    |---|---|
    | same_close | at the close of `calendar`'s session d |
    | next_session | at the close of the first session after d |
    | after | `lag_days` calendar days after d, at `at` o'clock in `zone` |
    | column | when the file's column `published_at` says; a date alone means the end of that day in `zone` |

    Without a rule a column `published_at` is taken, else what `releases.py` knows of the name (VIX at the same close, DGS10
    and SOFR a session later, currencies after 17:00 in New York). With both, a row that was published later than the rule
    claims is refused. Several rows of one date are vintages: each bar sees the newest that was public at its close.

    Attributes:
        path: the file, or a folder that holds `<name>.csv` or `.parquet`; `features.context.path` if not given.
        column: with the values; adj_close, close, value or the series' own name if not given.
        kind: "level" (changes are differences) or "price" (> 0, changes are log returns); level if the name is not well known.
        published: the rule of publication.
        lag_days, at: for "after"; the end of the day if no time of day is given.
        zone: of `at` and of `published_at`.
        calendar: exchange whose sessions the rules count.
        max_age_days: calendar days after which a value is too old to be shown; then the series counts as unknown.
    """

    path: str | None = None
    column: str | None = None
    kind: Literal["level", "price"] | None = None
    published: Literal["same_close", "next_session", "after", "column"] | None = None
    lag_days: int = 0
    at: str | None = None
    zone: str = "America/New_York"
    calendar: str = "XNYS"
    max_age_days: int = 10

    def __post_init__(self) -> None:
        where = f"{HERE}.series"
        if self.kind is not None:
            check_choice(f"{where} kind", self.kind, KINDS)
        if self.published is not None:
            check_choice(f"{where} published", self.published, RULES)
        check_calendar(f"{where} calendar", self.calendar)
        if self.lag_days < 0:
            raise ConfigError(f"{where} lag_days = {self.lag_days}; expected ≥ 0: nothing is known before it happened.")
        if self.max_age_days < 1:
            raise ConfigError(f"{where} max_age_days = {self.max_age_days}; expected at least 1 calendar day.")
        if self.lag_days > self.max_age_days:
            raise ConfigError(
                f"{where}: lag_days = {self.lag_days} is more than max_age_days = {self.max_age_days}: every value would be "
                "too old when it comes. Raise max_age_days."
            )
        if self.at is not None and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", self.at):
            raise ConfigError(f"{where} at = {self.at!r}; expected a time of day such as '16:15', in quotes.")
        if (self.lag_days or self.at) and self.published != "after":
            raise ConfigError(f"{where}: lag_days and at belong to published: after; found published: {self.published}.")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigError(f"{where} zone = {self.zone!r} is no time zone; expected one such as America/New_York.") from None

    def load(self, name: str, folder: str | None, since: np.datetime64 | None = None) -> Series:
        """The series, each value with the instant of its publication.

        Args:
            name: of the series.
            folder: where it is looked for if it has no path of its own.
            since: day before which values are of no use.

        Raises:
            ConfigError: no path, or no rule of publication, or one that knows a value before the world does.
            MarketDataError: the file is missing, or a row is wrong; the message names file and row.
        """
        return read_series(self, name, folder, since)


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """Columns of what surrounds the assets. `rlplatform features columns` lists them; docs/FEATURES.md explains them.

    Attributes:
        path: folder in which series without a path of their own are looked for.
        series: by name; columns ask for VIX, VIX3M, DGS2, DGS10, DXY and currency pairs such as EURUSD by these names. Any
            other name is a series of one's own.
        columns: to build, by their names without windows; all that the series and sectors at hand allow if empty.
        sectors: symbol → its sector. A sector that is the name of a series (kind price) is measured by that series, any
            other by the mean of its members.
        change_windows: bars over which series change.
        trend_windows: of the moving average that the dollar is held against.
        strength_windows: bars over which sectors and clusters are compared.
        clusters: most clusters of assets; never more than half the assets, rounded up.
        cluster_window: bars of returns whose correlations make the clusters.
        cluster_refit_bars: bars between two clusterings.
        risk_window: bars of the market's historical value at risk, and of shares of risk.
        risk_history: bars before that value at risk is ranked in its own past.
        target_volatility: of `target_exposure` [fraction a year].
        max_exposure: its cap [fraction of wealth].
    """

    path: str | None = None
    series: Mapping[str, SeriesConfig] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    sectors: Mapping[str, str] = field(default_factory=dict)
    change_windows: tuple[int, ...] = (5, 21)
    trend_windows: tuple[int, ...] = (63,)
    strength_windows: tuple[int, ...] = (21, 63)
    clusters: int = 4
    cluster_window: int = 252
    cluster_refit_bars: int = 21
    risk_window: int = 63
    risk_history: int = 252
    target_volatility: float = 0.10
    max_exposure: float = 2.0

    def __post_init__(self) -> None:
        for name in ("columns", "change_windows", "trend_windows", "strength_windows"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, (tuple, list)):
                raise ConfigError(f"{HERE}.{name} = {value!r}; expected a list, for instance [{value}].")
            object.__setattr__(self, name, tuple(value))
            if len(set(value)) < len(value):
                raise ConfigError(f"{HERE}.{name} = {list(value)} names one twice; name it once.")
        for name in ("change_windows", "trend_windows", "strength_windows"):
            for window in getattr(self, name):
                _check_bars(name, window, 1)
        for name in self.columns:
            check_choice(f"{HERE}.columns", name, BY_NAME)
        for name in ("clusters", "cluster_refit_bars", "risk_history"):
            _check_bars(name, getattr(self, name), 1)
        for name in ("cluster_window", "risk_window"):
            _check_bars(name, getattr(self, name), 20)
        for name in ("target_volatility", "max_exposure"):
            if not 0 < getattr(self, name) <= 10:
                raise ConfigError(f"{HERE}.{name} = {getattr(self, name)}; expected a fraction in (0, 10], for instance 0.1.")
        self._check_names()

    def _check_names(self) -> None:
        for name in self.series:
            if not NAME.fullmatch(str(name)):
                raise ConfigError(f"{HERE}.series names {name!r}; expected letters, digits, _ and -, such as VIX.")
        for sector in self.sectors.values():
            given = self.series.get(sector)
            if given is None:
                continue
            known = release_of(sector)
            if (given.kind or (known.kind if known else "level")) != "price":
                raise ConfigError(f"{HERE}.sectors measures by series {sector}, a level. Set series.{sector}.kind: price.")
        for name in self.columns:
            lacking = [each for each in BY_NAME[name].needs if each not in self.series]
            if lacking:
                raise ConfigError(
                    f"{HERE}.columns names {name}, which needs the series {', '.join(lacking)}; {HERE}.series has "
                    f"{', '.join(self.series) or 'none'}. Add {'it' if len(lacking) == 1 else 'them'}, or leave {name} out."
                )
            pairs_only = BY_NAME[name].each == "pair"
            if BY_NAME[name].each and not [n for n in self.series if not pairs_only or CURRENCY_PAIR.fullmatch(n)]:
                wanted = "a currency pair such as EURUSD" if pairs_only else "a series"
                raise ConfigError(f"{HERE}.columns names {name}, which needs {wanted} in {HERE}.series. Add one.")
            if BY_NAME[name].needs_sectors and not self.sectors:
                raise ConfigError(f"{HERE}.columns names {name}, which needs {HERE}.sectors: {{SYMBOL: sector}}. Add it.")


def _check_bars(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{HERE}.{name} = {value!r}; expected a whole number, at least {least}.")
