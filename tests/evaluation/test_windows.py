import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, ShapeError
from envs.indicators import CALM, CHOPPY, CRISIS
from rlplatform.evaluation.windows import WindowConfig, hold_out, market_regimes
from tests.evaluation.conftest import random_tape, track_of

TWO = WindowConfig(length_bars=2)


def test_windows_of_two_bars_by_hand():
    found = hold_out(track_of([0.1, 0.1, -0.5, 0.0]), track_of([0.0] * 4, "CASH"), TWO).all
    assert (found.windows, found.independent) == (3, 2)  # +21 %, −45 %, −50 %
    assert_allclose((found.best, found.median, found.worst), (0.21, -0.45, -0.5))
    assert_allclose((found.above_zero, found.above_benchmark), (1 / 3, 1 / 3))
    assert_allclose(found.spread, (0.21 - 0.45) / 2 - (-0.45 - 0.5) / 2)


def test_windows_side_by_side_share_no_bar():
    found = hold_out(track_of([0.01] * 10), track_of([0.02] * 10, "market"), WindowConfig(length_bars=3, stride_bars=3))
    assert_array_equal(found.starts, [0, 3, 6])
    assert found.all.independent == 3
    assert found.all.above_benchmark == 0
    assert_allclose(found.all.median_excess, 1.01**3 - 1.02**3)


def test_each_window_goes_to_its_most_frequent_regime_and_to_the_worse_of_two():
    regimes = [CALM, CALM, CHOPPY, CRISIS, CRISIS]
    found = hold_out(track_of([0.01] * 5), track_of([0.0] * 5, "CASH"), TWO, regimes)
    counts = {name: figures.windows for name, figures in found.by_regime.items()}
    assert counts == {"calm": 1, "choppy": 1, "crisis": 2}  # CC, C-choppy, choppy-crisis, crisis-crisis
    assert [row["regime"] for row in found.rows()] == ["all", "calm", "choppy", "crisis"]


def test_a_regime_that_never_was_has_no_figures_but_a_row():
    found = hold_out(track_of([0.01] * 5), track_of([0.0] * 5, "CASH"), TWO, [CALM] * 5)
    assert found.to_dict()["by_regime"]["crisis"]["median"] is None
    assert found.rows()[-1]["median"] == "–"
    json.dumps(found.to_dict(), allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5))
def test_regimes_divide_the_windows_and_each_return_is_that_of_its_bars(length, stride, seed):
    rng = np.random.default_rng(seed)
    track, regimes = track_of(0.01 * rng.standard_normal(40)), rng.integers(0, 3, 40)
    found = hold_out(track, track_of(np.zeros(40), "CASH"), WindowConfig(length_bars=length, stride_bars=stride), regimes)
    assert sum(figures.windows for figures in found.by_regime.values()) == found.all.windows == len(found.starts)
    assert found.all.independent <= 40 // length
    last = found.starts[-1]
    assert_allclose(found.returns[-1], np.prod(1 + track.returns[last : last + length]) - 1)


def test_the_state_at_a_decision_does_not_know_later_prices():
    tape = random_tape(rows=400)
    states = market_regimes(tape, tape.dates[300:351])
    assert len(states) == 50
    assert_array_equal(states, market_regimes(tape.rows(0, 350), tape.dates[300:351]))


def test_a_window_longer_than_the_track_and_other_dates_are_refused():
    track = track_of([0.01] * 5)
    with pytest.raises(ConfigError, match=r"windows.length_bars = 42; policy has 5 bars"):
        hold_out(track, track_of([0.0] * 5, "CASH"))
    with pytest.raises(ShapeError, match="windows need the same dates"):
        hold_out(track, track_of([0.0] * 6, "CASH"), TWO)
    with pytest.raises(ShapeError, match="3 regimes for 5 bars"):
        hold_out(track, track_of([0.0] * 5, "CASH"), TWO, [0, 0, 0])
    with pytest.raises(ShapeError, match="the tape lacks dates"):
        market_regimes(random_tape(rows=50), track_of([0.0] * 100).dates)
