"""Does it learn? Small tasks of which the best is known."""

from dataclasses import replace

import numpy as np
import pytest

from rlplatform.algorithms.export import policy_from
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.toys import RecallVectorEnv, SignalVectorEnv

# An action in these tasks changes only its own reward; a long horizon would add the noise of all later ones.
TRAINING = PPOTrainingConfig(num_envs_per_env_runner=64, rollout_length=21, minibatch_size=336, learning_rate=2e-3, gamma=0.5)


def trained(toy_env, model, toy, iterations, training=TRAINING):
    algorithm = build_ppo(training, model, toy_env, {"toy": toy}, seed=1).build_algo()
    for _ in range(iterations):
        algorithm.train()
    policy = policy_from(algorithm)
    algorithm.stop()
    return policy


def mean_return(policy, env):
    """Mean return of one deterministic episode in each of the environment's accounts."""
    obs, _ = env.reset(seed=99)
    state, total = policy.initial_state(env.num_envs), np.zeros(env.num_envs)
    for _ in range(env.length):
        action, state, _ = policy.act(obs, state)
        obs, reward, *_ = env.step(action)
        total += reward
    return total.mean()


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "stock"])
def test_an_mlp_puts_everything_into_the_asset_that_will_rise(toy_env, fast):
    policy = trained(toy_env, MLPConfig(layers=(32,)), "signal", 30, replace(TRAINING, fast=fast))
    assert mean_return(policy, SignalVectorEnv(64)) > 0.9 * SignalVectorEnv.length


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["fast", "stock"])
def test_a_gru_remembers_and_an_mlp_cannot(toy_env, fast):
    training = replace(TRAINING, fast=fast)
    gru = GRUConfig(embedding_size=64, hidden_size=64, max_seq_len=22)
    best = RecallVectorEnv.length - RecallVectorEnv.lag * 0.75
    assert mean_return(trained(toy_env, gru, "recall", 50, training), RecallVectorEnv(256)) > 0.9 * best
    mlp = trained(toy_env, MLPConfig(layers=(32,)), "recall", 15, replace(training, num_epochs=2))
    assert mean_return(mlp, RecallVectorEnv(256)) < 0.35 * RecallVectorEnv.length
