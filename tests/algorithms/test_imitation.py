"""BC and MARWIL: losses that a reader can check, RLlib's where it is right, and trainings that can be stopped."""

import math
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData

from envs.errors import ConfigError
from envs.spaces import Simplex
from rlplatform.algorithms.imitation import (
    BCTrainingConfig,
    MARWILTrainingConfig,
    build_bc,
    build_marwil,
    offline_policy,
)
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy
from rlplatform.offline.episodes import Episodes

MLP = MLPConfig(layers=(8,))
GRU = GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=4)
BC = BCTrainingConfig(batch_size=32, steps_per_iteration=5, learning_rate=1e-2)
MARWIL = MARWILTrainingConfig(batch_size=32, steps_per_iteration=5, learning_rate=1e-2)
BUILD = {"bc": build_bc, "marwil": build_marwil}


def noise(lengths=(9, 14, 30, 7), actions="discrete", seed=0) -> Episodes:
    rng, lengths = np.random.default_rng(seed), np.asarray(lengths)
    rows = int(lengths.sum())
    drawn = rng.integers(0, 4, rows) if actions == "discrete" else rng.dirichlet(np.ones(3), rows).astype(np.float32)
    return Episodes(
        lengths=lengths,
        obs=rng.normal(5, 3, (rows, 3)).astype(np.float32),
        last_obs=rng.normal(5, 3, (len(lengths), 3)).astype(np.float32),
        actions=drawn,
        rewards=rng.normal(size=rows).astype(np.float32),
        terminated=np.arange(len(lengths)) % 2 == 0,
        log_prob=np.full(rows, np.nan, np.float32),
    )


@pytest.fixture(scope="module")
def data(ray_session):
    return register_episodes(noise(), gym.spaces.Discrete(4))


@pytest.fixture
def start():
    """Builds algorithms and stops them after the test."""
    started = []

    def build(training, model, data, seed=0):
        started.append(BUILD[training.algorithm](training, model, data, seed).build_algo())
        return started[-1]

    yield build
    for algorithm in started:
        algorithm.stop()


def opened(algorithm):
    """The learner, with the first minibatch it would take."""
    learner = algorithm.learner_group._learner
    sources = algorithm.offline_data.sample(algorithm.config.train_batch_size_per_learner)
    stream = learner._create_iterator_if_necessary(training_data=TrainingData(data_iterators=sources), num_iters=1)
    return learner, next(stream)


def loss_of(learner, batch, loss=None):
    columns = batch.policy_batches[DEFAULT_MODULE_ID]
    outputs = learner.module.forward_train(batch.policy_batches)[DEFAULT_MODULE_ID]
    compute = type(learner).compute_loss_for_module if loss is None else loss
    return compute(learner, module_id=DEFAULT_MODULE_ID, config=learner.config, batch=columns, fwd_out=outputs)


def weights(algorithm):
    return algorithm.learner_group.get_weights([DEFAULT_MODULE_ID])[DEFAULT_MODULE_ID]


def test_a_fresh_policy_of_four_actions_loses_log_four(data, start):
    learner, batch = opened(start(BC, MLP, data))
    assert loss_of(learner, batch).item() == pytest.approx(math.log(4), rel=0.01)


def test_the_entropy_is_taken_off_the_loss(data, start):
    learner, batch = opened(start(replace(BC, entropy_coeff=0.5), MLP, data))
    assert loss_of(learner, batch).item() == pytest.approx(0.5 * math.log(4), rel=0.02)


@pytest.mark.parametrize("actions", ["discrete", "simplex"])
@pytest.mark.parametrize("model", [MLP, GRU], ids=["mlp", "gru"])
@pytest.mark.parametrize("training", [BC, replace(MARWIL, beta=1.0, max_weight=None, norm_update_rate=0.1, norm_start=3.0)])
def test_the_loss_is_rllibs_on_the_same_batch(ray_session, start, training, model, actions):
    space = gym.spaces.Discrete(4) if actions == "discrete" else Simplex(3)
    algorithm = start(training, model, register_episodes(noise(actions=actions), space))
    learner, batch = opened(algorithm)
    ours = loss_of(learner, batch)
    ours.backward()
    module = learner.module[DEFAULT_MODULE_ID]
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    learner.moving_avg_sqd_adv_norms_per_module.clear()
    stock = loss_of(learner, batch, MARWILTorchLearner.compute_loss_for_module)
    stock.backward()
    assert_allclose(ours.detach(), stock.detach(), rtol=1e-5)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            assert_allclose(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, err_msg=name)


