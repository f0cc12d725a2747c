import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ShapeError
from rlplatform.offline.episodes import Episodes, joined


def logged(lengths, seed=0, extras=("spread_bps",)) -> Episodes:
    rng, rows = np.random.default_rng(seed), sum(lengths)
    return Episodes(
        lengths=np.array(lengths),
        obs=rng.normal(size=(rows, 3)).astype(np.float32),
        last_obs=rng.normal(size=(len(lengths), 3)).astype(np.float32),
        actions=rng.integers(0, 4, rows),
        rewards=np.arange(1, rows + 1, dtype=np.float32),
        terminated=np.arange(len(lengths)) % 2 == 1,
        log_prob=np.full(rows, np.nan, np.float32),
        extras={name: rng.normal(size=rows) for name in extras},
    )


def test_returns_to_go_of_two_episodes_by_hand():
    episodes = logged([2, 3])  # rewards 1 2 | 3 4 5
    assert_allclose(episodes.returns(), [3, 12])
    assert_allclose(episodes.returns_to_go(0.5), [2.0, 2.0, 6.25, 6.5, 5.0])
    # The first was truncated: the future counts 8. The second ended in ruin: it counts nothing.
    assert_allclose(episodes.returns_to_go(0.5, np.array([8.0, 8.0])), [4.0, 6.0, 6.25, 6.5, 5.0])


def test_what_follows_a_decision_never_crosses_an_episodes_end():
    episodes = logged([2, 1, 3])
    following = episodes.next_obs()
    assert_array_equal(following[episodes.is_last], episodes.last_obs)
    assert_array_equal(following[[0, 3, 4]], episodes.obs[[1, 4, 5]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_selected_and_joined_again_nothing_is_lost(lengths, random):
    episodes, order = logged(lengths), list(range(len(lengths)))
    random.shuffle(order)
    again = joined([episodes.select(np.array([i])) for i in order]).select(np.argsort(order))
    for name in ("lengths", "obs", "last_obs", "actions", "rewards", "terminated"):
        assert_array_equal(getattr(again, name), getattr(episodes, name))
    assert_array_equal(again.extras["spread_bps"], episodes.extras["spread_bps"])


def test_joining_keeps_the_extras_that_all_parts_have():
    both = joined([logged([2], extras=("spread_bps", "regime")), logged([1], extras=("regime",))])
    assert set(both.extras) == {"regime"}


def test_axes_that_disagree_are_refused_by_name():
    with pytest.raises(ShapeError, match="last_obs has 2 rows; expected 3"):
        Episodes(**{**vars(logged([1, 1, 1])), "last_obs": np.zeros((2, 3), np.float32)})
    with pytest.raises(ShapeError, match="no decision"):
        Episodes(**{**vars(logged([1, 2])), "lengths": np.array([3, 0])})
