import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import MarketDataError, ShapeError
from rlplatform.data.prices import Prices

DATES = np.array(["2020-03-13", "2020-03-16", "2020-03-17"], dtype="datetime64[D]")


def make(**changes) -> Prices:
    given_ = {"dates": DATES, "symbols": ["SPY", "QQQ"], "close": [[100.0, 50.0], [90.0, 55.0], [99.0, 44.0]]}
    return Prices(**(given_ | changes))


def test_gross_returns_are_price_ratios_and_the_first_row_is_one():
    assert_allclose(make().gross(), [[1, 1], [0.9, 1.1], [1.1, 0.8]])


def test_select_takes_the_symbols_in_the_order_asked_for():
    prices = make().select(["QQQ", "SPY"])
    assert prices.symbols == ("QQQ", "SPY")
    assert_array_equal(prices.close[0], [50, 100])


def test_selecting_a_symbol_that_is_not_there_says_which_are():
    with pytest.raises(MarketDataError, match=r"no 'QQQQ'; they hold SPY, QQQ\. Did you mean QQQ\?"):
        make().select(["QQQQ"])


def test_between_includes_both_days():
    assert_array_equal(make().between("2020-03-14", "2020-03-16").close, [[90, 55]])


def test_between_includes_every_bar_of_the_last_day():
    dates = np.array(["2020-03-13T15:59", "2020-03-13T16:00", "2020-03-16T09:31"], dtype="datetime64[m]")
    assert len(make(dates=dates).between(end="2020-03-13")) == 2


def test_a_period_without_rows_is_refused_with_the_span_there_is():
    with pytest.raises(MarketDataError, match=r"\[2021-01-01, None\] holds none of the 3 rows from 2020-03-13 to 2020-03-17"):
        make().between("2021-01-01")


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "is nan"), (0.0, "is 0.0"), (-1.0, "is -1.0"), (np.inf, "is inf")])
def test_a_price_that_is_not_finite_and_positive_is_refused_by_date_and_symbol(value, shown):
    with pytest.raises(
        MarketDataError, match=rf"close\[2020-03-16, 'QQQ'\] {shown}; prices must be finite and > 0 \(1 such cell\)"
    ):
        make(close=[[100.0, 50.0], [90.0, value], [99.0, 44.0]])


def test_volume_may_be_zero_but_not_negative():
    assert make(volume=np.zeros((3, 2))).volume.sum() == 0
    with pytest.raises(MarketDataError, match=r"volume\[2020-03-13, 'SPY'\] is -1.0; volumes must be finite and ≥ 0"):
        make(volume=-np.ones((3, 2)))


def test_dates_that_do_not_increase_are_refused():
    with pytest.raises(MarketDataError, match=r"dates\[2\] = 2020-03-16 is not after row 1"):
        make(dates=DATES[[0, 1, 1]])
    with pytest.raises(MarketDataError, match=r"dates\[1\] = NaT"):
        make(dates=np.array(["2020-03-13", "NaT", "2020-03-17"], dtype="datetime64[D]"))


def test_arrays_whose_axes_disagree_are_refused():
    with pytest.raises(ShapeError, match=r"Prices.close has shape \(2, 2\); expected \(dates, symbols\) = \(3, 2\)"):
        make(close=np.ones((2, 2)))


def test_a_symbol_named_twice_and_prices_without_rows_are_refused():
    with pytest.raises(MarketDataError, match="'SPY' 2 times"):
        make(symbols=["SPY", "SPY"])
    with pytest.raises(MarketDataError, match="0 rows of 2 symbols"):
        make(dates=DATES[:0], close=np.ones((0, 2)))


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        make().close[0, 0] = 1.0


def test_the_hash_sees_every_value_date_and_symbol_but_not_the_description():
    base = make().sha256
    assert make(source="elsewhere").sha256 == base
    assert make(close=[[100.0, 50.0], [90.0, 55.0], [99.0, 44.000001]]).sha256 != base
    assert make(symbols=["SPY", "IWM"]).sha256 != base
    assert make(dates=DATES + 1).sha256 != base
    assert make(volume=np.ones((3, 2))).sha256 != base
    assert make(volume=np.ones((3, 2))).sha256 != make(open=np.ones((3, 2))).sha256


def test_a_frame_has_dates_down_and_symbols_across():
    frame = make().to_frame()
    assert list(frame.columns) == ["SPY", "QQQ"]
    assert frame.loc["2020-03-16", "QQQ"] == 55
    with pytest.raises(MarketDataError, match="hold no volume; they hold close"):
        make().to_frame("volume")


@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_returns_compound_to_the_price_ratio_and_cutting_rows_changes_none_inside(seed, cut):
    close = np.exp(np.random.default_rng(seed).normal(size=(6, 3)))
    dates = np.datetime64("2020-01-01") + np.arange(6)
    prices = Prices(dates=dates, symbols="ABC", close=close)
    assert_allclose(prices.gross().prod(0), close[-1] / close[0])
    part = prices.between(str(dates[cut]))
    assert_allclose(part.gross()[1:], prices.gross()[cut + 1 :])
