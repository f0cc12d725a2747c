"""Fitted Q evaluation: values that a reader can work out, and what it must not do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, ShapeError
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators_target import TargetActions, discrete_target
from rlplatform.offline.fitted_q import FittedQConfig, cross_fitted_q

QUICK = FittedQConfig(layers=(16,), rounds=20, steps_per_round=20, batch_size=256, learning_rate=1e-2)


def logged(states, actions, rewards, lengths, last_states, terminated, num_states=3):
    """Episodes whose observation is the state's number, one-hot."""
    eye = np.eye(num_states, dtype=np.float32)
    return Episodes(
        lengths=np.asarray(lengths),
        obs=eye[np.asarray(states)],
        last_obs=eye[np.asarray(last_states)],
        actions=np.asarray(actions),
        rewards=np.asarray(rewards, np.float32),
        terminated=np.asarray(terminated, bool),
        log_prob=np.full(len(actions), np.nan, np.float32),
    )


def constant_target(episodes, probs):
    return discrete_target(np.tile(probs, (episodes.num_rows + len(episodes), 1)), episodes)


def walk_down_a_chain(count=200, seed=0):
    """States 0 → 1 → 2 → ruin whatever is done; action 1 pays state + 1, action 0 pays nothing."""
    actions = np.random.default_rng(seed).integers(0, 2, 3 * count)
    states = np.tile([0, 1, 2], count)
    return logged(states, actions, actions * (states + 1), [3] * count, [2] * count, [True] * count)


def wait_in_one_state(count=100, length=20, terminated=False, seed=0):
    """One state for ever; action 1 pays 1, action 0 nothing."""
    actions = np.random.default_rng(seed).integers(0, 2, count * length)
    states = np.zeros(count * length, int)
    return logged(states, actions, actions, [length] * count, [0] * count, [terminated] * count, num_states=1)


def test_the_value_of_a_chain_of_three_states_is_found():
    episodes = walk_down_a_chain()
    values = cross_fitted_q(episodes, constant_target(episodes, [0.2, 0.8]), 0.5, QUICK)
    # V(2) = 0.8 · 3 = 2.4;  V(1) = 0.8 · 2 + 0.5 · 2.4 = 2.8;  V(0) = 0.8 + 0.5 · 2.8 = 2.2
    assert_allclose(values.v[:3], [2.2, 2.8, 2.4], atol=0.03)
    # Q adds what the action itself pays to what follows: 1.4, 1.2 and 0.
    paid = episodes.rewards[:3] + np.array([1.4, 1.2, 0.0])
    assert_allclose(values.q[:3], paid, atol=0.05)
    assert_array_equal(values.v_last, 0.0)


def test_after_a_truncation_the_future_counts_and_after_ruin_it_does_not():
    # For ever: 0.75 / (1 − 0.95) = 15. Ruin after 20 decisions cannot be seen coming in a single state: it strikes
    # one decision in 20, so that V = 0.75 + 0.95 · (19/20) V, V = 7.69.
    for terminated, value in ((False, 15.0), (True, 0.75 / (1 - 0.95 * 0.95))):
        episodes = wait_in_one_state(terminated=terminated)
        values = cross_fitted_q(episodes, constant_target(episodes, [0.25, 0.75]), 0.95, QUICK)
        assert_allclose(values.v, value, rtol=0.03)
        assert_allclose(values.v_last, 0.0 if terminated else value, rtol=0.03)


def test_a_truncated_episode_is_followed_by_its_own_last_observation_and_not_by_the_next_episode():
    # State 0 pays 1 and is cut off in state 1, which pays 4 and ends. State 0 stands 150 times running, then state 1.
    episodes = logged(
        [0] * 150 + [1] * 150, [0] * 300, [1] * 150 + [4] * 150, [1] * 300, [1] * 300, [False] * 150 + [True] * 150
    )
    values = cross_fitted_q(episodes, constant_target(episodes, [1.0]), 0.5, QUICK)
    assert_allclose(values.v, np.repeat([1 + 0.5 * 4, 4.0], 150), atol=0.1)
    assert_allclose(values.v_last, np.repeat([4.0, 0.0], 150), atol=0.1)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_where_a_window_ends_the_world_the_value_falls_with_the_decisions_left(gamma):
    episodes = wait_in_one_state()
    values = cross_fitted_q(episodes, constant_target(episodes, [0.25, 0.75]), gamma, QUICK, "nothing")
    expected = 0.75 * np.array([sum(gamma**k for k in range(20 - age)) for age in range(20)])
    assert_allclose(values.v[:20], expected, rtol=0.08)
    assert_array_equal(values.v_last, 0.0)


