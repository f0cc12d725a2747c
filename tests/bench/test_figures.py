import pytest

from rlplatform.bench.figures import Spread, arithmetic_limit, fastest, ratio, short, spread_of


def test_the_spread_is_the_median_and_both_ends():
    assert spread_of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0, 3)
    assert spread_of([4.0, 2.0]) == Spread(3.0, 2.0, 4.0, 2)


def test_nothing_measured_has_no_spread():
    assert spread_of([]) is None


def test_a_ratio_is_taken_within_each_round_and_then_the_median():
    assert ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0  # 2, 3, 4; the medians' own ratio would be 4
    assert ratio([10.0, None, 8.0], [5.0, 1.0, None]) == 2.0
    assert ratio([None], [1.0]) is None


def test_the_limit_adds_the_times_of_its_parts():
    # A second for acting, 4 × 2 seconds for learning, one for the env: ten seconds a transition.
    assert arithmetic_limit(forward=1.0, forward_backward=0.5, env=1.0, epochs=4) == pytest.approx(0.1)


def test_the_limit_of_one_part_alone_is_that_part():
    assert arithmetic_limit(1e15, 8.0, 1e15, epochs=2) == pytest.approx(4.0)


def test_the_fastest_ignores_what_was_not_measured():
    assert fastest({"a": 1.0, "b": None, "c": 3.0}) == ("c", 3.0)
    with pytest.raises(ValueError, match="nothing was measured of a"):
        fastest({"a": None})


@pytest.mark.parametrize(
    ("rate", "text"),
    [(13_412.0, "13.4k"), (2_104_000.0, "2.10M"), (131_700.0, "132k"), (99_960.0, "100k"), (870.0, "870"), (None, "–")],
)
def test_rates_are_shown_with_three_digits(rate, text):
    assert short(rate) == text
