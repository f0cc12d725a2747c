"""The catalogue: ids, what they make, and what it refuses."""

from __future__ import annotations

import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs import CATALOG, make
from envs.catalog import DEMO_ASSETS, demo_tape
from envs.errors import ConfigError
from envs.pair_leverage import PairLeverageConfig
from envs.regime import RegimeConfig
from tests.envs.markets import random_tape


@pytest.mark.parametrize("env_id", CATALOG)
def test_an_id_makes_the_environment_of_its_config(env_id):
    config_class, task_class = CATALOG[env_id]
    assert config_class().id == env_id
    env = gym.make(env_id).unwrapped
    assert type(env.task) is task_class
    assert env.task.summary in task_class.summary
    assert env.task.tape.num_assets == DEMO_ASSETS[env_id]


@pytest.mark.parametrize("env_id", CATALOG)
def test_a_config_survives_pickling_after_use(env_id):
    """Ray sends configs to workers."""
    config = CATALOG[env_id][0]()
    env = make(config, demo_tape(DEMO_ASSETS[env_id]))
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert pickle.loads(pickle.dumps(config)) == config == CATALOG[env_id][0]()
    assert pickle.loads(pickle.dumps(env)).reset(seed=3)[0].tolist() == env.reset(seed=3)[0].tolist()


def test_gym_make_takes_a_tape_a_config_and_a_period():
    env = gym.make("PairLeverage-v0", config=PairLeverageConfig(), tape=random_tape(0, 2, 300), start="2020-01-10").unwrapped
    assert str(env.task.tape.dates[env.accounts.first])[:10] == "2020-01-10"


def test_a_config_of_another_environment_is_refused():
    with pytest.raises(ConfigError, match="PairLeverage-v0: config is a RegimeConfig; expected a PairLeverageConfig"):
        gym.make("PairLeverage-v0", config=RegimeConfig())


def test_the_demo_market_has_the_drift_and_volatility_it_promises():
    log = np.log(demo_tape(2, 200_000).gross)
    assert_allclose(log.mean() * 252, 0.08, atol=0.02)
    assert_allclose(log.std() * np.sqrt(252), 0.16, rtol=0.01)


def test_the_world_imports_neither_ray_nor_the_learner_nor_pandas():
    code = "import envs, sys; print(sorted({'ray', 'rlplatform', 'pandas'} & {m.split('.')[0] for m in sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
