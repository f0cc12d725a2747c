"""PPO that goes on from an earlier policy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.algorithms.export import policy_from
from rlplatform.algorithms.offline_data import register_episodes, training_table
from rlplatform.algorithms.offline_rows import LOGGED_ROWS, OfflineRows, mix_logged_rows
from rlplatform.algorithms.ppo import build_ppo
from rlplatform.algorithms.pretraining import PRETRAINED, Anchor, PretrainConfig, anchor_settings, start_from
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import ACTIONS, register
from tests.algorithms.test_vector_learner import GRU, TRAINING, minibatches, workplace
from tests.offline.test_episodes import logged

NORMALISED = replace(GRU, normalize_observations=True)
PPO = replace(TRAINING, value_clip=None)


@pytest.fixture(scope="module")
def name(ray_session):
    return register()["native"]


@pytest.fixture(scope="module")
def earlier(name):
    """A policy that has seen something: two iterations of PPO."""
    algorithm = build_ppo(PPO, NORMALISED, name, seed=1).build_algo()
    for _ in range(2):
        algorithm.train()
    policy = policy_from(algorithm, "Toy-v0")
    algorithm.stop()
    return policy


@pytest.fixture
def saved(earlier, tmp_path):
    return PretrainConfig(run=str(earlier.save(tmp_path / "run" / "policy").parent), kl_coeff=0.4, kl_anneal_env_steps=100)


def values(policy):
    return {name: tensor.numpy() for name, tensor in policy.actor_critic.state_dict().items()}


@pytest.mark.parametrize("runners", [0, 1])
def test_learner_and_runners_begin_with_the_earlier_weights_and_its_normaliser(name, earlier, runners):
    algorithm = build_ppo(replace(PPO, num_env_runners=runners), NORMALISED, name, seed=7).build_algo()
    try:
        start_from(algorithm, earlier)
        started = policy_from(algorithm, "Toy-v0")
        (seen,) = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: runner.module.get_state(), local_env_runner=runners == 0
        )
        for weight, array in values(earlier).items():
            assert_array_equal(values(started)[weight], array)
            assert_array_equal(seen[f"actor_critic.{weight}"], array)
        if runners == 0:
            assert started.normalizer.count == earlier.normalizer.count
            assert_array_equal(started.normalizer.mean, earlier.normalizer.mean)
        algorithm.train()
        after = policy_from(algorithm, "Toy-v0")
        assert after.normalizer.count == earlier.normalizer.count + 60  # it goes on learning, nothing counted twice
        assert any((values(after)[weight] != array).any() for weight, array in values(earlier).items())
    finally:
        algorithm.stop()


def test_a_value_head_that_was_never_trained_may_stay_behind(name, earlier):
    algorithm = build_ppo(PPO, NORMALISED, name, seed=7).build_algo()
    fresh = values(policy_from(algorithm, "Toy-v0"))
    start_from(algorithm, earlier, load_value=False)
    started = values(policy_from(algorithm, "Toy-v0"))
    algorithm.stop()
    assert_array_equal(started["value.weight"], fresh["value.weight"])
    assert_array_equal(started["policy.weight"], values(earlier)["policy.weight"])


def test_a_policy_of_another_model_is_refused_by_name(name, earlier):
    algorithm = build_ppo(PPO, MLPConfig(layers=(8,)), name).build_algo()
    with pytest.raises(ConfigError, match="a gru of 3 observations and does not fit"):
        start_from(algorithm, earlier)
    algorithm.stop()


def test_a_directory_without_a_policy_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no policy\. Give a finished run"):
        _ = PretrainConfig(run=str(tmp_path)).policy_directory


def anchor(saved, earlier):
    return Anchor(anchor_settings(saved), earlier.actor_critic, "cpu")


def test_the_pull_fades_linearly(saved, earlier):
    pull = anchor(saved, earlier)
    coefficients = []
    for steps in (0, 50, 100, 200):
        pull.at(steps)
        coefficients.append(pull.coeff)
    assert coefficients == [0.4, 0.2, 0.0, 0.0]


def test_the_anchor_remembers_from_rollout_to_rollout(name, saved, earlier):
    place = workplace(name, GRU, PPO)
    rollouts = [place.runner.sample()[0] for _ in range(2)]
    pull, whole = anchor(saved, earlier), earlier.actor_critic
    both = torch.cat([pull.params(rollout) for rollout in rollouts])
    obs, first = (torch.cat([getattr(rollout, part) for rollout in rollouts]) for part in ("obs", "first"))
    with torch.no_grad():
        assert_close(both, whole.forward_sequence(obs, first, whole.initial_state(obs.shape[1])).params)


def test_the_loss_holds_the_divergence_times_the_coefficient(name, saved, earlier):
    place = workplace(name, GRU, PPO)
    rollouts = place.runner.sample()
    plain, _ = loss_of(place, rollouts)
    place.learner._anchor = anchor(saved, earlier)
    pulled, batch = loss_of(place, rollouts)
    head, ours = earlier.head, place.module.forward_train(batch)["action_dist_inputs"]
    divergence = float(head.distribution(batch["anchor_params"]).kl(head.distribution(ours)).mean().detach())
    assert divergence > 1e-4
    assert pulled == pytest.approx(plain + 0.4 * divergence, abs=1e-5)


def loss_of(place, rollouts):
    torch.manual_seed(0)  # of the order of sequences
    (batch,) = minibatches(place, rollouts)
    config = place.learner.config.get_config_for_module(DEFAULT_MODULE_ID)
    outputs = place.module.forward_train(batch)
    loss = place.learner.compute_loss_for_module(module_id=DEFAULT_MODULE_ID, config=config, batch=batch, fwd_out=outputs)
    return float(loss.detach()), batch


def test_an_update_reports_how_far_it_went_and_the_anchor_is_not_asked_when_the_pull_is_gone(name, saved):
    training = replace(PPO, pretrain=saved)
    assert PRETRAINED in build_ppo(training, GRU, name).learner_config_dict
    place = workplace(name, GRU, training)
    metrics = place.learner.update(episodes=place.runner.sample(), num_epochs=1, minibatch_size=60)
    assert np.isfinite(metrics[DEFAULT_MODULE_ID]["kl_to_pretrained"].peek())
    place.learner.before_gradient_based_update(timesteps={"num_env_steps_sampled_lifetime": 500})
    assert "anchor_params" not in loss_of(place, place.runner.sample())[1]


def test_stock_rllib_cannot_be_pulled(saved):
    with pytest.raises(ConfigError, match="kl_coeff and mix_coeff need the fast path"):
        replace(PPO, fast=False, pretrain=saved)


@pytest.mark.parametrize("model", [GRU, MLPConfig(layers=(8,), normalize_observations=False)], ids=lambda m: m.kind)
def test_logged_rows_add_their_imitation_loss_with_a_weight_that_fades(name, model, ray_session):
    episodes = logged([7, 5, 9])  # of three observations and four numbered actions, as the counting environment has
    data = register_episodes(episodes, ACTIONS["discrete"])
    pretrain = PretrainConfig(run="-", mix_coeff=0.5, kl_anneal_env_steps=100, mix_batch_size=1_000)
    config = mix_logged_rows(build_ppo(PPO, model, name), data, None, pretrain)
    assert PPO.pretrain is None  # the rows alone, without an anchor
    place = workplace(name, model, PPO)
    rollouts = place.runner.sample()
    plain, _ = loss_of(place, rollouts)
    place.learner._logged = OfflineRows(config.learner_config_dict[LOGGED_ROWS], config.model_config, "cpu")
    mixed, _ = loss_of(place, rollouts)
    # All rows in one minibatch: by hand, sequence after sequence of the table, each from an empty state.
    network = place.module.actor_critic
    if model is GRU:
        table = training_table(episodes, None, 1.0, 6)
        obs, first = (torch.from_numpy(table[k]).view(-1, 6, *table[k].shape[1:]).transpose(0, 1) for k in ("obs", "is_first"))
        with torch.no_grad():
            params = network.forward_sequence(obs, first, network.initial_state(obs.shape[1])).params
        actions, mask = (torch.from_numpy(table[k]).view(-1, 6).T for k in ("actions", "loss_mask"))
        imitation = -float(network.head.distribution(params).log_prob(actions)[mask].mean())
    else:
        with torch.no_grad():
            params = network(torch.from_numpy(episodes.obs), network.initial_state(21)).params
        imitation = -float(network.head.distribution(params).log_prob(torch.from_numpy(episodes.actions)).mean())
    assert mixed == pytest.approx(plain + 0.5 * imitation, abs=1e-5)
    place.learner.before_gradient_based_update(timesteps={"num_env_steps_sampled_lifetime": 100})
    assert loss_of(place, rollouts)[0] == pytest.approx(plain, abs=1e-6)
