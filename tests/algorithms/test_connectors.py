import itertools

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.connectors import NormalizeObservations

SPACE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def connector(**kwargs):
    return NormalizeObservations(SPACE, gym.spaces.Discrete(2), **kwargs)


def episodes(obs):
    started = []
    for row in obs:
        episode = SingleAgentEpisode(observation_space=SPACE, action_space=gym.spaces.Discrete(2))
        episode.add_env_reset(observation=row)
        started.append(episode)
    return started


def feed(piece, obs, explore=True):
    running = episodes(obs)
    piece(rl_module=None, batch={}, episodes=running, explore=explore)
    return np.stack([episode.get_observations(-1) for episode in running])


def random_obs(seed, rows=5):
    return np.random.default_rng(seed).normal(3, 2, size=(rows, 2)).astype(np.float32)


def test_the_episode_keeps_what_the_policy_sees():
    seen = feed(connector(), np.float32([[1, 10], [3, 10]]))
    assert_allclose(seen, [[-1, 0], [1, 0]])


def test_the_output_space_is_the_clip():
    piece = connector(clip=3)
    assert piece.observation_space == gym.spaces.Box(-3, 3, (2,), np.float32)


def test_evaluation_does_not_move_the_statistics():
    piece = connector()
    feed(piece, random_obs(0))
    before = piece.normalizer.state()
    feed(piece, random_obs(1), explore=False)
    assert_array_equal(piece.normalizer.mean, before["mean"])


def test_merging_runners_equals_one_runner_that_saw_everything():
    central, runners = connector(), [connector(), connector()]
    for round_number in range(3):
        for i, runner in enumerate(runners):
            feed(runner, random_obs(10 * round_number + i))
        central.set_state(central.merge_states([runner.get_state() for runner in runners]))
        for runner in runners:
            runner.set_state(central.get_state())
    alone = ObservationNormalizer(2)
    for round_number, i in itertools.product(range(3), range(2)):
        alone.update(random_obs(10 * round_number + i))
    for piece in (central, *runners):
        assert piece.normalizer.count == alone.count == 30
        assert_allclose(piece.normalizer.mean, alone.mean)
        assert_allclose(piece.normalizer.std, alone.std)


def test_a_lost_broadcast_counts_nothing_twice():
    central, runner = connector(), connector()
    for seed in range(3):
        feed(runner, random_obs(seed))
        central.set_state(central.merge_states([runner.get_state(), runner.get_state()]))
    assert central.normalizer.count == 15


def test_a_runner_that_starts_anew_adds_to_what_the_old_one_saw():
    central, old = connector(), connector()
    feed(old, random_obs(0))
    central.set_state(central.merge_states([old.get_state()]))
    new = connector()
    new.set_state(central.get_state())
    feed(new, random_obs(1))
    central.set_state(central.merge_states([new.get_state()]))
    assert central.normalizer.count == 10


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_order_of_merging_does_not_matter(order):
    runners = [connector(), connector()]
    for seed, runner in enumerate(runners):
        feed(runner, random_obs(seed))
    central = connector()
    central.set_state(central.merge_states([runners[i].get_state() for i in order]))
    assert central.normalizer.count == 10
    assert_allclose(central.normalizer.mean, np.concatenate([random_obs(0), random_obs(1)]).mean(0), rtol=1e-6)


def test_reset_forgets_everything():
    piece = connector()
    feed(piece, random_obs(0))
    piece.reset_state()
    assert piece.normalizer.count == 0
