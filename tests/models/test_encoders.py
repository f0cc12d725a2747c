"""The contract that every model passes, and what is particular to one."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import model_config_dict, model_config_from
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import CategoricalHead, LogisticNormalHead, TanhNormalHead
from rlplatform.models.hierarchical import GateConfig, HierarchicalConfig
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.mlp import MLPConfig

NAMES = ("A.return_1", "A.trend", "B.return_1", "B.trend", "vix", "slope", "cash_weight", "weight_A", "weight_B", "drawdown")
GRAPH = GNNConfig(hidden_size=8, graph="full").bound_to(ObservationLayout(("A", "B"), NAMES))
GATED = HierarchicalConfig(
    hidden_size=24, embedding_size=16, gate=GateConfig(columns=("vix", "slope"), hidden_size=8)
).bound_to(ObservationLayout(("A", "B"), NAMES))
CONFIGS = [
    GRUConfig(),
    MLPConfig(),
    GRUConfig(hidden_size=24, embedding_size=40, activation="silu"),
    MLPConfig(layers=(8,)),
    GRAPH,
    replace(GRAPH, memory="gru", graph="attention", rounds=2),
    GATED,
    HierarchicalConfig(memory="none", layers=(8,), actor_layers=(6,)),
]
HEADS = [CategoricalHead(16), LogisticNormalHead(3, leverage=True), TanhNormalHead((-2.0, -2.0), (2.0, 2.0))]
D = 10

every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)


def network(config, head=HEADS[0], obs_size=D, seed=0):
    torch.manual_seed(seed)
    return ActorCritic(config, obs_size, head)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_gru_policy_of_64_observations_and_16_actions_has_109841_parameters():
    # embed 64·128+128, norm 256, GRU 3·(128·128·2 + 2·128), policy 128·16+16, value 129
    assert count(network(GRUConfig(), obs_size=64)) == 8_320 + 256 + 99_072 + 2_064 + 129


@every_config
@pytest.mark.parametrize("head", HEADS, ids=lambda h: h.kind)
def test_shapes_of_a_step_and_of_a_sequence(config, head):
    net = network(config, head)
    step = net(torch.randn(3, D), net.initial_state(3))
    sequence = net(torch.randn(3, 7, D), net.initial_state(3))
    assert step.params.shape == (3, net.head.num_params)
    assert step.value.shape == (3,)
    assert sequence.params.shape == (3, 7, net.head.num_params)
    assert sequence.value.shape == (3, 7)
    assert step.state.shape == sequence.state.shape == (3, net.state_size)


@every_config
def test_one_step_at_a_time_equals_the_whole_sequence(config):
    net = network(config)
    obs, state = torch.randn(3, 9, D), torch.randn(3, net.state_size)
    whole = net(obs, state)
    for t in range(9):
        step = net(obs[:, t], state)
        state = step.state
        assert_close(step.params, whole.params[:, t])
        assert_close(step.value, whole.value[:, t])
    assert_close(state, whole.state)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from(CONFIGS))
def test_a_reset_inside_a_sequence_equals_separate_sequences(seed, length, config):
    net = network(config)
    torch.manual_seed(seed)
    obs, state = torch.randn(4, length, D), torch.randn(4, net.state_size)
    first = torch.rand(4, length) < 0.3
    with_resets = net(obs, state, first)
    for b in range(4):
        starts = sorted({0, *torch.nonzero(first[b])[:, 0].tolist()})
        for start, end in zip(starts, [*starts[1:], length], strict=True):
            before = net.initial_state(1) if first[b, start] else state[b : b + 1]
            alone = net(obs[b : b + 1, start:end], before)
            assert_close(with_resets.params[b, start:end], alone.params[0])
        assert_close(with_resets.state[b], alone.state[0])


@every_config
def test_time_major_and_batch_major_agree(config):
    net = network(config)
    obs, first, state = torch.randn(3, 6, D), torch.rand(3, 6) < 0.3, torch.randn(3, net.state_size)
    batch_major = net(obs, state, first)
    time_major = net.forward_sequence(obs.transpose(0, 1), first.T, state)
    assert_close(time_major.params.transpose(0, 1), batch_major.params)
    assert_close(time_major.value.T, batch_major.value)


@every_config
@pytest.mark.parametrize("head", HEADS, ids=lambda h: h.kind)
@pytest.mark.parametrize("resets", [False, True])
def test_every_parameter_gets_a_finite_gradient(config, head, resets):
    net = network(config, head)
    first = torch.rand(4, 6) < 0.3 if resets else None
    out = net(torch.randn(4, 6, D) * 10, net.initial_state(4), first)
    distribution = net.head.distribution(out.params)
    (distribution.log_prob(distribution.sample()) + distribution.entropy() + out.value).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_fresh_policy_prefers_nothing():
    out = network(GRUConfig())(torch.randn(100, D), torch.zeros(100, 128))
    assert torch.softmax(out.params, -1).max() < 1 / 16 + 0.005
    out = network(MLPConfig(), LogisticNormalHead(4))(torch.randn(100, D), torch.zeros(100, 0))
    assert_close(LogisticNormalHead(4).distribution(out.params).mode(), torch.full((100, 4), 0.25), atol=0.02, rtol=0)


def test_the_spread_of_a_continuous_policy_does_not_depend_on_the_observation():
    head = LogisticNormalHead(4)
    out = network(GRUConfig(initial_log_std=-1.0), head)(torch.randn(5, D), torch.zeros(5, 128))
    assert torch.equal(head.distribution(out.params).log_std, torch.full((5, 3), -1.0))


@every_config
def test_the_same_seed_makes_the_same_network(config):
    first, second = network(config, seed=5).state_dict(), network(config, seed=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@every_config
def test_a_model_config_goes_through_json(config):
    assert model_config_from(json.loads(json.dumps(model_config_dict(config)))) == config


def test_mistakes_in_a_model_config_are_named():
    with pytest.raises(ConfigError, match=r"model.kind = 'lstm'; expected one of gnn, gru, hierarchical, mlp"):
        model_config_from({"kind": "lstm"})
    with pytest.raises(ConfigError, match=r"unknown key model.hiden_size"):
        model_config_from({"kind": "gru", "hiden_size": 4})
    with pytest.raises(ConfigError, match=r"model.hidden_size = 0"):
        GRUConfig(hidden_size=0)
    with pytest.raises(ConfigError, match=r"model.layers = \[\]"):
        MLPConfig(layers=())
    with pytest.raises(ConfigError, match=r"model.activation = 'gelu'"):
        GRUConfig(activation="gelu")
