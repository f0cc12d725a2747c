import math

from numpy.testing import assert_allclose

from rlplatform.evaluation.seed_spread import SeedSpread


def test_three_seeds_by_hand():
    spread = SeedSpread.of([1.0, 3.0, 2.0])
    assert (spread.seeds, spread.median, spread.mean, spread.lowest, spread.highest) == (3, 2.0, 2.0, 1.0, 3.0)
    assert_allclose(spread.deviation, 1.0)
    assert_allclose(spread.mean_high - spread.mean, 4.302653 / math.sqrt(3), rtol=1e-6)  # Student's t, 2 degrees, 97.5 %


def test_one_lucky_seed_moves_the_median_little():
    assert SeedSpread.of([0.1, 0.2, 9.0]).median == 0.2


def test_one_seed_has_no_interval_and_none_has_nothing():
    one, none = SeedSpread.of([0.5, None, math.nan]), SeedSpread.of([])
    assert one.seeds == 1
    assert math.isnan(one.mean_low)
    assert none.seeds == 0
    assert none.to_dict()["median"] is None
