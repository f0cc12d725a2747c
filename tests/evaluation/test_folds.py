"""Folds: tests join without a gap, and nothing that a fold learns from lies in its test or after it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.model_selection import WalkForward

from envs.errors import ConfigError
from rlplatform.evaluation.folds import FoldsConfig, combinatorial_folds, walk_folds


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


def test_six_blocks_two_of_them_tests_make_fifteen_splits_and_five_paths():
    splits, paths = combinatorial_folds(60, 6, 2, purge_bars=2, embargo_bars=3)
    assert len(splits) == 15
    assert sorted(set(paths.ravel())) == [0, 1, 2, 3, 4]
    train, tests = splits[-1]  # the last two blocks
    assert [block.tolist() for block in tests] == [list(range(40, 50)), list(range(50, 60))]
    assert train.tolist() == list(range(38))  # two purged rows before row 40
    train, tests = splits[0]  # the first two: purge and embargo after row 19
    assert train.tolist() == list(range(25, 60))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no length given; expected train_years and test_months"),
        ({"train_years": 1, "test_bars": 3}, "test_bars, train_years given"),
        ({"train_bars": 0, "test_bars": 3}, "train_bars = 0; expected above 0"),
        ({"train_years": 0.3, "test_months": 3}, "expected whole months"),
        ({"train_bars": 4, "test_bars": 3, "purge_bars": -1}, "purge_bars = -1"),
        ({"train_bars": 4, "test_bars": 3, "embargo_bars": 2}, "nothing is learnt from rows after a test here"),
    ],
)
def test_a_mistake_says_what_was_expected(settings, message):
    with pytest.raises(ConfigError, match=message):
        FoldsConfig(**settings)


def test_a_window_too_short_for_its_validation_says_so():
    with pytest.raises(ConfigError, match=r"fold 0, tested from 2000-07-03, has 0 rows of train"):
        walk_folds(days(), FoldsConfig(train_years=0.5, test_months=6, validation_months=7))


def test_sizes_that_do_not_suit_each_other_are_named():
    with pytest.raises(ConfigError, match=r"num_folds = 2, num_test_folds = 5"):
        combinatorial_folds(60, 2, 5)
