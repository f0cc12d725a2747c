"""Forecasters side by side."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from envs.errors import ConfigError
from rlplatform.features.forecasts.comparison import compare_forecasts, newey_west_t
from rlplatform.features.forecasts.forecast import LEVELS
from tests.features.forecasts.conftest import forecast_of

WIDTHS = 0.01 * norm.ppf(LEVELS)


def constant(quantiles, rows: int = 400):
    return np.broadcast_to(quantiles, (rows, 2, 1, len(LEVELS))).copy()


def test_the_right_normal_beats_one_twice_as_wide_and_the_coverage_says_which():
    y = np.random.default_rng(0).normal(0, 0.01, (400, 2, 1))
    wide, right = compare_forecasts({"bootstrap": forecast_of(constant(2 * WIDTHS)), "core": forecast_of(constant(WIDTHS))}, y)
    assert right.gain_percent > 5
    assert right.dm_t > 2
    assert_allclose([right.coverage_80, right.below_05, right.pit_mean], [0.8, 0.05, 0.5], atol=0.03)
    assert wide.coverage_80 > 0.95
    assert math.isnan(wide.dm_t)
    assert wide.to_dict()["dm_t"] is None


def test_only_cells_that_all_have_count():
    y = np.zeros((400, 2, 1))
    partly = constant(WIDTHS)
    partly[:100, 0] = np.nan
    y[-1] = np.nan
    scores = compare_forecasts({"bootstrap": forecast_of(constant(WIDTHS)), "garch": forecast_of(partly, "garch")}, y)
    assert [score.cells for score in scores] == [800 - 100 - 2] * 2


def test_one_that_is_silent_throughout_is_named():
    silent = forecast_of(np.full((400, 2, 1, len(LEVELS)), np.nan), "chronos", "has learnt from days up to 2030-01-01")
    with pytest.raises(ConfigError, match="'chronos': 'has learnt from days up to 2030-01-01'"):
        compare_forecasts({"bootstrap": forecast_of(constant(WIDTHS)), "chronos": silent}, np.zeros((400, 2, 1)))
    with pytest.raises(ConfigError, match="expected bootstrap among them"):
        compare_forecasts({"chronos": silent}, np.zeros((400, 2, 1)))


def test_of_independent_days_the_t_is_nearly_the_plain_one_and_of_repeated_ones_smaller():
    x = np.random.default_rng(1).normal(0.1, 1, 2000)
    plain = x.mean() / (x.std() / np.sqrt(len(x)))
    assert_allclose(newey_west_t(x), plain, rtol=0.1)
    assert_allclose(newey_west_t(np.repeat(x, 5), 20), plain, rtol=0.15)  # five times the days, no more to be known
    assert math.isnan(newey_west_t(np.ones(10)))
    assert math.isnan(newey_west_t(np.ones(50)))
