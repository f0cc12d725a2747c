import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import CategoricalHead, LogisticNormalHead, TanhNormalHead
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.q_critics import (
    StateValue,
    TwinQ,
    action_values,
    as_logits,
    following_features,
    policy_actions,
    standard_target_entropy,
    uniform_actions,
    uniform_log_density,
)
from rlplatform.models.truncated_critics import QuantileCritics

MODEL = MLPConfig(layers=(16, 8))
LAYOUT = ObservationLayout(tuple("ABC"), ("A.x", "B.x", "C.x", "weight_A", "weight_B", "weight_C", "drawdown"))
RETURNS = np.random.default_rng(0).normal(size=(50, 3))
ASSET_HEADS = [
    LogisticNormalHead(4),
    LogisticNormalHead(4, leverage=True),
    TanhNormalHead((-1.0,) * 3, (1.0,) * 3),
    TanhNormalHead((-1.0,) * 3 + (0.0,), (1.0,) * 4),
]
HEADS = [
    LogisticNormalHead(2),
    LogisticNormalHead(4),
    LogisticNormalHead(3, leverage=True),
    TanhNormalHead((-1.0, -1.0), (1.0, 1.0)),
    TanhNormalHead((-2.0,), (1.0,)),
]


def params(head, rows=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, head.num_outputs, generator=generator, dtype=torch.float64)
    return torch.cat([mean, 0.2 * mean - 0.3], -1)


def test_weights_of_cash_and_two_assets_fill_a_triangle_of_area_one_half():
    assert uniform_log_density(LogisticNormalHead(3)) == pytest.approx(math.log(2))


def test_weights_in_a_box_of_two_by_three_have_density_one_sixth():
    assert uniform_log_density(TanhNormalHead((-1.0, 0.0), (1.0, 3.0))) == pytest.approx(-math.log(6))


def test_the_target_entropy_in_the_unit_box_is_minus_its_dimension():
    assert standard_target_entropy(TanhNormalHead((-1.0,) * 3, (1.0,) * 3)) == pytest.approx(-3)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_uniform_actions_lie_in_the_space_and_have_its_mean(head):
    actions = uniform_actions(head, (20_000,), torch.zeros(1), torch.Generator().manual_seed(0))
    assert all(head.space().contains(action) for action in actions[:200].numpy())
    middle = torch.tensor(head.space().high + head.space().low) / 2
    if isinstance(head, LogisticNormalHead):
        assert_close(actions[:, : head.num_weights].sum(-1), torch.ones(20_000))
        middle[: head.num_weights] = 1 / head.num_weights
    assert_close(actions.mean(0), middle, atol=0.02, rtol=0)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_the_heads_own_density_integrates_to_one_against_the_uniform_one(head):
    """The two stand on the same coordinates: E over uniform actions of p(a) / u(a) is ∫ p = 1."""
    actions = uniform_actions(head, (400_000,), torch.zeros(1, dtype=torch.float64), torch.Generator().manual_seed(1))
    log_prob = head.distribution(params(head)).log_prob(actions)
    assert float((log_prob - uniform_log_density(head)).exp().mean()) == pytest.approx(1, abs=0.03)


