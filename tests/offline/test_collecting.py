import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.offline.behaviour import TableBehaviour, make_behaviour
from rlplatform.offline.collecting import collect
from tests.envs.markets import CASES
from tests.offline.datasets import POLICIES, assert_same_episodes, trading_env


@pytest.mark.parametrize("case", CASES)
def test_collected_steps_are_those_of_the_single_environment(case):
    from envs.catalog import make

    env = trading_env(case, accounts=3)
    episodes = collect(env, make_behaviour("uniform", env.task), (5,))
    seconds = env.task.tape.dates.astype("datetime64[s]").astype(np.int64)
    for number in range(3):
        episode = episodes.select(np.array([number]))
        alone = make(env.task.config, env.task.tape)
        obs, _ = alone.reset(options={"start_row": int(np.searchsorted(seconds, episode.extras["date"][0]))})
        for row in range(episode.num_rows):
            assert_allclose(episode.obs[row], obs, atol=2e-3)
            obs, reward, terminated, truncated, _ = alone.step(episode.actions[row])
            assert_allclose(episode.rewards[row], reward, atol=2e-3)
        assert terminated or truncated
        assert terminated == episode.terminated[0]
        assert_allclose(episode.last_obs[0], obs, atol=2e-3)


def test_an_account_that_is_ruined_ends_there_and_the_others_go_on():
    env = trading_env("pair", accounts=64)  # floor at half of wealth
    table = np.tile(np.float32([1.0, 1.0]), (60, 1))
    from tests.envs.markets import random_tape

    wild = random_tape(2, 2, volatility=0.25)
    from envs.catalog import make_vec

    env = make_vec(env.task.config, wild, 64, autoreset_mode="same_step")
    episodes = collect(env, TableBehaviour(table), (0,))
    assert episodes.terminated.any()
    assert not episodes.terminated.all()
    assert (episodes.lengths[~episodes.terminated] == 7).all()
    assert episodes.lengths[episodes.terminated].min() < 7
    e = episodes.extras
    final = e["wealth"][episodes.ends] * (1 - e["cost"][episodes.ends]) * (1 + e["portfolio_return"][episodes.ends])
    assert_array_equal(final <= 0.5, episodes.terminated)


@pytest.mark.parametrize("case", POLICIES)
def test_a_seed_fixes_every_byte_and_another_changes_them(case):
    env = trading_env(case)
    behaviour = make_behaviour(POLICIES[case], env.task)
    first, again, other = (collect(env, behaviour, seed) for seed in ((3, 1), (3, 1), (3, 2)))
    assert_same_episodes(first, again)
    assert not np.array_equal(first.extras["date"], other.extras["date"])
