import time
from dataclasses import replace

import numpy as np
import pytest
import ray
from numpy.testing import assert_array_equal
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID

from rlplatform.algorithms.export import normalizer_of, policy_from
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.models.gru import GRUConfig

TRAINING = PPOTrainingConfig(
    num_envs_per_env_runner=8,
    rollout_length=21,
    minibatch_size=64,
    num_epochs=1,
    learning_rate=((0, 1e-3), (1_000, 1e-4)),
    entropy_coeff=((0, 0.05), (1_000, 0.01)),
    use_kl_loss=True,
    kl_target=1e-6,
)
MODEL = GRUConfig(embedding_size=16, hidden_size=16, max_seq_len=11)


def learner_state(algorithm):
    state = algorithm.learner_group.get_state()["learner"]
    optimizer = next(iter(state["optimizer"].values()))
    return state["rl_module"][DEFAULT_MODULE_ID], optimizer, state["kl_coeffs"]


def assert_same_tree(left, right):
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same_tree(left[key], right[key])
    elif isinstance(left, list | tuple):
        for a, b in zip(left, right, strict=True):
            assert_same_tree(a, b)
    else:
        assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.parametrize(
    ("how", "num_env_runners", "fast"),
    [
        ("restore", 0, True),
        ("restore", 0, False),
        ("from_checkpoint", 0, True),
        ("from_checkpoint", 0, False),
        pytest.param("from_checkpoint", 1, True, marks=pytest.mark.slow),
        pytest.param("restore", 1, False, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_brings_back_weights_adam_statistics_counters_and_the_kl_coefficient(
    toy_env, tmp_path, how, num_env_runners, fast
):
    config = build_ppo(replace(TRAINING, num_env_runners=num_env_runners, fast=fast), MODEL, toy_env, {"toy": "recall"})
    before = config.build_algo()
    for _ in range(3):
        last = before.train()
    path = before.save_to_path(tmp_path / "checkpoint")
    if how == "restore":
        after = config.build_algo()
        after.restore_from_path(path)
    else:
        after = Algorithm.from_checkpoint(path)
    for left, right in zip(learner_state(before), learner_state(after), strict=True):
        assert_same_tree(left, right)
    assert learner_state(after)[2][DEFAULT_MODULE_ID] != pytest.approx(0.2)  # adapted away from RLlib's first value
    assert_same_tree(normalizer_of(before).state(), normalizer_of(after).state())
    assert_same_tree(dict(policy_from(before).actor_critic.state_dict()), dict(policy_from(after).actor_critic.state_dict()))
    result = after.train()
    steps = "num_env_steps_sampled_lifetime"
    assert result["training_iteration"] == 4
    assert result["env_runners"][steps] > last["env_runners"][steps]
    learner = result["learners"][DEFAULT_MODULE_ID]
    sampled = result["env_runners"][steps]
    assert learner["default_optimizer_learning_rate"] == pytest.approx(1e-3 - 9e-4 * sampled / 1_000)
    assert learner["curr_entropy_coeff"] == pytest.approx(0.05 - 0.04 * sampled / 1_000)
    before.stop()
    after.stop()


@pytest.mark.slow
def test_a_killed_runner_comes_back_and_its_statistics_stay(toy_env):
    algorithm = build_ppo(replace(TRAINING, num_env_runners=1), MODEL, toy_env, {"toy": "recall"}).build_algo()
    algorithm.train()
    count = normalizer_of(algorithm).count
    runner = algorithm.env_runner_group._worker_manager.actors()[1]
    ray.kill(runner, no_restart=False)
    deadline = time.monotonic() + 90
    while normalizer_of(algorithm).count <= count and time.monotonic() < deadline:
        algorithm.train()
    assert normalizer_of(algorithm).count > count
    algorithm.stop()
