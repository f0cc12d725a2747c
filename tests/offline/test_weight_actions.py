import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.backend import Backend
from envs.catalog import make_task
from envs.portfolio import PortfolioConfig
from envs.regime import ACTIONS
from envs.terms import CapsConfig
from envs.trading_env import TradingVectorEnv
from rlplatform.offline.weight_actions import actions_for, feasible, nearest_regime
from tests.envs.markets import CASES, EPISODE, random_tape

SIGNED = CapsConfig(long_only=False, gross=2.0, net=2.0, per_asset=0.8)
SIGNED_AND_LEVERED = PortfolioConfig(caps=SIGNED, leverage_max=1.5, episode=EPISODE)
SETTINGS = {name: case for name, case in CASES.items() if "regime" not in name} | {"signed, levered": (SIGNED_AND_LEVERED, 3)}


@pytest.mark.parametrize("case", SETTINGS)
def test_the_environment_holds_the_weights_that_the_actions_stand_for(case):
    config, assets = SETTINGS[case]
    task, _ = make_task(config, random_tape(1, assets))
    rows = len(task.tape)
    wanted = feasible(task, np.random.default_rng(0).normal(0, 0.7, (rows, task.tape.num_assets)))
    actions = actions_for(task, wanted)
    everyone = TradingVectorEnv(task, (0, rows - 1), rows, Backend("numpy", "float64")).accounts
    assert_allclose(feasible(task, task.target_weights(actions, everyone)), wanted, atol=1e-6)
    assert all(action in task.action_space for action in actions)


def test_weights_of_an_allocation_give_its_action_and_others_the_nearest():
    weights = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.02, 0.48, 0.5]])
    actions, distance = nearest_regime(weights)
    assert [ACTIONS[a] for a in actions] == ["ALL_CASH", "QQQ_IWM_50", "QQQ_IWM_50"]
    assert_allclose(distance, [0, 0, 0.04])
