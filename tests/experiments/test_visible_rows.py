"""Rows that a training may see: none after its end, none of a gap, and nothing is earned over a gap."""

import dataclasses
import datetime

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from envs.errors import ConfigError
from envs.tape import MarketTape
from rlplatform.experiments.config import SplitConfig, load_config
from rlplatform.experiments.judging import IN_SAMPLE, OUT_OF_SAMPLE, sample_of
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.visible_rows import rows_before_test, training_rows


def day(number):
    return datetime.date(2020, 1, number)


@pytest.fixture
def config(small_yaml):
    """The first ten days train, but for 4 to 6 January; the fifth is tested."""
    split = SplitConfig(train=(day(1), day(10)), test=(day(4), day(6)), left_out=((day(4), day(6)),))
    return dataclasses.replace(load_config(small_yaml), split=split)


@pytest.fixture
def tape():
    """Twelve days, each with a gross return and a feature of its own."""
    dates = np.datetime64("2020-01-01") + np.arange(12)
    gross = 1.0 + np.arange(1, 13)[:, None] / 100
    return MarketTape(
        dates=dates, symbols=("A",), gross=gross, features=np.arange(12.0)[:, None, None], feature_names=("n",)
    )  # fmt: skip


@pytest.mark.parametrize("see", [training_rows, rows_before_test])
def test_a_gap_is_not_there_and_the_return_that_began_in_it_is_not_earned(config, tape, see):
    seen = see(config, tape)
    assert [int(str(date)[8:10]) for date in seen.dates] == [1, 2, 3, 7, 8, 9, 10]
    assert_array_equal(seen.gross[:, 0], [1.01, 1.02, 1.03, 1.0, 1.08, 1.09, 1.10])
    assert_array_equal(seen.features[:, 0, 0], [0, 1, 2, 6, 7, 8, 9])
    assert see(config, seen).sha256 == seen.sha256  # handed on, it stays what it is


def test_without_a_gap_only_the_end_is_cut(config, tape):
    config = dataclasses.replace(
        config, split=SplitConfig(train=(day(1), day(5)), validation=(day(6), day(8)), test=(day(9), day(12)))
    )
    assert training_rows(config, tape).sha256 == tape.rows(0, 4).sha256
    assert rows_before_test(config, tape).sha256 == tape.rows(0, 7).sha256


def test_the_scaler_learns_nothing_from_a_gap(small_yaml):
    config = load_config(small_yaml)
    first, last = datetime.date(2001, 1, 1), datetime.date(2001, 12, 31)
    gaps = dataclasses.replace(config.split, validation=None, test=(first, last), left_out=((first, last),))
    whole, gapped = prepare_market(config), prepare_market(dataclasses.replace(config, split=gaps))
    assert gapped.scaler.feature_mean != whole.scaler.feature_mean
    raw = whole.tape.features * np.array(whole.scaler.feature_std) + np.array(whole.scaler.feature_mean)
    days = whole.tape.dates.astype("datetime64[D]")
    train = (days >= np.datetime64(config.split.train[0])) & (days <= np.datetime64(config.split.train[1]))
    train &= (days < np.datetime64(first)) | (days > np.datetime64(last))
    near = np.abs(np.array(gapped.scaler.feature_mean) - raw[train].mean((0, 1)))  # but for clipped tails
    assert (near < 0.05 * np.array(gapped.scaler.feature_std)).all()


def test_a_test_may_lie_in_a_gap_and_nowhere_else_inside_training():
    with pytest.raises(ConfigError, match=r"inside split\.train"):
        SplitConfig(train=(day(1), day(10)), test=(day(4), day(7)), left_out=((day(4), day(6)),))
    with pytest.raises(ConfigError, match="a training with gaps keeps no validation"):
        SplitConfig(train=(day(1), day(8)), validation=(day(9), day(10)), test=(day(11), day(12)), left_out=((day(4), day(6)),))
    split = SplitConfig(train=(day(1), day(10)), test=(day(4), day(6)), left_out=((day(4), day(6)),))
    assert sample_of(split, day(4), day(6)) == OUT_OF_SAMPLE
    assert sample_of(split, day(4), day(7)) == IN_SAMPLE
