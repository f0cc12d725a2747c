"""Folds: one history cut so that every test lies after what was learnt for it, or at least apart from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from envs.errors import ConfigError

Array = np.ndarray
Rows = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FoldsConfig:
    """How a history becomes folds: in calendar time (`train_years`, `test_months`), in bars, or combinatorial.

    Attributes:
        scheme: "expanding" trains on all that came before, "rolling" on the last `train_years` or `train_bars` only;
            "combinatorial" on all that is not tested, what came after a test included: see `combinatorial_folds`.
        train_years: from the first day to the first test, and the length of a rolling window.
        test_months: of each test; the next fold is trained after so many months.
        train_bars, test_bars: the same, counted in rows.
        num_folds, num_test_folds: of the combinatorial scheme: blocks that history is cut into, and tested in each split.
        validation_months: last part of each fold's training window, kept for choosing its checkpoint; 0 for none.
        purge_bars: rows left out before each test, and before each validation: as many as a label or a forecast looks ahead.
            Combinatorial: on both sides of each test.
        embargo_bars: further rows left out after a test: as many as features look back. A walk-forward never learns from
            what follows a test, so there only 0 is taken.
    """

    scheme: Literal["expanding", "rolling", "combinatorial"] = "expanding"
    train_years: float | None = None
    test_months: int | None = None
    train_bars: int | None = None
    test_bars: int | None = None
    num_folds: int | None = None
    num_test_folds: int | None = None
    validation_months: int = 0
    purge_bars: int = 0
    embargo_bars: int = 0

    def __post_init__(self) -> None:
        self._check_lengths()
        if self.train_years is not None and not float(12 * self.train_years).is_integer():
            raise ConfigError(f"train_years = {self.train_years}; expected whole months, such as 2.5.")
        for name in ("validation_months", "purge_bars", "embargo_bars"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected at least 0.")
        if self.combinatorial and self.validation_months:
            raise ConfigError(
                f"validation_months = {self.validation_months}; scheme = 'combinatorial' keeps none: the last weights of each "
                "training are judged. Leave it out."
            )
        if self.embargo_bars != 0 and not self.combinatorial:
            raise ConfigError(
                f"embargo_bars = {self.embargo_bars}; nothing is learnt from rows after a test here, so there is nothing to "
                "leave out. A gap before each test is purge_bars."
            )

    @property
    def combinatorial(self) -> bool:
        return self.scheme == "combinatorial"

    def _check_lengths(self) -> None:
        names = ("train_years", "test_months", "train_bars", "test_bars", "num_folds", "num_test_folds")
        given = {name for name in names if getattr(self, name) is not None}
        found = ", ".join(sorted(given)) or "no length"
        if self.combinatorial and given != {"num_folds", "num_test_folds"}:
            raise ConfigError(
                f"{found} given; scheme = 'combinatorial' expects num_folds and num_test_folds. 15 trainings and 5 paths: "
                "num_folds: 6, num_test_folds: 2."
            )
        if not self.combinatorial and given not in ({"train_years", "test_months"}, {"train_bars", "test_bars"}):
            raise ConfigError(
                f"{found} given; expected train_years and test_months, or train_bars and test_bars. "
                "Yearly tests after five years: train_years: 5, test_months: 12."
            )
        for name in given:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected above 0.")


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

    def shifted(self, rows: int) -> Fold:
        """The same fold of a history that begins `rows` earlier."""
        validation = None if self.validation is None else _shifted(self.validation, rows)
        return replace(self, train=_shifted(self.train, rows), validation=validation, test=_shifted(self.test, rows))


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


@dataclass(frozen=True, kw_only=True)
class CombinatorialFold:
    """One split: what it learns from, and its tests, each a part of some path.

    Attributes:
        number: from 0.
        train: stretches of rows, first and last included; a training never goes over the gap between two of them.
        tests: first decision and last valuation of each.
        paths: (tests,) number of the path that each belongs to.
    """

    number: int
    train: tuple[Rows, ...]
    tests: tuple[Rows, ...]
    paths: tuple[int, ...]

    def shifted(self, rows: int) -> CombinatorialFold:
        """The same split of a history that begins `rows` earlier."""
        train, tests = (tuple(_shifted(part, rows) for part in parts) for parts in (self.train, self.tests))
        return replace(self, train=train, tests=tests)


def combinatorial_folds(bars: int, config: FoldsConfig) -> list[CombinatorialFold]:
    """Every choice of `num_test_folds` of `num_folds` blocks as tests, the rest for training (skfolio's CombinatorialPurgedCV).

    There are C(num_folds, num_test_folds) splits; their tests make up C(num_folds − 1, num_test_folds − 1) paths over the
    whole history. Training may lie after a test here, so rows are left out on both sides of it: a path is out of sample at
    every bar, but not what could have been traded at the time.
    Source: López de Prado (2018), "Advances in Financial Machine Learning", §12.4.

    Args:
        bars: T rows; decisions fall on all but the last. A stretch of training whose last decision is row d ends with row d:
            what a decision next to a test came to is the test's.

    Raises:
        ConfigError: the sizes do not suit each other, or a split has nothing to learn from.
    """
    from skfolio.model_selection import CombinatorialPurgedCV  # takes seconds to import

    sizes = config.num_folds, config.num_test_folds, config.purge_bars, config.embargo_bars
    try:
        splitter = CombinatorialPurgedCV(*sizes)
        splits = list(splitter.split(np.zeros((bars - 1, 1))))
    except ValueError as error:
        raise ConfigError(
            f"{bars} rows, num_folds = {sizes[0]}, num_test_folds = {sizes[1]}, purge_bars = {sizes[2]}, "
            f"embargo_bars = {sizes[3]}: {error}"
        ) from error
    folds = []
    for number, ((train, tests), paths) in enumerate(zip(splits, splitter.get_path_ids(), strict=True)):
        blocks = tuple((int(test[0]), int(test[-1]) + 1) for test in tests)
        own = np.setdiff1d(train, [test[1] for test in blocks])  # a test's last valuation is its own
        if not (stretches := _stretches(own)):
            raise ConfigError(
                f"split {number} of {len(splits)}: purge_bars = {sizes[2]} and embargo_bars = {sizes[3]} leave nothing of "
                f"{bars} rows in {sizes[0]} blocks to learn from. Cut history into fewer blocks, or leave out less."
            )
        folds.append(CombinatorialFold(number=number, train=stretches, tests=blocks, paths=tuple(map(int, paths))))
    return folds


def combinatorial_paths(folds: Sequence[CombinatorialFold]) -> list[list[Fold]]:
    """Each path as folds in order of time; `number` is that of the split that was trained for the fold's test."""
    parts = sorted((path, test, fold.number) for fold in folds for path, test in zip(fold.paths, fold.tests, strict=True))
    paths: dict[int, list[Fold]] = {}
    for path, test, number in parts:
        train = folds[number].train
        paths.setdefault(path, []).append(Fold(number=number, train=(train[0][0], train[-1][1]), validation=None, test=test))
    return list(paths.values())


def _shifted(part: Rows, rows: int) -> Rows:
    return part[0] + rows, part[1] + rows


def _stretches(rows: Array) -> tuple[Rows, ...]:
    """Rows without a gap, first and last of each; those of one row allow no decision with an outcome."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    return tuple((int(part[0]), int(part[-1])) for part in parts if len(part) > 1)


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
