"""Folds: one history cut so that every test lies after what was learnt for it, or at least apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from envs.errors import ConfigError

Array = np.ndarray
Rows = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """How a history becomes folds: in calendar time (`train_years`, `test_months`) or in bars, not both.

    Attributes:
        scheme: "expanding" trains on all that came before, "rolling" on the last `train_years` or `train_bars` only.
        train_years: from the first day to the first test, and the length of a rolling window.
        test_months: of each test; the next fold is trained after so many months.
        train_bars, test_bars: the same, counted in rows.
        validation_months: last part of each fold's training window, kept for choosing its checkpoint; 0 for none.
        purge_bars: rows left out before each test, and before each validation: as many as a label or a forecast looks ahead.
        embargo_bars: rows left out after a test. A walk-forward never learns from what follows a test, so only 0 is taken;
            `combinatorial_folds` has it.
    """

    scheme: Literal["expanding", "rolling"] = "expanding"
    train_years: float | None = None
    test_months: int | None = None
    train_bars: int | None = None
    test_bars: int | None = None
    validation_months: int = 0
    purge_bars: int = 0
    embargo_bars: int = 0

    def __post_init__(self) -> None:
        given = {name for name in ("train_years", "test_months", "train_bars", "test_bars") if getattr(self, name) is not None}
        if given not in ({"train_years", "test_months"}, {"train_bars", "test_bars"}):
            raise ConfigError(
                f"{', '.join(sorted(given)) or 'no length'} given; expected train_years and test_months, or train_bars and "
                "test_bars. Yearly tests after five years: train_years: 5, test_months: 12."
            )
        for name in given:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected above 0.")
        if self.train_years is not None and not float(12 * self.train_years).is_integer():
            raise ConfigError(f"train_years = {self.train_years}; expected whole months, such as 2.5.")
        for name in ("validation_months", "purge_bars"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected at least 0.")
        if self.embargo_bars != 0:
            raise ConfigError(
                f"embargo_bars = {self.embargo_bars}; nothing is learnt from rows after a test here, so there is nothing to "
                "leave out. A gap before each test is purge_bars."
            )


@dataclass(frozen=True, kw_only=True)
class Fold:
    """First and last row of each part, both included.

    Attributes:
        number: from 0.
        train: what weights and scalers learn from.
        validation: after it, chooses the checkpoint; None for none.
        test: the first decision to the last valuation. The last row is the first decision of the next fold.
    """

    number: int
    train: Rows
    validation: Rows | None
    test: Rows

    @property
    def last_seen(self) -> int:
        """The last row that has any part in the fold's policy."""
        return (self.validation or self.train)[1]


def walk_folds(dates: Array, config: FoldsConfig, anchor: str | None = None) -> list[Fold]:
    """The folds of a walk-forward, oldest first; their tests join into one path without a gap.

    Row d, where a fold decides first, is the last valuation of the fold before. Its policy has seen rows ≤ d − 1 − purge.
    The last test ends with the last row and may be short. In bars the folds are those of skfolio's `WalkForward` on the T − 1
    rows on which a decision can be made; its calendar begins tests on the first of a month only, ours counts from `anchor`.

    Args:
        dates: (T,) closes of the whole walk.
        anchor: day that the calendar counts from, at or before the first row; the first row's day if not given.

    Raises:
        ConfigError: no test fits, or a window holds fewer than two rows.
    """
    days = pd.DatetimeIndex(np.asarray(dates)).normalize()
    starts = _test_starts(days, config, pd.Timestamp(anchor) if anchor is not None else days[0])
    if not starts:
        wanted = f"{config.train_years} years" if config.train_years is not None else f"{config.train_bars} bars"
        raise ConfigError(
            f"{days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d} ({len(days)} rows) has no test after {wanted} of training. "
            "Shorten the training window or give a longer history."
        )
    ends = [*starts[1:], len(days) - 1]
    return [_fold(number, days, config, test) for number, test in enumerate(zip(starts, ends, strict=True))]


def combinatorial_folds(
    bars: int, num_folds: int, num_test_folds: int, purge_bars: int = 0, embargo_bars: int = 0
) -> tuple[list[tuple[Array, list[Array]]], Array]:
    """Every choice of `num_test_folds` of `num_folds` blocks as test, the rest for training (skfolio's CombinatorialPurgedCV).

    Here training may lie after a test, so rows are left out on both sides of it.
    Source: López de Prado (2018), "Advances in Financial Machine Learning", §12.4.

    Args:
        purge_bars: rows left out before and after each test block.
        embargo_bars: further rows left out after each.

    Returns:
        For each of the C(num_folds, num_test_folds) splits its training rows and its test blocks; and (splits, num_test_folds)
        the number of the path that each test block belongs to.

    Raises:
        ConfigError: the sizes do not suit each other.
    """
    from skfolio.model_selection import CombinatorialPurgedCV  # takes seconds to import

    try:
        splitter = CombinatorialPurgedCV(num_folds, num_test_folds, purge_bars, embargo_bars)
        splits = [(train, list(tests)) for train, tests in splitter.split(np.zeros((bars, 1)))]
    except ValueError as error:
        raise ConfigError(
            f"combinatorial_folds of {bars} bars: num_folds = {num_folds}, num_test_folds = {num_test_folds}, "
            f"purge_bars = {purge_bars}, embargo_bars = {embargo_bars}: {error}"
        ) from error
    return splits, np.asarray(splitter.get_path_ids())


def _test_starts(days: pd.DatetimeIndex, config: FoldsConfig, anchor: pd.Timestamp) -> list[int]:
    """Rows of first decisions; none on the last row, whose outcome is unknown."""
    last = len(days) - 1
    if config.train_bars is not None:
        return list(range(config.train_bars + config.purge_bars, last, config.test_bars))
    start, starts = round(12 * config.train_years), []
    while (row := int(days.searchsorted(anchor + pd.DateOffset(months=start)))) < last:
        if not starts or row > starts[-1]:
            starts.append(row)
        start += config.test_months
    return starts


def _fold(number: int, days: pd.DatetimeIndex, config: FoldsConfig, test: Rows) -> Fold:
    last = test[0] - 1 - config.purge_bars
    first, validation = 0, None
    if config.scheme == "rolling":
        first = _rolling_start(days, config, test[0])
    train = (first, last)
    if config.validation_months:
        begins = int(days.searchsorted(days[test[0]] - pd.DateOffset(months=config.validation_months)))
        train, validation = (first, begins - 1 - config.purge_bars), (begins, last)
    fold = Fold(number=number, train=train, validation=validation, test=test)
    _check_rows(fold, days)
    return fold


def _rolling_start(days: pd.DatetimeIndex, config: FoldsConfig, decision: int) -> int:
    if config.train_bars is not None:
        return decision - config.purge_bars - config.train_bars
    return int(days.searchsorted(days[decision] - pd.DateOffset(months=round(12 * config.train_years))))


def _check_rows(fold: Fold, days: Sequence) -> None:
    for name in ("train", "validation"):
        rows = getattr(fold, name)
        if rows is not None and rows[1] - rows[0] < 1:
            raise ConfigError(
                f"fold {fold.number}, tested from {days[fold.test[0]]:%Y-%m-%d}, has {max(0, rows[1] - rows[0] + 1)} rows of "
                f"{name}; at least 2 are needed. Lengthen train_years or shorten validation_months and purge_bars."
            )
