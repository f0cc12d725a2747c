import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.evaluation.drawdowns import downside, find_drawdowns, tail_hit_rate
from rlplatform.evaluation.metrics import summarize
from tests.evaluation.conftest import dates, track_of

# wealth 1, 2, 1.5, 1, 2, 1.8, 2.5, 2: three falls, the last one not over
RETURNS = np.array([2, 1.5, 1, 2, 1.8, 2.5, 2]) / np.array([1, 2, 1.5, 1, 2, 1.8, 2.5]) - 1


def test_three_falls_by_hand():
    first, second, third = find_drawdowns(track_of(RETURNS))
    assert (first.peak, first.trough, first.end, first.bars) == (1, 3, 4, 3)
    assert_allclose((first.depth, first.velocity), (-0.5, -0.25))
    assert (second.peak, second.trough, second.end, second.bars) == (4, 5, 6, 2)
    assert_allclose(second.depth, -0.1)
    assert (third.peak, third.trough, third.end, third.bars) == (6, 7, None, 1)


def test_figures_of_the_three_falls():
    found = downside(track_of(RETURNS))
    assert_allclose((found.max_drawdown, found.drawdown_velocity, found.fastest_velocity), (-0.5, -0.25, -0.25))
    assert (found.longest_drawdown_bars, found.longest_drawdown_recovered, found.drawdowns) == (3, True, 3)
    assert_allclose(found.time_under_water, 4 / 8)
    assert_allclose(found.average_drawdown, -(0.25 + 0.5 + 0.1 + 0.2) / 8)
    assert_allclose(found.cdar_5, -0.5)


def test_a_fall_without_end_counts_to_the_last_row():
    found = downside(track_of([-0.1, 0.01, 0.01, 0.01]))
    assert (found.longest_drawdown_bars, found.longest_drawdown_recovered) == (4, False)


def test_a_track_that_only_rises_has_no_drawdown():
    found = downside(track_of([0.01] * 10))
    assert (found.max_drawdown, found.longest_drawdown_bars, found.drawdown_velocity, found.drawdowns) == (0, 0, 0, 0)
    assert found.to_dict()["tail_hit_rate"] is None  # too short for a year of history


def test_a_stable_tail_is_hit_one_time_in_twenty_and_a_growing_one_more_often():
    draws = np.random.default_rng(0).standard_normal(6_000)
    assert_allclose(tail_hit_rate(0.01 * draws), 0.05, atol=0.012)
    assert tail_hit_rate(np.linspace(0.002, 0.05, 6_000) * draws, 1_000) > 0.07


def test_the_quantile_is_of_the_bars_before_and_not_of_the_bar_itself():
    """Of nineteen zeros and −1 % the 5 % quantile is −0.05 %; −0.1 % lies below it, and above it were it counted in."""
    assert tail_hit_rate(np.array([0.0] * 19 + [-0.01, -0.001]), history=20) == 1.0


def test_a_quantile_needs_history():
    with pytest.raises(ConfigError, match="a 5% quantile needs at least 20"):
        tail_hit_rate(np.zeros(100), history=10)


@settings(max_examples=60, deadline=None)
@given(arrays(float, st.integers(1, 60), elements=st.floats(-0.5, 0.5)))
def test_falls_cover_exactly_the_rows_under_water_and_agree_with_skfolio_and_metrics(returns):
    from skfolio.measures import average_drawdown, get_drawdowns, max_drawdown

    track = track_of(returns, dates=dates(len(returns) + 1))
    falls, found = find_drawdowns(track), downside(track)
    under = {row for fall in falls for row in range(fall.peak + 1, len(track.dates) if fall.end is None else fall.end)}
    assert under == set(np.flatnonzero(track.drawdown < 0))
    assert_allclose(found.max_drawdown, summarize(track).max_drawdown)
    theirs = get_drawdowns(np.append(0.0, returns), compounded=True)
    assert_allclose((found.max_drawdown, found.average_drawdown), (-max_drawdown(theirs), -average_drawdown(theirs)), atol=1e-9)
