import pickle
from dataclasses import fields

import numpy as np
import pytest
import ray
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.utils.postprocessing.value_predictions import compute_value_targets
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.algorithms.rollout import Rollout, generalised_advantages, joined, segment_length, segments, standardised


def rollout(steps, accounts, num_states=1, seed=0, **columns) -> Rollout:
    """Random numbers where none are given; an eighth of the steps end an episode, half of those for good."""
    torch.manual_seed(seed)
    done = torch.rand(steps, accounts) < 0.125
    terminated = done & (torch.rand(steps, accounts) < 0.5)
    value, after = torch.randn(steps, accounts), torch.randn(steps, accounts)
    following = torch.cat([value[1:], after[-1:]])
    return Rollout(
        **{
            "obs": torch.randn(steps, accounts, 5),
            "first": torch.cat([torch.ones(1, accounts, dtype=torch.bool), done[:-1]]),
            "actions": torch.randint(4, (steps, accounts)),
            "params": torch.randn(steps, accounts, 4),
            "log_prob": torch.randn(steps, accounts),
            "value": value,
            "reward": torch.randn(steps, accounts),
            "done": done,
            "next_value": torch.where(terminated, 0.0, torch.where(done, after, following)),
            "states": torch.randn(num_states, accounts, 6),
        }
        | columns
    )


def same(left: Rollout, right: Rollout) -> bool:
    return all(torch.equal(getattr(left, f.name), getattr(right, f.name)) for f in fields(Rollout))


def test_advantages_of_three_steps_by_hand():
    # γ = λ = 1/2. Left: truncated after step 1 (V of the last observation 4), terminated after step 2. Right: no end.
    r = rollout(
        3,
        2,
        reward=torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]),
        value=torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]),
        next_value=torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 8.0]]),
        done=torch.tensor([[False, False], [True, False], [True, False]]),
    )
    # Left δ = 1 + 2/2 − 1, 2 + 4/2 − 2, 3 − 1. Right δ = 1, 1, 1 + 8/2.
    expected = torch.tensor([[1 + 2 / 4, 1 + 2.25 / 4], [2.0, 1 + 5 / 4], [2.0, 5.0]])
    assert_close(generalised_advantages(r, gamma=0.5, gae_lambda=0.5), expected)


def rllib_targets(r: Rollout, gamma: float, gae_lambda: float) -> torch.Tensor:
    """RLlib's value targets (T, B): each episode's piece with the bootstrap value appended, as its Learner does it."""
    targets = torch.empty_like(r.value)
    for b in range(r.value.shape[1]):
        ends = sorted({*torch.nonzero(r.done[:, b])[:, 0].tolist(), len(r.value) - 1})
        for start, end in zip([0, *(e + 1 for e in ends[:-1])], ends, strict=True):
            rows = slice(start, end + 1)
            terminated = bool(r.done[end, b] & (r.next_value[end, b] == 0))
            flags = np.zeros((2, end - start + 2))
            flags[:, -2] = terminated, not terminated
            found = compute_value_targets(
                values=np.append(r.value[rows, b].numpy(), r.next_value[end, b]),
                rewards=np.append(r.reward[rows, b].numpy(), 0),
                terminateds=flags[0],
                truncateds=flags[1],
                gamma=gamma,
                lambda_=gae_lambda,
            )
            targets[rows, b] = torch.from_numpy(found[:-1])
    return targets


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.1, 1), st.floats(0, 1))
def test_value_targets_are_rllibs_on_the_same_episodes(steps, accounts, seed, gamma, gae_lambda):
    r = rollout(steps, accounts, seed=seed)
    ours = generalised_advantages(r, gamma, gae_lambda) + r.value
    assert_close(ours, rllib_targets(r, gamma, gae_lambda), atol=1e-5, rtol=1e-5)