def test_a_policy_that_was_never_logged_is_valued_in_a_random_market_of_five_states():
    rng, gamma, states = np.random.default_rng(3), 0.9, 5
    moves, pays = rng.dirichlet(np.full(states, 0.5), (states, 2)), rng.normal(size=(states, 2))
    policy = rng.dirichlet(np.ones(2), states)
    truth = np.linalg.solve(np.eye(states) - gamma * np.einsum("sa,sap->sp", policy, moves), (policy * pays).sum(1))
    count, length = 500, 25
    state, path = rng.integers(0, states, count), []
    for _ in range(length):
        action = rng.integers(0, 2, count)
        following = (rng.random((count, 1)) > moves[state, action].cumsum(1)).sum(1)
        path.append((state, action, pays[state, action] + rng.normal(0, 0.2, count)))
        state = following
    columns = (np.stack(column, 1).ravel() for column in zip(*path, strict=True))
    episodes = logged(*columns, [length] * count, state, [False] * count, num_states=states)
    target = discrete_target(policy[np.argmax(np.concatenate([episodes.obs, episodes.last_obs]), 1)], episodes)
    values = cross_fitted_q(episodes, target, gamma, replace(QUICK, layers=(32,), rounds=40))
    assert_allclose(values.v, truth[np.argmax(episodes.obs, 1)], atol=0.12 * np.abs(truth).max())


def test_continuous_actions_enter_as_inputs_and_are_averaged_over_the_targets_samples():
    rng, count = np.random.default_rng(0), 1_500
    actions = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    episodes = replace(
        logged(np.zeros(count, int), np.zeros(count), 1 - actions[:, 0] ** 2, [1] * count, [0] * count, [True] * count),
        actions=actions,
    )
    samples = np.tile(np.float32([[[0.5], [-0.5], [0.0]]]), (2 * count, 1, 1))
    target = TargetActions(log_prob=np.zeros(count), samples=samples)
    values = cross_fitted_q(episodes, target, 0.9, replace(QUICK, layers=(32, 32), rounds=30))
    assert_allclose(values.q, 1 - actions[:, 0] ** 2, atol=0.15)
    assert_allclose(values.v, 1 - (0.25 + 0.25 + 0) / 3, atol=0.05)


def test_no_episode_is_valued_by_a_network_that_saw_its_rewards():
    episodes = walk_down_a_chain(count=20)
    rewards = episodes.rewards.copy()
    rewards[:3] = 1_000
    config = replace(QUICK, rounds=2)
    before, after = (
        cross_fitted_q(changed, constant_target(episodes, [0.5, 0.5]), 0.9, config)
        for changed in (episodes, replace(episodes, rewards=rewards))
    )
    unmoved = (before.v == after.v).reshape(20, 3).all(1)
    assert unmoved[0]
    assert unmoved.sum() == 10  # its own fold, and nobody else


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    episodes = walk_down_a_chain(count=20)
    target, config = constant_target(episodes, [0.5, 0.5]), replace(QUICK, rounds=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (cross_fitted_q(episodes, target, 0.9, config, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(first.q, again.q)
    assert not np.allclose(first.q, other.q)
    assert torch.equal(torch.get_rng_state(), state)


def test_mistakes_are_named():
    episodes = wait_in_one_state(count=4)
    target = constant_target(episodes, [0.5, 0.5])
    with pytest.raises(ConfigError, match="gamma = 1 and 4 truncated episodes: their value has no end"):
        cross_fitted_q(episodes, target, 1.0)
    one = episodes.select(np.array([0]))
    with pytest.raises(ConfigError, match="got 1 episodes; cross-fitting needs at least 2"):
        cross_fitted_q(one, constant_target(one, [0.5, 0.5]), 0.9)
    with pytest.raises(ShapeError, match="these episodes need 20 and 21"):
        cross_fitted_q(one, target, 0.9)
    with pytest.raises(ConfigError, match=r"fitted_q.folds = 1; expected at least 2"):
        FittedQConfig(folds=1)
    with pytest.raises(ConfigError, match=r"fitted_q.target_rate = 0; expected in \(0, 1\]"):
        FittedQConfig(target_rate=0)
