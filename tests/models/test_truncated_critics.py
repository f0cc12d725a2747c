"""Truncated quantile critics: pooling, truncation and tail weights by hand, then laws."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.core.columns import Columns
from torch.testing import assert_close

from envs.spaces import Simplex
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import LogisticNormalHead
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.q_module import q_module_spec
from rlplatform.models.quantile_critic import shortfall_utility
from rlplatform.models.rl_module import HIDDEN
from rlplatform.models.tqc_module import TQCModule
from rlplatform.models.truncated_critics import QuantileCritics, pooled, risk_weights, truncated

GRAPH = GNNConfig(hidden_size=8, graph="full").bound_to(ObservationLayout(("A", "B"), ("A.x", "B.x", "drawdown")))
MODELS = [MLPConfig(layers=(8,)), GRUConfig(embedding_size=8, hidden_size=8), GRAPH, replace(GRAPH, memory="gru")]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: m.kind)


def test_two_critics_of_three_quantiles_are_pooled_in_order():
    quantiles = torch.tensor([[5.0, 1.0, 3.0], [2.0, 6.0, 4.0]])
    assert_close(pooled(quantiles), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))


def test_the_largest_of_the_pool_go_whichever_critic_they_are_of():
    # One a critic, two in all: 7 and 8, both the second critic's.
    quantiles = torch.tensor([[5.0, 1.0, 3.0], [2.0, 8.0, 7.0]])
    assert_close(truncated(quantiles, 1), torch.tensor([1.0, 2.0, 3.0, 5.0]))
    assert_close(truncated(quantiles, 0), pooled(quantiles))


def test_of_four_atoms_the_worst_three_eighths_are_one_and_a_half():
    assert_close(risk_weights(4, 0.375, 1.0), torch.tensor([2 / 3, 1 / 3, 0.0, 0.0]))
    assert_close(risk_weights(4, 0.375, 0.0), torch.full((4,), 0.25))
    assert_close(risk_weights(4, 0.5, 0.5), torch.tensor([0.375, 0.375, 0.125, 0.125]))


@given(st.integers(1, 60), st.floats(0.01, 1.0), st.floats(0, 1), st.integers(0, 1_000))
@settings(max_examples=40, deadline=None)
def test_the_weighted_atoms_are_the_mean_and_rockafellars_cvar(count, alpha, weight, seed):
    atoms = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort().values
    weights = risk_weights(count, alpha, weight).double()
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    cvar = shortfall_utility(atoms.expand(count, count), atoms, alpha).mean(-1).max()  # the best ν is one of the atoms
    assert float(weights @ atoms) == pytest.approx(float((1 - weight) * atoms.mean() + weight * cvar), abs=1e-4)


@every_model
def test_many_actions_of_one_observation_are_valued_as_one_by_one(model):
    critics = QuantileCritics(model, 3, LogisticNormalHead(3), critics=3, quantiles=5, layers=(6,))
    features, actions = critics.features(torch.randn(4, 7, 3)), torch.randn(4, 7, 3)
    together = critics(features, actions)
    assert together.shape == (3, 4, 7, 5)
    assert_close(together[:, 2, 4], critics(features[2, 4], actions[2, 4]))
    assert not torch.allclose(together[0], together[1])


def test_memory_of_the_critics_ends_with_the_episode():
    critics = QuantileCritics(MODELS[1], 3, LogisticNormalHead(3), critics=1, quantiles=4, layers=())
    obs, first = torch.randn(1, 6, 3), torch.tensor([[True, False, False, True, False, False]])
    assert_close(critics.features(obs, first)[:, 3:], critics.features(obs[:, 3:]))
    assert not torch.allclose(critics.features(obs)[:, 3:], critics.features(obs[:, 3:]))


def module(model) -> TQCModule:
    torch.manual_seed(0)
    spec, _ = q_module_spec(TQCModule, model, num_critics=2, quantiles=5, critic_layers=[6], initial_alpha=0.2)
    spec.observation_space, spec.action_space = SimpleNamespace(shape=(3,)), Simplex(3)
    return spec.build()


def batch(model, length=4, rows=6) -> dict:
    actions = torch.rand(rows, length, 3)
    return {
        Columns.OBS: torch.randn(rows, length + 1, 3),
        TQCModule.IS_FIRST: torch.zeros(rows, length + 1, dtype=torch.bool),
        Columns.ACTIONS: actions / actions.sum(-1, keepdim=True),
        Columns.STATE_IN: {HIDDEN: torch.randn(rows, model.encoder(3).state_size)},
    }


@every_model
def test_the_module_says_what_the_losses_read(model):
    net = module(model)
    out = net.forward_train(batch(model))
    assert out[net.Q].shape == out[net.Q_NEXT].shape == (2, 6, 4, 5)
    assert out[net.Q_POLICY].shape == (6, 4, 10)
    assert (out[net.Q_POLICY].diff(dim=-1) >= 0).all()
    assert out[net.ENTROPY].shape == (6, 4)
    assert not out[net.Q_NEXT].requires_grad


@every_model
def test_what_the_actor_is_told_reaches_its_weights_through_the_action_alone(model):
    net = module(model)
    out = net.forward_train(batch(model))
    encoder = [p for p in net.critics.encoder.parameters()]
    actor = [p for n, p in net.actor_critic.named_parameters() if not n.startswith("value")]
    total = out[net.Q_POLICY].sum()
    found = torch.autograd.grad(total, actor + encoder, allow_unused=True)
    assert all(g is not None and g.abs().sum() > 0 for g in found[: len(actor)])
    assert all(g is None for g in found[len(actor) :])


def test_the_last_row_is_only_what_followed():
    net, rows = module(MODELS[0]), batch(MODELS[0])
    with torch.no_grad():
        net.actor_critic.policy.weight.zero_()  # so that no action tells the observation
    torch.manual_seed(1)
    before = net.forward_train(rows)
    rows[Columns.OBS][:, -1] += 1.0
    torch.manual_seed(1)
    after = net.forward_train(rows)
    assert torch.equal(before[net.Q], after[net.Q])
    assert torch.equal(before[net.Q_NEXT][:, :, :-1], after[net.Q_NEXT][:, :, :-1])
    assert not torch.allclose(before[net.Q_NEXT][:, :, -1], after[net.Q_NEXT][:, :, -1])
