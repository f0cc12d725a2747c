import gymnasium as gym
import numpy as np
import ray
from numpy.testing import assert_array_equal
from ray.tune.registry import ENV_CREATOR, _global_registry

from envs import make_vec
from envs.catalog import demo_tape, make_task
from envs.portfolio import PortfolioConfig
from envs.trading_env import TradingVectorEnv
from rlplatform.algorithms.registration import register_trading_env
from tests.algorithms.toys import RecallVectorEnv, SignalVectorEnv, ToySingleEnv


def creator(name):
    return _global_registry.get(ENV_CREATOR, name)


def test_the_name_tells_the_environment_and_its_data(toy_env):
    assert toy_env == "Toy-v0@0123456789ab"


def test_num_envs_asks_for_a_vector_environment(toy_env):
    vector = creator(toy_env)({"num_envs": 3, "toy": "signal"})
    assert isinstance(vector, SignalVectorEnv)
    assert vector.num_envs == 3


def test_without_num_envs_a_single_environment_comes(toy_env):
    single = creator(toy_env)({"toy": "recall"})
    assert isinstance(single, ToySingleEnv)
    assert isinstance(single, gym.Env)
    assert isinstance(single.vector, RecallVectorEnv)


def test_the_tape_is_shared_and_not_copied(toy_env):
    first, second = (ray.get(creator(toy_env).shared) for _ in range(2))
    assert np.shares_memory(first.values, second.values)
    assert not first.values.flags.writeable


def test_a_worker_reads_the_tape_from_shared_memory(toy_env):
    @ray.remote
    def look(name):
        tapes = [ray.get(_global_registry.get(ENV_CREATOR, name).shared) for _ in range(2)]
        return float(tapes[0].values[1, 1]), np.shares_memory(tapes[0].values, tapes[1].values)

    assert ray.get(look.remote(toy_env)) == (4.0, True)


def test_the_table_of_observations_is_made_once_and_every_environment_reads_the_same_memory(ray_session):
    """Of a task that the driver prepared; from a tape each makes its own."""
    tape = demo_tape(3)
    task, _ = make_task(PortfolioConfig(), tape)
    _ = task.observation_table
    name = register_trading_env("Portfolio-v0", tape, _on_task, _on_task, task)
    first, second = (_global_registry.get(ENV_CREATOR, name)({"num_envs": 2}) for _ in range(2))
    assert np.shares_memory(first.accounts.market_table, second.accounts.market_table)
    assert not first.accounts.market_table.flags.writeable
    own = make_vec(PortfolioConfig(), tape, 2)
    assert not np.shares_memory(own.accounts.market_table, first.accounts.market_table)
    assert_array_equal(own.reset(seed=0)[0], first.reset(seed=0)[0])


def _on_task(task, num_envs, **_):
    return TradingVectorEnv(task, task.tape.row_range(None), num_envs)
