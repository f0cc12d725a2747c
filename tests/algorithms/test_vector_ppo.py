"""VectorPPO as a whole: who samples, who learns, and what comes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample

from rlplatform.algorithms.export import normalizer_of, policy_from
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.algorithms.vector_ppo import VectorPPO
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import register
from tests.algorithms.toys import RecallVectorEnv

TRAINING = PPOTrainingConfig(num_envs_per_env_runner=7, rollout_length=24, minibatch_size=64, num_epochs=2)
GRU = GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=12)
MLP = MLPConfig(layers=(8,))


@pytest.fixture
def start():
    """Builds algorithms and stops them."""
    started = []

    def build(env, model=GRU, training=TRAINING, seed=0, evaluation=None, **settings):
        config = build_ppo(training, model, env, settings, seed=seed)
        if evaluation:
            config.evaluation(**evaluation)
        started.append(config.build_algo())
        return started[-1]

    yield build
    for algorithm in started:
        algorithm.stop()


def learner_weights(algorithm) -> list[dict[str, np.ndarray]]:
    """Each learner's."""
    states = algorithm.learner_group.foreach_learner(lambda learner: learner.get_state(components="rl_module"))
    return [state.get()["rl_module"][DEFAULT_MODULE_ID] for state in states]


def runner_weights(algorithm) -> list[dict[str, np.ndarray]]:
    """Each runner's, the local one's first."""
    return algorithm.env_runner_group.foreach_env_runner(lambda runner: runner.module.get_state())


def assert_same_weights(left, right, rtol=0.0, atol=0.0):
    for key in left:
        np.testing.assert_allclose(np.asarray(left[key]), np.asarray(right[key]), rtol, atol, err_msg=key)


def test_the_fast_path_is_the_default_and_can_be_switched_off(toy_env, start):
    assert isinstance(start(toy_env), VectorPPO)
    stock = start(toy_env, training=replace(TRAINING, fast=False))
    assert type(stock) is PPO
    assert stock.train()["env_runners"]["num_env_steps_sampled_lifetime"] >= 7 * 24


@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
@pytest.mark.parametrize("kind", ["native", "sync"])
def test_it_trains_where_episodes_terminate_and_truncate(ray_session, start, kind, model):
    algorithm = start(register()[kind], model, actions="box")
    for _ in range(2):
        result = algorithm.train()
    assert result["env_runners"]["episode_len_mean"] == pytest.approx(4, abs=0.5)
    assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])
    assert_same_weights(learner_weights(algorithm)[0], runner_weights(algorithm)[0])


def test_two_remote_runners_bring_two_rollouts_and_get_the_new_weights(toy_env, start):
    algorithm = start(toy_env, training=replace(TRAINING, num_env_runners=2), toy="recall")
    algorithm.train()
    rollouts, _ = synchronous_parallel_sample(
        worker_set=algorithm.env_runner_group,
        max_env_steps=algorithm.config.total_train_batch_size,
        _uses_new_env_runners=True,
        _return_metrics=True,
    )
    assert [r.obs.shape for r in rollouts] == [(24, 7, 4)] * 2
    assert [r.states.shape for r in rollouts] == [(2, 7, 8)] * 2
    assert not torch.equal(rollouts[0].obs, rollouts[1].obs)
    for weights in runner_weights(algorithm):
        assert_same_weights(weights, learner_weights(algorithm)[0])


def test_metrics_and_statistics_of_two_runners_are_those_of_both(ray_session, start):
    algorithm = start(register()["native"], training=replace(TRAINING, num_env_runners=2))
    for i in range(1, 4):
        result = algorithm.train()["env_runners"]
        assert result["num_env_steps_sampled_lifetime"] == i * 2 * 7 * 24
        assert result["episode_len_mean"] == pytest.approx(4, abs=0.3)
    assert normalizer_of(algorithm).count == 3 * 2 * 7 * 24
    counts = algorithm.env_runner_group.foreach_env_runner(lambda runner: runner._normalizer().count, local_env_runner=False)
    assert counts == [3 * 2 * 7 * 24] * 2


def test_a_remote_learner_does_what_a_local_one_does(toy_env, start):
    local, remote = (start(toy_env, training=replace(TRAINING, num_learners=n), toy="recall") for n in (0, 1))
    remote.learner_group.set_weights(local.learner_group.get_weights())
    rollouts = local.env_runner.sample()
    for algorithm in (local, remote):  # one step on everything: the order of the sequences does not matter
        algorithm.learner_group.update(**algorithm.for_learners(rollouts), num_epochs=1, minibatch_size=7 * 24)
    assert_same_weights(learner_weights(local)[0], learner_weights(remote)[0], rtol=1e-4, atol=1e-6)
    result = remote.train()
    assert result["learners"][DEFAULT_MODULE_ID]["num_module_steps_trained"] == 2 * 7 * 24
    assert_same_weights(learner_weights(remote)[0], runner_weights(remote)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("num_env_runners", "model"), [(0, MLP), (1, GRU)], ids=["local-mlp", "remote-gru"])
