import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.algorithms.export import normalizer_of, policy_from
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig

FAST = PPOTrainingConfig(num_envs_per_env_runner=8, rollout_length=21, minibatch_size=64, num_epochs=2)
STOCK = replace(FAST, fast=False)
both_paths = pytest.mark.parametrize("training", [FAST, STOCK], ids=["fast", "stock"])
GRU, MLP = GRUConfig(embedding_size=16, hidden_size=16, max_seq_len=11), MLPConfig(layers=(16,))


def started(toy_env, training=FAST, model=GRU, toy="recall", seed=0) -> Algorithm:
    return build_ppo(training, model, toy_env, {"toy": toy}, seed).build_algo()


def trace(toy_env, iterations=3, **kwargs):
    """What a run did: losses, returns and weights, exact."""
    algorithm = started(toy_env, **kwargs)
    numbers = []
    for _ in range(iterations):
        result = algorithm.train()
        learner = result["learners"][DEFAULT_MODULE_ID]
        numbers += [float(learner[key]) for key in ("total_loss", "entropy", "vf_loss")]
        numbers += [result["env_runners"]["episode_return_mean"], result["env_runners"]["num_env_steps_sampled_lifetime"]]
    numbers += list(normalizer_of(algorithm).mean)
    numbers += [p.double().abs().sum().item() for p in policy_from(algorithm).actor_critic.parameters()]
    algorithm.stop()
    return numbers


@pytest.mark.parametrize("training", [FAST, replace(STOCK, learning_rate=((0, 1e-3), (100, 0)), grad_clip=None)])
def test_a_training_config_goes_through_json(training):
    assert PPOTrainingConfig(**json.loads(json.dumps(asdict(training)))) == training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1.5}, r"training.gamma = 1.5; expected a discount in \[0, 1\]"),
        ({"minibatch_size": 200}, "minibatch_size = 200 exceeds the 168 transitions"),
        ({"learning_rate": ((5, 1e-3), (9, 0))}, "from step 0 on"),
        ({"entropy_coeff": ((0, 1e-3), (9, 0), (9, 1))}, "steps rising"),
        ({"rollout_length": 0}, "training.rollout_length = 0; expected at least 1"),
        ({"clip": 0}, r"training.clip = 0; expected a number in \(0, 1\)"),
    ],
)
def test_mistakes_in_a_training_config_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(FAST, **change)


def test_the_batch_is_all_that_the_runners_bring_and_learners_share_it():
    training = replace(FAST, num_env_runners=4, num_learners=2)
    assert (training.batch_size, training.batch_size_per_learner) == (8 * 21 * 4, 8 * 21 * 2)


def test_a_gru_learns_from_whole_sequences_of_normalised_observations(toy_env):
    algorithm = started(toy_env, STOCK)
    batches = []
    learner = algorithm.learner_group._learner
    module = learner.module[DEFAULT_MODULE_ID]
    forward = module.forward_train
    module.forward_train = lambda batch: batches.append(batch) or forward(batch)
    algorithm.train()
    assert all(batch[Columns.OBS].shape[1] == GRU.max_seq_len for batch in batches)
    assert max(batch[Columns.OBS].abs().max() for batch in batches) < 10  # raw ones reach 57
    algorithm.stop()


@both_paths
def test_the_learner_recomputes_the_probabilities_the_policy_acted_with(toy_env, training):
    algorithm = started(toy_env, replace(training, learning_rate=0.0))
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
    compute, ratios = module.forward_train, []

    def spy(batch):
        out = compute(batch)
        distribution = module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
        difference = distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        valid = batch.get(Columns.LOSS_MASK, torch.ones_like(difference, dtype=torch.bool))
        ratios.append(difference[valid].abs().max().item())
        return out

    module.forward_train = spy
    algorithm.train()
    algorithm.train()
    assert max(ratios) < 1e-5
    algorithm.stop()


@both_paths
@pytest.mark.parametrize("toy", ["recall", "signal"])
@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
def test_the_same_config_and_seed_give_the_same_numbers(toy_env, training, model, toy):
    settings = {"training": training, "model": model, "toy": toy}
    first = trace(toy_env, **settings)
    assert first == trace(toy_env, **settings)
    assert first != trace(toy_env, **settings, seed=1)


@pytest.mark.slow
def test_the_same_config_and_seed_give_the_same_numbers_with_two_remote_runners(toy_env):
    training = replace(FAST, num_env_runners=2)
    assert trace(toy_env, training=training) == trace(toy_env, training=training)


def test_remote_runners_merge_their_statistics_exactly_once(toy_env):
    algorithm = started(toy_env, replace(STOCK, num_env_runners=2))
    for _ in range(4):
        result = algorithm.train()
    steps = result["env_runners"]["num_env_steps_sampled_lifetime"]
    # Each step brings one observation, each episode one more at its reset; every account starts one and one is pending.
    resets = 2 * 8 * (1 + 4 * 21 // 21)
    count = policy_from(algorithm).normalizer.count
    assert steps < count <= steps + resets
    algorithm.stop()


@both_paths
def test_the_terms_of_an_episode_are_logged_and_add_up_to_its_return(toy_env, training):
    algorithm = started(toy_env, training)
    result = [algorithm.train() for _ in range(2)][-1]["env_runners"]
    assert result["episode"]["total"] == pytest.approx(result["episode_return_mean"])
    algorithm.stop()


@both_paths
def test_an_exported_policy_has_the_weights_and_statistics_of_the_algorithm(toy_env, training):
    algorithm = started(toy_env, training)
    algorithm.train()
    policy = policy_from(algorithm)
    assert policy.env_id == "Toy-v0"
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
    for name, tensor in module.actor_critic.state_dict().items():
        assert_close(policy.actor_critic.state_dict()[name], tensor)
    assert policy.normalizer.count == normalizer_of(algorithm).count
    action, _, _ = policy.act(np.full((3, 4), 7, np.float32), policy.initial_state(3))
    assert action.shape == (3,)
    algorithm.stop()


def test_a_model_that_does_not_normalise_has_no_normalizer(toy_env):
    algorithm = started(toy_env, model=replace(MLP, normalize_observations=False), toy="signal")
    algorithm.train()
    assert policy_from(algorithm).normalizer is None
    algorithm.stop()
