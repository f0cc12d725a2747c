"""MarketTape: what it refuses, what it fills in, and how it is cut."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from envs.errors import MarketDataError, ShapeError
from envs.tape import MarketTape
from tests.envs.markets import random_tape, tape_of

DAYS = np.datetime64("2020-03-14") + np.arange(4)


def four_days(**changes) -> MarketTape:
    return MarketTape(**({"dates": DAYS, "symbols": ("SPY", "XOM"), "gross": np.ones((4, 2))} | changes))


def ones_but(value, row=2, column=1):
    array = np.ones((4, 2))
    array[row, column] = value
    return array


def test_what_is_not_given_says_nothing():
    tape = four_days()
    assert (len(tape), tape.num_assets) == (4, 2)
    assert tape.features.shape == (4, 2, 0)
    assert tape.context.shape == (4, 0)
    assert not tape.half_spread_bps.any()
    assert (tape.impact_scale == 1).all()


def test_a_session_ends_where_the_day_changes_and_on_the_last_row():
    hours = np.array(["2020-03-16T10", "2020-03-16T16", "2020-03-17T10", "2020-03-17T16"], dtype="datetime64[h]")
    assert four_days().session_end.all()
    assert_array_equal(four_days(dates=hours).session_end, [False, True, False, True])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -0.5])
def test_a_bad_return_is_named_by_date_and_symbol_with_its_cure(value):
    message = rf"gross\[2020-03-16, 'XOM'\] is {value}; gross returns must be finite and > 0 \(1 such cell\(s\)\). Fill or drop"
    with pytest.raises(MarketDataError, match=message):
        four_days(gross=ones_but(value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dates": DAYS[[0, 2, 1, 3]]}, r"dates\[2\] = 2020-03-15.* is not after row 1. Sort and deduplicate first"),
        ({"dates": DAYS[[0, 1, 1, 3]]}, r"dates\[2\].* is not after row 1"),
        ({"dates": np.array([*DAYS[:3], "NaT"], "datetime64[D]")}, r"dates\[3\] is missing \(NaT\).* Drop the row"),
        ({"symbols": ("SPY", "SPY")}, r"symbols names 'SPY' 2 times; each asset may appear once"),
        ({"features": ones_but(np.nan)[:, :, None], "feature_names": ("f",)}, r"features is not finite at 2020-03-16 \(1 such"),
        (
            {"context": np.full((4, 1), np.inf), "context_names": ("vix",)},
            r"context is not finite at 2020-03-14 \(4 such.*warm-up",
        ),
        ({"half_spread_bps": ones_but(-2.0)}, r"half_spread_bps\[2020-03-16, 'XOM'\] is -2.0; expected ≥ 0.*Clip at 0"),
        ({"impact_scale": ones_but(-2.0)}, r"impact_scale\[2020-03-16, 'XOM'\] is -2.0"),
        ({"forecast_cvar": ones_but(-2.0)}, r"forecast_cvar\[2020-03-16, 'XOM'\] is -2.0"),
    ],
)
def test_other_bad_rows_are_named_too(changes, message):
    with pytest.raises(MarketDataError, match=message):
        four_days(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gross": np.ones(4)}, r"MarketTape.gross has shape \(4,\); expected \(T, N\)"),
        ({"symbols": ("SPY",)}, r"symbols names 1 assets; gross has 2 columns"),
        ({"dates": DAYS[:3]}, r"dates has shape \(3,\); expected \(4,\)"),
        ({"features": np.ones((4, 2, 3)), "feature_names": ("f",)}, r"features has shape \(4, 2, 3\); expected \(4, 2, 1\)"),
    ],
)
def test_axes_that_disagree_are_refused(changes, message):
    with pytest.raises(ShapeError, match=message):
        four_days(**changes)


def test_one_row_is_not_a_market():
    with pytest.raises(MarketDataError, match="has 1 rows; a decision and its outcome need at least 2"):
        MarketTape(dates=DAYS[:1], symbols=("A",), gross=[[1.0]])


def test_a_tape_cannot_be_changed_through_itself_or_through_the_array_it_came_from():
    gross = np.ones((4, 2))
    tape = four_days(gross=gross)
    gross[:] = 2
    assert (tape.gross == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        tape.gross[0, 0] = 2


def test_a_tape_cut_by_dates_keeps_both_ends_and_nothing_else():
    tape = random_tape(0, 2, 20)
    cut = tape.between("2020-01-05", "2020-01-09")
    assert_array_equal(cut.dates, tape.dates[4:9])
    for name in ("gross", "features", "context", "forecast_cvar", "half_spread_bps", "session_end"):
        assert_array_equal(getattr(cut, name), getattr(tape, name)[4:9])


def test_the_end_of_a_range_is_the_whole_day():
    hours = np.array(["2020-03-16T10", "2020-03-16T16", "2020-03-17T10", "2020-03-17T16"], dtype="datetime64[h]")
    assert four_days(dates=hours).row_range("2020-03-16", "2020-03-16") == (0, 1)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2021-01-01", None, r"\[2021-01-01, None\] holds 0 of the tape's rows \(2020-03-14 to 2020-03-17\)"),
        ("2020-03-17", "2020-03-17", "holds 1 of the tape's rows.*at least 2 are needed. Choose dates inside"),
        ("March", None, "'March' is not a date; write it as 2020-01-31"),
        (None, "2020-13-01", "'2020-13-01' is not a date"),
    ],
)
def test_a_range_without_a_decision_is_refused(start, end, message):
    with pytest.raises(MarketDataError, match=message):
        four_days().row_range(start, end)


def test_the_hash_tells_tapes_apart_and_survives_pickling():
    tape = tape_of([1.0, 1.1, 0.9])
    assert pickle.loads(pickle.dumps(tape)).sha256 == tape.sha256 == tape_of([1.0, 1.1, 0.9]).sha256
    assert tape.sha256 != tape_of([1.0, 1.1, 0.9 + 1e-15]).sha256 != replace(tape, symbols=("Z",)).sha256
