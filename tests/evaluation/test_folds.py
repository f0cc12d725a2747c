"""Folds: tests join without a gap, and nothing that a fold learns from lies in its test or after it."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.model_selection import WalkForward

from envs.errors import ConfigError
from rlplatform.evaluation.folds import FoldsConfig, combinatorial_folds, combinatorial_paths, walk_folds


def days(first="2000-01-03", last="2003-03-14"):
    return pd.bdate_range(first, last).to_numpy()


def test_of_ten_rows_the_eighth_ends_one_test_and_begins_the_next():
    folds = walk_folds(days()[:10], FoldsConfig(train_bars=4, test_bars=3))
    assert [(fold.train, fold.test) for fold in folds] == [
        ((0, 3), (4, 7)),
        ((0, 6), (7, 9)),
    ]


def test_a_rolling_window_keeps_its_length():
    folds = walk_folds(days()[:10], FoldsConfig(scheme="rolling", train_bars=4, test_bars=3))
    assert [fold.train for fold in folds] == [(0, 3), (3, 6)]


def test_two_purged_rows_lie_before_each_test():
    folds = walk_folds(days()[:12], FoldsConfig(scheme="rolling", train_bars=4, test_bars=3, purge_bars=2))
    assert [(fold.train, fold.test[0]) for fold in folds] == [((0, 3), 6), ((3, 6), 9)]


def test_years_count_from_the_first_day_that_was_asked_for_and_not_from_the_first_of_a_month():
    dates = days("2000-01-03", "2003-02-28")
    folds = walk_folds(dates, FoldsConfig(train_years=1.5, test_months=12, validation_months=3), anchor="2000-01-01")
    starts = [str(dates[fold.test[0]])[:10] for fold in folds]
    assert starts == ["2001-07-02", "2002-07-01"]  # 1 July 2001 was a Sunday
    assert str(dates[folds[0].validation[0]])[:10] == "2001-04-02"
    assert folds[0].validation[1] == folds[0].test[0] - 1
    assert folds[0].train == (0, folds[0].validation[0] - 1)


@given(
    bars=st.integers(20, 300), train=st.integers(2, 60), test=st.integers(1, 50), purge=st.integers(0, 8), rolling=st.booleans()
)
@settings(max_examples=80, deadline=None)
def test_in_bars_the_folds_are_those_of_skfolio_on_the_rows_that_allow_a_decision(bars, train, test, purge, rolling):
    scheme = "rolling" if rolling else "expanding"
    config = FoldsConfig(scheme=scheme, train_bars=train, test_bars=test, purge_bars=purge)
    if train + purge >= bars - 1:
        with pytest.raises(ConfigError, match="has no test after"):
            walk_folds(days()[:bars], config)
        return
    folds = walk_folds(days()[:bars], config)
    reference = WalkForward(test, train, purged_size=purge, expand_train=not rolling, reduce_test=True)
    expected = [((a[0], a[-1]), (b[0], b[-1] + 1)) for a, b in reference.split(np.zeros((bars - 1, 1)))]
    assert [(fold.train, fold.test) for fold in folds] == expected


@given(years=st.sampled_from([0.5, 1, 1.25]), months=st.integers(1, 14), purge=st.integers(0, 9), validation=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("scheme", ["expanding", "rolling"])
def test_tests_join_without_a_gap_and_training_ends_a_purge_before_them(scheme, years, months, purge, validation):
    dates = days()
    config = FoldsConfig(scheme=scheme, train_years=years, test_months=months, purge_bars=purge, validation_months=validation)
    folds = walk_folds(dates, config)
    assert [fold.test[0] for fold in folds[1:]] == [fold.test[1] for fold in folds[:-1]]
    assert folds[-1].test[1] == len(dates) - 1
    for fold in folds:
        assert fold.last_seen == fold.test[0] - 1 - purge
        assert fold.test[1] > fold.test[0]
        if validation:
            assert fold.validation[0] - fold.train[1] == 1 + purge


def test_one_more_row_moves_no_earlier_fold():
    config = FoldsConfig(train_years=1, test_months=6)
    shorter, longer = walk_folds(days()[:-50], config), walk_folds(days(), config)
    assert longer[: len(shorter) - 1] == shorter[:-1]


def combinatorial(num_folds, num_test_folds, purge_bars=0, embargo_bars=0):
    sizes = {"num_folds": num_folds, "num_test_folds": num_test_folds, "purge_bars": purge_bars, "embargo_bars": embargo_bars}
    return FoldsConfig(scheme="combinatorial", **sizes)


def test_six_blocks_two_of_them_tests_make_fifteen_splits_and_five_paths():
    folds = combinatorial_folds(61, combinatorial(6, 2, purge_bars=2, embargo_bars=3))
    assert [fold.number for fold in folds] == list(range(15))
    assert len(combinatorial_paths(folds)) == 5
    last, first = folds[-1], folds[0]
    assert last.tests == ((40, 50), (50, 60))  # ten decisions each, and the last one's outcome
    assert last.train == ((0, 37),)  # two purged rows before row 40
    assert first.tests == ((0, 10), (10, 20))
    assert first.train == ((25, 59),)  # two purged and three embargoed rows after decision 19
    between = next(fold for fold in folds if fold.tests == ((10, 20), (40, 50)))
    assert between.train == ((0, 7), (25, 37), (55, 59))


def test_without_a_purge_the_outcome_of_a_test_s_last_decision_still_is_no_training_row():
    fold = combinatorial_folds(21, combinatorial(4, 2))[0]
    assert (fold.tests, fold.train) == (((0, 5), (5, 10)), ((11, 19),))


@given(
    bars=st.integers(40, 200),
    blocks=st.integers(3, 7),
    tests=st.integers(2, 3),
    purge=st.integers(0, 4),
    embargo=st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_every_path_decides_once_at_every_bar_by_a_split_that_kept_away_from_it(bars, blocks, tests, purge, embargo):
    if tests >= blocks:
        return
    try:
        folds = combinatorial_folds(bars, combinatorial(blocks, tests, purge, embargo))
    except ConfigError:
        assert bars - 1 < blocks * (3 + 2 * purge + embargo)  # nothing left to learn from
        return
    assert len(folds) == math.comb(blocks, tests)
    paths = combinatorial_paths(folds)
    assert len(paths) == math.comb(blocks - 1, tests - 1)
    for path in paths:
        assert [fold.test[0] for fold in path] == [0, *(fold.test[1] for fold in path[:-1])]
        assert path[-1].test[1] == bars - 1
    for fold in folds:
        for first, last in fold.tests:
            for a, b in fold.train:
                assert b < first - purge or a > last - 1 + purge + embargo
                assert b < first or a > last
    assert {(fold.number, fold.test) for path in paths for fold in path} == {(f.number, t) for f in folds for t in f.tests}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no length given; expected train_years and test_months"),
        ({"train_years": 1, "test_bars": 3}, "test_bars, train_years given"),
        ({"train_bars": 0, "test_bars": 3}, "train_bars = 0; expected above 0"),
        ({"train_years": 0.3, "test_months": 3}, "expected whole months"),
        ({"train_bars": 4, "test_bars": 3, "purge_bars": -1}, "purge_bars = -1"),
        ({"scheme": "combinatorial", "train_bars": 4, "test_bars": 3}, "expects num_folds and num_test_folds"),
        ({"train_bars": 4, "test_bars": 3, "num_folds": 4}, "num_folds, test_bars, train_bars given"),
        (
            {"scheme": "combinatorial", "num_folds": 4, "num_test_folds": 2, "validation_months": 3},
            "validation_months = 3; scheme = 'combinatorial' keeps none",
        ),
        ({"train_bars": 4, "test_bars": 3, "embargo_bars": 2}, "nothing is learnt from rows after a test here"),
    ],
)
def test_a_mistake_says_what_was_expected(settings, message):
    with pytest.raises(ConfigError, match=message):
        FoldsConfig(**settings)


def test_a_window_too_short_for_its_validation_says_so():
    with pytest.raises(ConfigError, match=r"fold 0, tested from 2000-07-03, has 0 rows of train"):
        walk_folds(days(), FoldsConfig(train_years=0.5, test_months=6, validation_months=7))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (combinatorial(2, 5), "num_folds = 2, num_test_folds = 5"),
        (combinatorial(6, 2, purge_bars=30), "must be smaller than the size of a train fold"),
        (combinatorial(3, 2, purge_bars=9, embargo_bars=3), "split 1 of 3: purge_bars = 9 and embargo_bars = 3 leave nothing"),
    ],
)
def test_sizes_that_do_not_suit_each_other_are_named(config, message):
    with pytest.raises(ConfigError, match=message):
        combinatorial_folds(60, config)
