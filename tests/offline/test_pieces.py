"""Episodes in pieces: the same decisions, shorter episodes, and the target's law where each piece ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators import EstimatorConfig, estimates_of
from rlplatform.offline.estimators_target import discrete_target
from rlplatform.offline.pieces import horizon_of, in_pieces


def numbered(lengths, terminated=None) -> Episodes:
    """Observation i at row i, −1 − e at the end of episode e; a coin of two actions, heads pays 1."""
    rows, count = sum(lengths), len(lengths)
    actions = np.arange(rows) % 2
    return Episodes(
        lengths=np.array(lengths),
        obs=np.arange(rows, dtype=np.float32)[:, None],
        last_obs=-1 - np.arange(count, dtype=np.float32)[:, None],
        actions=actions,
        rewards=actions.astype(np.float32),
        terminated=np.zeros(count, bool) if terminated is None else np.array(terminated),
        log_prob=np.full(rows, np.log(0.5), np.float32),
    )


def law(episodes):
    """Mass of heads at each place: its number / 1000."""
    heads = np.arange(episodes.num_rows + len(episodes)) / 1000
    return discrete_target(np.stack([1 - heads, heads], 1), episodes)


def test_an_episode_of_five_in_pieces_of_two():
    episodes = numbered([5, 2], [True, False])
    pieces, target = in_pieces(episodes, law(episodes), 2)
    assert_array_equal(pieces.lengths, [2, 2, 1, 2])
    assert_array_equal(pieces.obs, episodes.obs)
    assert_array_equal(pieces.last_obs[:, 0], [2, 4, -1, -2])
    assert_array_equal(pieces.terminated, [False, False, True, False])
    # places: the rows, then what follows each piece: rows 2 and 4, and the two episodes' ends, numbered 7 and 8
    assert_array_equal(np.round(1000 * target.probs[7:, 1]), [2, 4, 7, 8])
    assert_array_equal(target.log_prob, law(episodes).log_prob)


def test_rewards_count_until_they_weigh_a_seventh():
    assert [horizon_of(gamma) for gamma in (0.0, 0.5, 0.9, 0.99)] == [2, 4, 20, 200]
    assert 0.9 ** horizon_of(0.9) == pytest.approx(np.exp(-2), abs=0.02)
    assert horizon_of(1.0) > 10**9


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), horizon=st.integers(1, 40))
def test_pieces_are_the_same_decisions_and_none_is_longer(lengths, horizon):
    episodes = numbered(lengths)
    pieces, target = in_pieces(episodes, law(episodes), horizon)
    target.check_against(pieces)
    assert pieces.num_rows == episodes.num_rows
    assert pieces.lengths.max() <= horizon
    assert set(episodes.starts) <= set(pieces.starts)
    assert_array_equal(pieces.next_obs(), episodes.next_obs())


def test_long_episodes_have_no_effective_size_and_pieces_have():
    """A target of heads with p = 0.9 against a coin: over 60 decisions one episode in a hundred carries it all."""
    rng = np.random.default_rng(0)
    episodes = numbered([60] * 100)
    actions = rng.integers(0, 2, episodes.num_rows)
    object.__setattr__(episodes, "actions", actions)
    object.__setattr__(episodes, "rewards", actions.astype(np.float32))
    heads = np.full(episodes.num_rows + len(episodes), 0.9)
    target = discrete_target(np.stack([1 - heads, heads], 1), episodes)
    config = EstimatorConfig(after_truncation="nothing")
    (whole,) = estimates_of(target, episodes, 0.5, ["wis"], config=config)
    (cut,) = estimates_of(*in_pieces(episodes, target, horizon_of(0.5))[::-1], 0.5, ["wis"], config=config)
    assert whole.effective_sample_size < 60 < 500 < cut.effective_sample_size
    # 0.9 (1 + ½ + ¼ + ⅛), for a piece has four decisions
    assert cut.low < 0.9 * 1.875 < cut.high
    assert cut.high - cut.low < 0.5 * (whole.high - whole.low)