@given(st.sampled_from(HEADS), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_samples_have_the_density_that_the_head_gives_them(head, seed):
    distribution = head.distribution(params(head, rows=5, seed=seed))
    torch.manual_seed(seed)
    actions, log_prob = policy_actions(distribution, 3)
    assert actions.shape == (3, 5, head.space().shape[0])
    assert_close(log_prob, distribution.log_prob(actions), atol=1e-3, rtol=1e-3)


def test_gradients_flow_through_a_sample_into_mean_and_spread():
    leaf = params(HEADS[0]).requires_grad_()
    policy_actions(HEADS[0].distribution(leaf))[0][..., 1].sum().backward()
    assert (leaf.grad != 0).all()


def test_no_weights_are_drawn_for_numbered_actions():
    with pytest.raises(ConfigError, match="discrete_cql"):
        uniform_actions(CategoricalHead(16), (3,), torch.zeros(1))


def test_many_actions_of_one_observation_are_valued_as_one_by_one():
    critics = TwinQ(MODEL, 3, LogisticNormalHead(2))
    obs, actions = torch.randn(5, 3), torch.randn(7, 5, 2)
    together = critics(obs, actions)
    assert together.shape == (2, 7, 5)
    for k in range(7):
        assert_close(together[:, k], critics(obs, actions[k]))
    assert_close(critics.smaller(obs, actions), together.min(0).values)
    assert not torch.allclose(together[0], together[1])


def test_an_mlp_reads_observation_and_action_as_one_row():
    critics = TwinQ(MODEL, 3, LogisticNormalHead(2))
    obs, action = torch.randn(5, 3), torch.randn(5, 2)
    one = critics.critics[1]
    by_hand = one.value(one.encoder.layers(torch.cat([obs, action], 1)))[:, 0]
    assert_close(critics(obs, action)[1], by_hand)


@pytest.mark.parametrize("model", [MODEL, GNNConfig(hidden_size=4).bound_to(LAYOUT, RETURNS)], ids=lambda c: c.kind)
def test_a_state_value_is_one_number_for_each_observation(model):
    size = 3 if model is MODEL else len(LAYOUT.names)
    assert StateValue(model, size)(torch.randn(4, 6, size)).shape == (4, 6)


def graph_critics(kind, head):
    """(obs, action) → values (2, B, ...), of CQL's and IQL's critics or of TQC's."""
    torch.manual_seed(0)
    graph, size = GNNConfig(hidden_size=4, graph="full", activation="tanh").bound_to(LAYOUT), len(LAYOUT.names)
    if kind == "twin":
        return TwinQ(graph, size, head).double()
    critics = QuantileCritics(graph, size, head, critics=2, quantiles=3, layers=(5,)).double()
    return lambda obs, action: critics(critics.features(obs[:, None]), action[:, None])


every_critic = pytest.mark.parametrize("kind", ["twin", "quantile"])


@every_critic
@given(st.permutations(range(3)), st.sampled_from(ASSET_HEADS), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_graphs_critic_values_the_same_trade_alike_whatever_the_order_of_the_assets(kind, order, head, seed):
    """Entries of an asset and its weight move together; cash stays first, and leverage last."""
    critics, generator = graph_critics(kind, head), torch.Generator().manual_seed(seed)
    obs = torch.randn(2, 7, generator=generator, dtype=torch.float64)  # A.x B.x C.x weight_A weight_B weight_C drawdown
    action = torch.rand(2, head.space().shape[0], generator=generator, dtype=torch.float64)
    first = int(isinstance(head, LogisticNormalHead))
    moved = action.clone()
    moved[:, first : first + 3] = action[:, first : first + 3][:, order]
    columns = [*order, *(3 + i for i in order), 6]
    assert_close(critics(obs[:, columns], moved), critics(obs, action))
    if list(order) != [0, 1, 2]:
        assert not torch.allclose(critics(obs, moved), critics(obs, action))  # another trade


@every_critic
@pytest.mark.parametrize("head", ASSET_HEADS, ids=str)
def test_a_graphs_critic_hears_every_entry_of_the_action(kind, head):
    action = torch.full((1, head.space().shape[0]), 0.3, dtype=torch.float64, requires_grad=True)
    graph_critics(kind, head)(torch.ones(1, 7, dtype=torch.float64), action).square().sum().backward()
    assert (action.grad != 0).all()


@pytest.mark.parametrize("config", [MODEL, GRUConfig(embedding_size=8, hidden_size=8)], ids=lambda c: c.kind)
def test_features_of_what_followed_are_those_of_the_episode_itself(config):
    network = ActorCritic(config, 3, CategoricalHead(4))
    obs, state = torch.randn(2, 6, 3), network.initial_state(2)
    _, features, _ = action_values(network, obs[:, :5], state)
    _, longer, _ = action_values(network, obs, state)
    assert_close(following_features(network.encoder, features, obs[:, 1:]), longer[:, 1:])


def test_logits_are_values_over_the_temperature_and_keep_their_order():
    network = ActorCritic(MODEL, 3, CategoricalHead(4))
    torch.nn.init.normal_(network.policy.bias)
    obs = torch.randn(6, 3)
    values, *_ = action_values(network, obs, network.initial_state(6))
    as_logits(network, 0.25)
    out = network(obs, network.initial_state(6))
    assert_close(out.params, 4 * values)
    assert_close(network.head.distribution(out.params).mode(), values.argmax(-1))