def test_standardised_advantages_have_mean_zero_and_deviation_one():
    assert_close(standardised(torch.tensor([[1.0, 3.0]])), torch.tensor([[-1.0, 1.0]]))
    assert_close(standardised(torch.ones(2, 2)), torch.zeros(2, 2))  # all the same: no division by zero


@pytest.mark.parametrize(
    ("rollout_length", "longest", "expected"),
    [
        (32, 32, 32),
        (31, 32, 31),  # shorter than the longest
        (64, 32, 32),
        (48, 32, 24),
        (21, 11, 7),
        (37, 32, 37),  # 1 and 37 are all the divisors: never sequences of one step
        (34, 32, 17),
        (22, 10, 11),
        (37, 1, 1),  # a policy without memory
        (1, 32, 1),
    ],
)
def test_the_length_of_a_sequence(rollout_length, longest, expected):
    assert segment_length(rollout_length, longest) == expected


@given(st.integers(1, 300), st.integers(1, 64))
def test_sequences_cut_a_rollout_into_equal_parts_and_are_never_much_too_short(rollout_length, longest):
    length = segment_length(rollout_length, longest)
    assert rollout_length % length == 0
    assert 2 * length >= min(longest, rollout_length)


def test_segments_by_hand():
    # Rows are times 0 … 3, columns accounts a and b: a0 a1 | b0 b1 | a2 a3 | b2 b3.
    values = torch.tensor([[0, 10], [1, 11], [2, 12], [3, 13]])
    assert segments(values, 2).tolist() == [[0, 1], [10, 11], [2, 3], [12, 13]]
    assert segments(values, 1).tolist() == [[0], [10], [1], [11], [2], [12], [3], [13]]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
def test_sequence_k_of_account_b_stands_where_its_state_stands(num_segments, length, accounts):
    t, b = torch.meshgrid(torch.arange(num_segments * length), torch.arange(accounts), indexing="ij")
    states = torch.stack([t[::length], b[::length]], -1)
    assert torch.equal(segments(torch.stack([t, b], -1), length)[:, 0], states.flatten(0, 1))


def test_parts_put_together_are_the_whole():
    whole = rollout(8, 6, num_states=2)
    assert whole.segment_length == 4
    parts = whole.split(3)
    assert [len(part) for part in parts] == [16, 16, 16]
    assert [part.env_steps() for part in parts] == [part.agent_steps() for part in parts] == [16, 16, 16]
    assert same(joined(parts), whole)


def test_a_remainder_of_accounts_is_left_out_so_that_learners_take_equal_steps():
    whole = rollout(4, 7)
    parts = whole.split(2)
    assert [part.reward.shape for part in parts] == [(4, 3), (4, 3)]
    assert torch.equal(parts[1].obs, whole.obs[:, 3:6])


def test_more_learners_than_accounts_are_refused():
    with pytest.raises(ConfigError, match=r"3 learners share the 2 accounts of a runner.*num_envs_per_env_runner"):
        rollout(4, 2).split(3)


def test_a_single_rollout_is_not_copied():
    whole = rollout(4, 2)
    assert joined([whole]).obs.data_ptr() == whole.obs.data_ptr()


def test_pickling_keeps_every_number_and_leaves_the_arrays_out_of_band():
    whole = rollout(64, 32, num_states=2)
    buffers: list = []
    inside = pickle.dumps(whole, protocol=5, buffer_callback=buffers.append)
    assert len(inside) < 2_000
    assert same(pickle.loads(inside, buffers=buffers), whole)
    half = whole.split(2)[1]
    assert same(pickle.loads(pickle.dumps(half)), half)
    assert len(pickle.dumps(half)) < 0.52 * len(pickle.dumps(whole))


@pytest.mark.filterwarnings("error")
def test_two_readers_of_rays_store_share_the_memory(ray_session):
    ref = ray.put(rollout(64, 32))
    first, second = ray.get(ref), ray.get(ref)
    assert same(first, second)
    assert first.obs.data_ptr() == second.obs.data_ptr()