def test_large_advantages_count_no_more_than_the_largest_weight(data, start):
    learner, batch = opened(start(replace(MARWIL, beta=50.0, max_weight=2.0, value_coeff=0.0), MLP, data))
    assert abs(loss_of(learner, batch).item()) <= 2 * math.log(4) * 1.05


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("model", [MLP, GRU], ids=["mlp", "gru"])
def test_value_targets_are_discounted_sums_to_the_real_end_and_the_value_behind_it(data, start, model, bootstrap):
    algorithm = start(replace(MARWIL, gamma=0.8, bootstrap=bootstrap), model, data)
    learner, _ = opened(algorithm)
    policy, episodes = offline_policy(algorithm, "Portfolio-v0"), algorithm.offline_data.episodes
    table, row = learner.minibatches.table, 0
    for number, length in enumerate(episodes.lengths):
        rewards = episodes.rewards[episodes.starts[number] :][:length]
        state = policy.initial_state(1)
        for obs in episodes.obs[episodes.starts[number] :][:length]:
            _, state, _ = policy.act(obs[None], state)
        value = policy.act(episodes.last_obs[number][None], state)[2]["value"][0]
        running = value if bootstrap and not episodes.terminated[number] else 0.0
        for step in reversed(range(length)):
            running = rewards[step] + 0.8 * running
            assert float(table[Columns.VALUE_TARGETS][row + step]) == pytest.approx(running, abs=1e-4)
        row += length + 1


def test_sequences_start_in_the_state_that_the_network_has_there(data, start):
    algorithm = start(BC, GRU, data)
    for _ in range(3):
        algorithm.train()  # a fresh network's states would be small
    learner = algorithm.learner_group._learner
    learner.begin_epoch()
    policy, episodes = offline_policy(algorithm, "Portfolio-v0"), algorithm.offline_data.episodes
    before, row = {}, 0
    for number, length in enumerate(episodes.lengths):
        state, first = policy.initial_state(1), episodes.starts[number]
        for obs in [*episodes.obs[first : first + length], episodes.last_obs[number]]:
            before[row] = state[0]
            _, state, _ = policy.act(obs[None], state)
            row += 1
    is_first = learner.minibatches.table["is_first"]
    checked = 0
    for unit, known in enumerate(learner._states):
        if unit * 4 in before and not is_first[unit * 4]:
            assert_allclose(known, before[unit * 4], atol=1e-5)
            checked += 1
    assert checked >= 10


def test_the_critic_learns_what_a_constant_reward_is_worth(ray_session, start):
    episodes = replace_rewards(noise(lengths=[40] * 8), 1.0)
    algorithm = start(
        replace(MARWIL, gamma=0.5, steps_per_iteration=600), MLP, register_episodes(episodes, gym.spaces.Discrete(4))
    )
    result = algorithm.train()["learners"][DEFAULT_MODULE_ID]
    policy = offline_policy(algorithm, "Portfolio-v0")
    values = policy.act(episodes.obs[:30], policy.initial_state(30))[2]["value"]
    assert_allclose(values, 2.0, atol=0.25)  # 1 + ½ + ¼ + … , whatever is seen
    assert result["vf_loss"] < 0.03


def replace_rewards(episodes, reward):
    return replace(episodes, rewards=np.full(episodes.num_rows, reward, np.float32), terminated=np.zeros(len(episodes), bool))


def test_the_first_advantage_norm_is_the_variance_of_the_returns(data, start):
    algorithm = start(replace(MARWIL, norm_update_rate=0.0, gamma=0.0), MLP, data)
    norm = algorithm.train()["learners"][DEFAULT_MODULE_ID]["moving_avg_sqd_adv_norm"]
    assert norm == pytest.approx(algorithm.offline_data.episodes.rewards.var(), rel=1e-4)


def test_metrics_say_what_was_learnt_and_how_fast(data, start):
    algorithm = start(MARWIL, GRU, data)
    result = algorithm.train()
    module, everyone = result["learners"][DEFAULT_MODULE_ID], result["learners"]["__all_modules__"]
    assert {"policy_loss", "vf_loss", "entropy", "vf_explained_variance"} <= module.keys()
    assert module["vf_explained_variance"] <= 1
    assert everyone["num_env_steps_trained_throughput"] > 0
    assert result["num_env_steps_sampled_lifetime"] == 5 * 32
    rows = sum(algorithm.offline_data.episodes.lengths)
    assert everyone["num_env_steps_trained_lifetime"] <= 5 * 32
    per_epoch = algorithm.learner_group._learner.minibatches.per_epoch
    for _ in range(per_epoch - 1):
        result = algorithm.train()
    assert result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] == 5 * rows  # padding is not counted


