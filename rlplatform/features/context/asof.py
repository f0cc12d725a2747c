"""As-of join: what each bar knew of each series at its close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlplatform.data.prices import Prices
from rlplatform.features.context.config import ContextConfig
from rlplatform.features.context.publication import bar_closes
from rlplatform.features.context.series import Series

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignedSeries:
    """Series as T bars knew them. Row t rests on values that were public at the close of bar t.

    Attributes:
        values: name → (T,) float64; NaN while nothing is known, or nothing younger than the series' `max_age_days`.
        steps: name → (T,) change since the bar before, a difference or of prices a log return; NaN where either is unknown.
        ages: name → (T,) calendar days from the value's date to the bar's; NaN while unknown.
    """

    values: Mapping[str, Array]
    steps: Mapping[str, Array]
    ages: Mapping[str, Array]

    def known(self, name: str) -> Array:
        """(T,) bool."""
        return np.isfinite(self.values[name])

    def redrawn(self, rows: Array) -> AlignedSeries:
        """The series of a path whose bars were drawn from these: values and steps of the drawn rows.

        Args:
            rows: (T',) row that each bar was drawn from; −1 where a bar was invented, which knows nothing.
        """
        drawn, invented = np.maximum(rows, 0), rows < 0

        def take(columns: Mapping[str, Array]) -> dict[str, Array]:
            return {name: np.where(invented, np.nan, column[drawn]) for name, column in columns.items()}

        return AlignedSeries(values=take(self.values), steps=take(self.steps), ages=take(self.ages))


def load_series(config: ContextConfig, prices: Prices) -> dict[str, Series]:
    """Every series of a config that may be shown beside these prices.

    Raises:
        ConfigError: no path or rule of publication.
        MarketDataError: a file is missing or a row wrong.
    """
    first = prices.dates[0].astype("datetime64[D]")
    return {
        name: source.load(name, config.path, since=first - np.timedelta64(source.max_age_days, "D"))
        for name, source in config.series.items()
    }


def align(series: Mapping[str, Series], prices: Prices) -> AlignedSeries:
    """Join by time of publication: at bar t the newest value, in its newest vintage, with published ≤ close of t."""
    closes, days = bar_closes(prices), prices.dates.astype("datetime64[D]")
    values, steps, ages = {}, {}, {}
    for name, each in series.items():
        values[name], ages[name] = as_of(each, closes, days)
        steps[name] = _steps(values[name], each.kind)
    return AlignedSeries(values=values, steps=steps, ages=ages)


def as_of(series: Series, closes: Array, days: Array) -> tuple[Array, Array]:
    """Value (T,) and age (T,) [calendar days] known at each of `closes`; NaN while unknown or too old.

    Args:
        closes: (T,) UTC instants, sorted.
        days: (T,) datetime64[D] of the bars.
    """
    order = np.lexsort((series.days, series.published))
    published, about = series.published[order], series.days[order].astype("int64")
    newest = about >= np.maximum.accumulate(about)  # an older day's late revision does not displace a newer day
    shown = order[np.maximum.accumulate(np.where(newest, np.arange(len(order)), 0))]
    last = np.searchsorted(published, closes, side="right") - 1
    row = shown[np.maximum(last, 0)]
    age = (days - series.days[row]).astype("timedelta64[D]").astype(np.float64)
    known = (last >= 0) & (age <= series.max_age_days)
    return np.where(known, series.values[row], np.nan), np.where(known, age, np.nan)


def _steps(values: Array, kind: str) -> Array:
    levels = np.log(values) if kind == "price" else values
    return np.diff(levels, prepend=np.nan)
