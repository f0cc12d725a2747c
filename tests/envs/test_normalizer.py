import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.normalizer import ObservationNormalizer


def seen(batch, **kwargs):
    normalizer = ObservationNormalizer(np.shape(batch)[-1], **kwargs)
    normalizer.update(np.asarray(batch))
    return normalizer


def test_1_and_3_have_mean_2_and_standard_deviation_1():
    normalizer = seen([[1.0], [3.0]])
    assert_allclose([normalizer.mean[0], normalizer.std[0]], [2.0, 1.0])
    assert_allclose(normalizer.normalize(np.array([[4.0], [2.0]])), [[2.0], [0.0]])


def test_a_fresh_normalizer_only_clips():
    assert_allclose(ObservationNormalizer(2, clip=5).normalize(np.array([3.0, -80.0])), [3.0, -5.0])


def test_a_constant_column_is_centred_and_not_blown_up():
    normalizer = seen(np.full((100, 1), 0.1, np.float32))
    assert_allclose(normalizer.normalize(np.array([[1.1]])), [[1.0]], rtol=1e-6)


def test_ten_million_and_a_penny_still_have_their_spread():
    normalizer = seen([[1e7], [1e7 + 0.01]])
    normalizer.update(np.array([[1e7], [1e7 + 0.01]]))
    assert_allclose(normalizer.std, [0.005], rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_any_split_into_batches_and_any_merge_equal_numpy_on_the_whole(seed, sizes):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(rng.normal() * 100, 3, size=(n, 3)) for n in [*sizes, 2]]
    one_by_one, merged = ObservationNormalizer(3), ObservationNormalizer(3)
    for batch in batches:
        one_by_one.update(batch)
        part = ObservationNormalizer(3)
        part.update(batch)
        merged.merge(part)
    whole = np.concatenate(batches)
    for normalizer in (one_by_one, merged):
        assert normalizer.count == len(whole)
        assert_allclose(normalizer.mean, whole.mean(0), rtol=1e-10, atol=1e-10)
        assert_allclose(normalizer.std, whole.std(0), rtol=1e-8)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20))
def test_normalised_observations_are_finite_float32_within_the_clip(seed, clip):
    rng = np.random.default_rng(seed)
    normalizer = seen(rng.normal(size=(5, 4)) * 10.0 ** rng.integers(-12, 12, 4), clip=clip)
    obs = normalizer.normalize(rng.normal(size=(2, 3, 4)) * 10.0 ** rng.integers(-30, 30))
    assert obs.dtype == np.float32
    assert np.abs(obs).max() <= np.float32(clip)


def test_state_goes_through_json_and_back():
    normalizer = seen(np.random.default_rng(0).normal(size=(9, 2)), clip=3)
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in normalizer.state().items()}
    back = ObservationNormalizer.from_state(json.loads(json.dumps(plain)))
    obs = np.random.default_rng(1).normal(size=(4, 2)) * 5
    assert_array_equal(back.normalize(obs), normalizer.normalize(obs))


def test_a_frozen_normalizer_refuses_to_learn_and_its_copy_does_not():
    frozen = seen([[1.0], [2.0]]).freeze()
    with pytest.raises(RuntimeError, match="frozen"):
        frozen.update(np.ones((1, 1)))
    frozen.copy().update(np.ones((1, 1)))
    assert frozen.count == 2


def test_a_state_does_not_share_arrays_with_the_normalizer():
    normalizer = seen([[1.0], [2.0]])
    state = normalizer.state()
    normalizer.update(np.array([[50.0]]))
    assert state["mean"][0] == 1.5


def test_mistakes_are_named():
    with pytest.raises(ShapeError, match=r"\(2, 5\).*3 columns"):
        ObservationNormalizer(3).update(np.ones((2, 5)))
    with pytest.raises(MarketDataError, match="column 1 is not finite"):
        ObservationNormalizer(2).update(np.array([[1.0, np.nan]]))
    with pytest.raises(ConfigError, match="clip = 0"):
        ObservationNormalizer(3, clip=0)
    with pytest.raises(ConfigError, match="damaged"):
        ObservationNormalizer.from_state({"count": 2, "clip": 10, "mean": [0.0], "m2": [-1.0]})


def test_columns_of_one_group_are_scaled_by_all_of_their_values():
    normalizer = seen([[1.0, 5.0, 0.0], [3.0, 7.0, 10.0]], groups=(0, 0, 1))  # 1, 3, 5, 7: mean 4, variance 5
    assert_allclose(normalizer.centre, [4, 4, 5])
    assert_allclose(normalizer.std, [5**0.5, 5**0.5, 5])
    assert_allclose(normalizer.normalize(np.array([4.0, 4 + 5**0.5, 0.0])), [0, 1, -1], atol=1e-6)


def test_groups_pool_what_was_merged_and_survive_a_copy():
    rng = np.random.default_rng(0)
    batches = rng.normal([0, 3, -2], [1, 2, 3], size=(2, 50, 3))
    merged = seen(batches[0], groups=(1, 1, 0))
    merged.merge(seen(batches[1]))
    together = batches[..., :2]
    for normalizer in (merged, merged.copy(), ObservationNormalizer.from_state(json.loads(json.dumps(plain(merged.state()))))):
        assert_allclose(normalizer.centre[:2], together.mean())
        assert_allclose(normalizer.std[:2], together.std())
        assert_allclose(normalizer.std[2], batches[..., 2].std())


def plain(state):
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in state.items()}


def test_a_group_for_every_column_or_none():
    with pytest.raises(ConfigError, match=r"groups has 2 entries; expected 3, one a column"):
        ObservationNormalizer(3, groups=(0, 1))