@pytest.mark.parametrize("how", ["restore", "from_checkpoint"])
@pytest.mark.parametrize("training", [BC, replace(MARWIL, bootstrap=False)], ids=["bc", "marwil"])
def test_a_restored_training_goes_on_as_if_it_had_never_stopped(data, start, tmp_path, training, how):
    whole = start(training, MLP, data)
    whole.train()
    path = whole.save_to_path(tmp_path / "checkpoint")
    if how == "restore":
        resumed = start(training, MLP, data, seed=0)
        resumed.restore_from_path(path)
    else:
        resumed = Algorithm.from_checkpoint(path)
    assert resumed.train()["training_iteration"] == whole.train()["training_iteration"] == 2
    for name, value in weights(whole).items():
        assert_array_equal(weights(resumed)[name], value, err_msg=name)
    if how == "from_checkpoint":
        resumed.stop()


@pytest.mark.slow
def test_a_remote_learner_learns_what_a_local_one_does(data, start):
    local, remote = start(MARWIL, GRU, data), start(replace(MARWIL, num_learners=1), GRU, data)
    initial = weights(local)
    remote.learner_group.set_state(local.learner_group.get_state())
    local.train()
    remote.train()
    for name, value in weights(local).items():
        assert_allclose(weights(remote)[name], value, atol=1e-6, err_msg=name)
    assert any(not np.array_equal(initial[name], value) for name, value in weights(local).items())


@pytest.mark.parametrize("model", [MLP, GRU], ids=["mlp", "gru"])
def test_the_policy_that_comes_out_normalises_for_itself(data, start, tmp_path, model):
    algorithm = start(BC, model, data)
    algorithm.train()
    policy = offline_policy(algorithm, "MultiAssetRegime-v0")
    loaded = Policy.load(policy.save(tmp_path))
    obs = algorithm.offline_data.episodes.obs[:1]
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
    seen = torch.from_numpy(algorithm.offline_data.normalizer.normalize(obs))
    with torch.no_grad():
        out = module.forward_inference({Columns.OBS: seen, Columns.STATE_IN: {"h": policy.initial_state(1)}})
    action, _, extras = loaded.act(obs, loaded.initial_state(1))
    assert action[0] == int(out[Columns.ACTION_DIST_INPUTS].argmax())
    assert loaded.env_id == "MultiAssetRegime-v0"
    assert loaded.normalizer.count == sum(algorithm.offline_data.episodes.lengths)
    assert extras["entropy"] > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: BCTrainingConfig(batch_size=0), "training.batch_size = 0; expected at least 1"),
        (lambda: BCTrainingConfig(learning_rate=0.0), "training.learning_rate"),
        (lambda: MARWILTrainingConfig(gamma=1.5), "training.gamma = 1.5"),
        (lambda: MARWILTrainingConfig(beta=-1.0), "training.beta = -1.0"),
        (lambda: MARWILTrainingConfig(max_weight=0.5), "training.max_weight"),
        (lambda: MARWILTrainingConfig(norm_start=0.0), "training.norm_start"),
    ],
)
def test_a_setting_without_meaning_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        wrong()


@pytest.mark.slow
def test_tune_runs_them(data, tmp_path):
    from ray import tune

    config = build_marwil(MARWIL, MLP, data)
    config.training(lr=tune.grid_search([1e-3, 1e-2]))
    run = tune.RunConfig(storage_path=str(tmp_path), stop={"training_iteration": 2}, verbose=0)
    results = tune.Tuner(config.algo_class, param_space=config, run_config=run).fit()
    assert not results.errors
    assert [result.metrics["training_iteration"] for result in results] == [2, 2]


@pytest.mark.slow
def test_two_learners_share_each_minibatch_and_stay_equal(data, start):
    algorithm = start(replace(MARWIL, num_learners=2), GRU, data)
    algorithm.train()
    left, right = algorithm.learner_group.foreach_learner(
        lambda learner: {name: p.detach().numpy() for name, p in learner.module[DEFAULT_MODULE_ID].named_parameters()}
    )
    for name, value in left.get().items():
        assert_array_equal(right.get()[name], value, err_msg=name)
