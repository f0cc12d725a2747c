import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from torch.testing import assert_close

from envs.spaces import Simplex
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.rl_module import ActorCriticModule, module_settings, module_spec

OBS = gym.spaces.Box(-10, 10, (6,), np.float32)
ACTIONS = [gym.spaces.Discrete(5), Simplex(3), gym.spaces.Box(-1.0, 1.0, (2,), np.float32)]


def build(config, action_space=ACTIONS[0]) -> ActorCriticModule:
    torch.manual_seed(0)
    spec = module_spec(config)
    spec.observation_space, spec.action_space = OBS, action_space
    return spec.build()


def batch(module, shape):
    state = {name: torch.randn(shape[0], *value.shape) for name, value in module.get_initial_state().items()}
    return {Columns.OBS: torch.randn(*shape, 6), **({Columns.STATE_IN: state} if state else {})}


def test_a_gru_is_stateful_and_an_mlp_is_not():
    assert build(GRUConfig()).is_stateful()
    assert not build(MLPConfig()).is_stateful()


def test_the_sequence_length_is_among_the_settings_rllib_reads():
    assert module_settings(GRUConfig(max_seq_len=17))["max_seq_len"] == 17


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
@pytest.mark.parametrize("config", [GRUConfig(), MLPConfig()], ids=lambda c: c.kind)
def test_every_forward_pass_says_what_the_network_says(config, action_space):
    module = build(config, action_space)
    inputs = batch(module, (4, 7) if module.is_stateful() else (4,))
    state = inputs[Columns.STATE_IN]["h"] if module.is_stateful() else torch.zeros(4, 0)
    expected = module.actor_critic(inputs[Columns.OBS], state)
    for forward in (module.forward_inference, module.forward_exploration, module.forward_train):
        out = forward(inputs)
        assert_close(out[Columns.ACTION_DIST_INPUTS], expected.params)
        if module.is_stateful():
            assert_close(out[Columns.STATE_OUT]["h"], expected.state)
    assert_close(module.compute_values(inputs), expected.value)
    assert_close(module.compute_values(inputs, embeddings=out[Columns.EMBEDDINGS]), expected.value)


@pytest.mark.parametrize("action_space", ACTIONS, ids=str)
def test_the_distribution_class_is_our_distribution_behind_rllibs_names(action_space):
    module = build(MLPConfig(), action_space)
    params = module.forward_train(batch(module, (9,)))[Columns.ACTION_DIST_INPUTS]
    ours = module.actor_critic.head.distribution(params)
    theirs = module.get_train_action_dist_cls().from_logits(params)
    other = module.get_exploration_action_dist_cls().from_logits(torch.zeros_like(params))
    action = theirs.sample()
    assert all(action_space.contains(a.numpy()) for a in action)
    assert_close(theirs.logp(action), ours.log_prob(action))
    assert_close(theirs.entropy(), ours.entropy())
    assert theirs.kl(other).shape == (9,)
    mode = theirs.to_deterministic()
    assert_close(mode.sample(), ours.mode())
    assert_close(mode.logp(mode.sample()), torch.zeros(9))
