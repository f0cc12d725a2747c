"""What is particular to the GNN; the contract of all models is in test_encoders.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.testing import assert_close

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gnn import GNNConfig, Messages
from rlplatform.models.gnn_heads import NodeActionValue, NodePolicy
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import CategoricalHead, LogisticNormalHead, TanhNormalHead
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.policy import Policy
from rlplatform.models.transfer import for_assets

GRAPHS = ["correlation", "partial_correlation", "attention", "full", "none"]


def layout_of(symbols) -> ObservationLayout:
    features = tuple(f"{symbol}.{feature}" for symbol in symbols for feature in ("return_1", "volatility"))
    account = ("cash_weight", *(f"weight_{symbol}" for symbol in symbols), "drawdown")
    return ObservationLayout(tuple(symbols), (*features, "vix", *account))


def returns_of(n, seed=0):
    """Two sectors in turn, each with a factor of its own."""
    rng = np.random.default_rng(seed)
    return 0.01 * (rng.normal(size=(600, 2))[:, np.arange(n) % 2] + 0.7 * rng.normal(size=(600, n)))


def gnn(n=5, **fields) -> GNNConfig:
    return GNNConfig(hidden_size=8, **fields).bound_to(layout_of("ABCDEFGHIJ"[:n]), returns_of(n))


def long_only(n):
    return LogisticNormalHead(n + 1)


def network(config, head=None, seed=0) -> ActorCritic:
    torch.manual_seed(seed)
    head = head or long_only(config.layout.num_assets)
    return ActorCritic(config, len(config.layout.names), head)


def test_a_message_is_the_weighted_sum_of_what_neighbours_are():
    config = gnn(3, graph="sectors", sectors={"x": ("A", "B", "C")})
    nodes = torch.tensor([[1.0] * 8, [2.0] * 8, [6.0] * 8])
    assert_close(Messages(config).gather(nodes)[:, 0], torch.tensor([4.0, 3.5, 1.5]))
    assert_close(Messages(gnn(3, graph="full")).gather(nodes)[:, 0], torch.tensor([4.0, 3.5, 1.5]))
    one_way = replace(config, edges=((0, 1, 0.75), (0, 2, -0.25)))
    assert_close(Messages(one_way).gather(nodes)[:, 0], torch.tensor([0.0, 0.0, 0.0]))  # 0.75 · 2 − 0.25 · 6
    assert_close(Messages(one_way).gather(nodes + 1)[:, 0], torch.tensor([0.5, 0.0, 0.0]))


def test_the_logit_of_an_asset_is_its_score_less_the_score_of_cash():
    layer = NodePolicy(2, cash=True, leverage=False)
    with torch.no_grad():
        layer.node.weight[:] = torch.tensor([[1.0, 0.0]])
        layer.cash.weight[:] = torch.tensor([[0.0, 1.0]])
    assert_close(layer(torch.tensor([3.0, 10.0, 5.0, 20.0])), torch.tensor([3.0 - 15, 5.0 - 15]))


def test_the_value_of_an_action_mixes_the_mean_of_what_nodes_make_of_their_weights():
    layer = NodeActionValue(1, 2, LogisticNormalHead(3), layers=(2,), outputs=1, activation="relu")
    with torch.no_grad():
        layer.node[0].weight[:] = torch.tensor([[1.0, 10.0, 0.0], [0.0, 0.0, 1.0]])  # of node, own weight, cash
        layer.mix[0].weight[:] = torch.eye(2)
        layer.value.weight[:] = torch.tensor([[1.0, 100.0]])
    nodes, action = torch.tensor([1.0, -3.0]), torch.tensor([0.5, 0.3, 0.2])  # cash first
    by_hand = (1 + 10 * 0.3 + max(-3 + 10 * 0.2, 0)) / 2 + 100 * 0.5
    assert_close(layer(nodes, action), torch.tensor([by_hand]))


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("graph", GRAPHS)
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(5)), seed=st.integers(0, 2**31), levered=st.booleans())
def test_weights_follow_the_assets_when_they_are_permuted(graph, memory, order, seed, levered):
    config, symbols, returns = GNNConfig(hidden_size=8, graph=graph, memory=memory), "ABCDE", returns_of(5)
    head = LogisticNormalHead(6, levered)
    shuffled = [symbols[i] for i in order]
    ours = network(config.bound_to(layout_of(symbols), returns), head)
    theirs = network(config.bound_to(layout_of(shuffled), returns[:, order]), head)
    with torch.no_grad():
        for parameter in ours.policy.parameters():
            parameter.mul_(100)
    theirs.load_state_dict(ours.state_dict())
    torch.manual_seed(seed)
    obs = torch.randn(3, 4, len(ours.encoder.config.layout.names))
    columns = [layout_of(symbols).names.index(name) for name in layout_of(shuffled).names]
    first = torch.rand(3, 4) < 0.3
    here = ours(obs, ours.initial_state(3), first)
    there = theirs(obs[..., columns], theirs.initial_state(3), first)
    weights, permuted = (head.distribution(out.params).mode() for out in (here, there))
    cash_first = [0, *(1 + i for i in order), *([6] if levered else [])]
    assert_close(permuted, weights[..., cash_first], atol=1e-5, rtol=1e-4)
    assert_close(there.value, here.value, atol=1e-5, rtol=1e-4)
    assert weights.std(-1).mean() > 0.01  # it has preferences, so that following means something


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_weights_have_the_same_shapes_for_5_assets_and_for_10(graph, memory):
    shapes = [
        {name: tensor.shape for name, tensor in network(gnn(n, graph=graph, memory=memory)).state_dict().items()}
        for n in (5, 10)
    ]
    assert shapes[0] == shapes[1]


def test_signed_weights_and_numbered_actions_have_their_heads():
    obs = torch.randn(7, len(layout_of("ABC").names))
    signed = network(gnn(3), TanhNormalHead((-1.0,) * 3, (1.0,) * 3))
    assert signed(obs, signed.initial_state(7)).params.shape == (7, 6)
    assert signed.policy.cash is None
    numbered = network(gnn(3), CategoricalHead(16))
    assert numbered(obs, numbered.initial_state(7)).params.shape == (7, 16)
    with pytest.raises(ConfigError, match="gnn has 3 assets; the action wants 5 numbers"):
        network(gnn(3), TanhNormalHead((-1.0,) * 5, (1.0,) * 5))


def test_a_message_comes_from_neighbours_only():
    config = gnn(4, graph="sectors", sectors={"x": ("A", "B"), "y": ("C", "D")})
    encoder = network(config).encoder
    obs = torch.randn(2, len(config.layout.names))
    moved = obs.clone()
    moved[:, config.layout.asset_columns[1][0]] += 1.0
    change = (encoder.nodes(moved) - encoder.nodes(obs)).abs().sum((0, 2)).detach()
    assert (change[:2] > 1e-3).all()
    assert (change[2:] == 0).all()


def trained_like(config, seed=0) -> Policy:
    """A policy with weights that mean something and the statistics of what it saw."""
    net = network(config, seed=seed)
    with torch.no_grad():
        for parameter in net.policy.parameters():
            parameter.mul_(100)
    seen = np.random.default_rng(seed).normal(3, 2, size=(50, len(config.layout.names)))
    normalizer = ObservationNormalizer(seen.shape[1], groups=config.observation_groups)
    normalizer.update(seen)
    return Policy(net, normalizer, "Portfolio-v0")


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_saved_gnn_acts_the_same(tmp_path, memory):
    policy = trained_like(gnn(4, memory=memory))
    loaded = Policy.load(policy.save(tmp_path))
    obs = np.random.default_rng(1).normal(3, 2, size=(6, len(policy.config.layout.names)))
    assert loaded.config == policy.config
    assert_allclose(loaded.act(obs, loaded.initial_state(6))[0], policy.act(obs, policy.initial_state(6))[0])


def test_a_policy_carried_to_the_same_assets_in_another_order_moves_with_them_normaliser_and_all():
    policy, shuffled = trained_like(gnn(4)), layout_of("DBAC")
    carried = for_assets(policy, shuffled, long_only(4), returns_of(4)[:, [3, 1, 0, 2]])
    obs = np.random.default_rng(1).normal(3, 2, size=(6, len(shuffled.names)))
    columns = [policy.config.layout.names.index(name) for name in shuffled.names]
    ours, _, _ = policy.act(obs, policy.initial_state(6))
    theirs, _, _ = carried.act(obs[:, columns], carried.initial_state(6))
    assert_allclose(theirs, ours[:, [0, 4, 2, 1, 3]], atol=1e-5)
    assert_allclose(carried.normalizer.std, policy.normalizer.std[columns])


def test_a_policy_of_5_assets_acts_on_10():
    carried = for_assets(trained_like(gnn(5)), layout_of("ABCDEFGHIJ"), long_only(10), returns_of(10))
    obs = np.random.default_rng(1).normal(3, 2, size=(6, len(layout_of("ABCDEFGHIJ").names)))
    weights, _, _ = carried.act(obs, carried.initial_state(6))
    assert weights.shape == (6, 11)
    assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_what_cannot_be_carried_is_named():
    policy, layout = trained_like(gnn(4)), layout_of("ABCDE")
    other = ObservationLayout(layout.symbols, tuple(name.replace("volatility", "skewness") for name in layout.names))
    with pytest.raises(ConfigError, match=r"differ, first in \*\.skewness"):
        for_assets(policy, other, long_only(5), returns_of(5))
    with pytest.raises(ConfigError, match=r"graph = 'correlation' is fitted on returns of training rows"):
        for_assets(policy, layout, long_only(5))
    with pytest.raises(ConfigError, match=r"expected weights"):
        for_assets(policy, layout, CategoricalHead(5))
    with pytest.raises(ConfigError, match=r"do not fit the new action"):
        for_assets(policy, layout, LogisticNormalHead(6, leverage=True), returns_of(5))
    with pytest.raises(ConfigError, match=r"knows its own assets only; expected gnn"):
        for_assets(Policy(ActorCritic(GRUConfig(), 4, long_only(2)), None, "x"), layout, long_only(5))


def test_mistakes_in_a_gnn_config_are_named():
    for fields, message in (
        ({"graph": "friends"}, r"model.graph = 'friends'; expected one of correlation"),
        ({"graph": "attention", "attention_heads": 3}, r"attention_heads = 3 does not divide model.hidden_size = 32"),
        ({"graph": "sectors"}, r"model.graph: sectors and model.sectors go together"),
        ({"penalty": 0.0}, r"model.penalty = 0.0"),
        ({"rounds": 0}, r"model.rounds = 0; expected 1 to 16"),
    ):
        with pytest.raises(ConfigError, match=message):
            GNNConfig(**fields)
    with pytest.raises(ConfigError, match=r"must know which entries of the observation belong to which asset"):
        ActorCritic(GNNConfig(), 4, long_only(2))
    with pytest.raises(ConfigError, match=r"names 15 entries; the observation has 4"):
        ActorCritic(gnn(4), 4, long_only(4))
    with pytest.raises(ConfigError, match=r"of 2 entries of the observation none belongs to each of 2 assets"):
        GNNConfig(graph="full").bound_to(ObservationLayout(("A", "B"), ("x", "y")))