def test_two_remote_learners_end_with_equal_weights(toy_env, start, num_env_runners, model):
    # Seven accounts: one is left out, or the two would take different numbers of steps and wait for each other for ever.
    training = replace(TRAINING, num_learners=2, num_env_runners=num_env_runners, use_kl_loss=True)
    algorithm = start(toy_env, model, training, toy="recall")
    before = learner_weights(algorithm)[0]
    for _ in range(2):
        result = algorithm.train()
    left, right = learner_weights(algorithm)
    assert_same_weights(left, right)
    assert any(not np.array_equal(left[key], before[key]) for key in left)
    assert_same_weights(left, runner_weights(algorithm)[0])
    assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])


@pytest.mark.parametrize("runners", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("unit", ["episodes", "timesteps"])
def test_evaluation_plays_the_mode_in_environments_of_its_own_and_learns_nothing(toy_env, start, runners, unit):
    algorithm = start(
        toy_env,
        toy="recall",
        evaluation={
            "evaluation_interval": 2,
            "evaluation_num_env_runners": runners,
            "evaluation_duration": 14 if unit == "episodes" else 14 * RecallVectorEnv.length,
            "evaluation_duration_unit": unit,
            "evaluation_config": {"explore": False},
        },
    )
    assert "evaluation" not in algorithm.train()
    result = algorithm.train()
    evaluated = result["evaluation"]["env_runners"]
    assert evaluated["num_episodes"] >= 14
    assert evaluated["episode_len_mean"] == RecallVectorEnv.length
    assert 0 <= evaluated["episode_return_mean"] <= RecallVectorEnv.length
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 2 * 7 * 24
    assert normalizer_of(algorithm).count == 2 * 7 * 24


def test_a_restored_algorithm_acts_like_the_one_that_was_saved(toy_env, start, tmp_path):
    before, after = start(toy_env, toy="recall"), start(toy_env, toy="recall", seed=5)
    for _ in range(2):
        before.train()
    after.restore_from_path(before.save_to_path(tmp_path / "checkpoint"))
    obs = 50 * np.eye(4, dtype=np.float32) + 7
    acted = [policy_from(algorithm) for algorithm in (before, after)]
    outs = [policy.act(obs, policy.initial_state(4)) for policy in acted]
    np.testing.assert_array_equal(outs[0][1], outs[1][1])
    assert_same_weights(runner_weights(after)[0], learner_weights(before)[0])
    assert after.train()["training_iteration"] == 3


def test_bfloat16_trains(toy_env, start):
    result = start(toy_env, training=replace(TRAINING, precision="bfloat16"), toy="recall").train()
    assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["total_loss"])


# --- learning --------------------------------------------------------------------------------------------------------------

CURVE = PPOTrainingConfig(num_envs_per_env_runner=64, rollout_length=21, minibatch_size=336, learning_rate=2e-3, gamma=0.5)
LOOKS = (10, 20, 30, 50)  # iterations
BEST = RecallVectorEnv.length - RecallVectorEnv.lag * 0.75


def curve(env, fast: bool, seed: int) -> list[float]:
    """Share of the best possible return of the deterministic policy at each look."""
    model = GRUConfig(embedding_size=64, hidden_size=64, max_seq_len=22)
    algorithm = build_ppo(replace(CURVE, fast=fast), model, env, {"toy": "recall"}, seed=seed).build_algo()
    shares = []
    for i in range(1, LOOKS[-1] + 1):
        algorithm.train()
        if i in LOOKS:
            shares.append(mean_return(policy_from(algorithm)) / BEST)
    algorithm.stop()
    return shares


def mean_return(policy) -> float:
    env = RecallVectorEnv(256)
    obs, _ = env.reset(seed=99)
    state, total = policy.initial_state(256), 0.0
    for _ in range(env.length):
        action, state, _ = policy.act(obs, state)
        obs, reward, *_ = env.step(action)
        total += reward.mean()
    return total


@pytest.mark.nightly
@pytest.mark.slow
def test_fast_and_stock_learn_a_memory_task_along_the_same_curve(toy_env):
    fast, stock = (np.array([curve(toy_env, path, seed) for seed in (1, 2, 3)]) for path in (True, False))
    print("fast", fast.round(3).tolist(), "stock", stock.round(3).tolist())
    assert fast[:, -1].min() > 0.9
    assert stock[:, -1].min() > 0.9
    spread = np.maximum(np.ptp(fast, 0), np.ptp(stock, 0)).clip(min=0.1)
    assert (np.abs(fast.mean(0) - stock.mean(0)) <= spread).all()
