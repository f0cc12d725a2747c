import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.ensemble import Ensemble, load_policy, mean_law
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import CategoricalHead, LogisticNormalHead, TanhNormalHead
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy

D = 6
HEADS = (LogisticNormalHead(4), LogisticNormalHead(4, True), CategoricalHead(5), TanhNormalHead((-1.0, -1.0), (1.0, 1.0)))


def a_policy(seed, head=HEADS[0], config=None, env_id="Portfolio-v0"):
    """A random network whose decisions differ, with statistics of its own."""
    torch.manual_seed(seed)
    normalizer = ObservationNormalizer(D)
    normalizer.update(np.random.default_rng(seed).normal(seed, 3, size=(100, D)))
    network = ActorCritic(config or GRUConfig(embedding_size=8, hidden_size=8), D, head)
    torch.nn.init.normal_(network.policy.weight, std=1.0)
    return Policy(network, normalizer, env_id)


def play(policy, steps=4, accounts=3):
    state, actions = policy.initial_state(accounts), []
    for obs in np.random.default_rng(1).normal(2, 3, size=(steps, accounts, D)).astype(np.float32):
        action, state, _ = policy.act(obs, state)
        actions.append(action)
    return np.stack(actions)


def law(head, mode):
    """The distribution of a head whose mode is known."""
    action = torch.tensor([mode])
    if isinstance(head, CategoricalHead):
        return head.distribution(action.log())
    mean = head.distribution(torch.zeros(1, 2 * head.num_outputs)).to_normal(action)
    return head.distribution(torch.cat([mean, torch.full_like(mean, -1.0)], -1))


@pytest.mark.parametrize(
    ("head", "modes", "mean"),
    [
        (LogisticNormalHead(2), ([0.5, 0.5], [0.25, 0.75]), [0.375, 0.625]),
        # ℓ w: .2 · (.5, .5) and .6 · (.1, .9) have the mean (.08, .32) = .4 · (.2, .8)
        (LogisticNormalHead(2, True), ([0.5, 0.5, 0.2], [0.1, 0.9, 0.6]), [0.2, 0.8, 0.4]),
        (TanhNormalHead((-1.0,), (1.0,)), ([-0.2], [0.6]), [0.2]),
    ],
    ids=["simplex", "levered simplex", "signed"],
)
def test_the_ensemble_holds_the_mean_of_the_weights_that_its_members_would_hold(head, modes, mean):
    found = mean_law(head, [law(head, mode) for mode in modes])
    assert_allclose(found.mode()[0], mean, atol=1e-6)
    assert_allclose(found.log_std[0], -1.0)


def test_numbered_actions_are_chosen_by_mean_probability_not_by_votes():
    head = CategoricalHead(3)
    laws = [law(head, probabilities) for probabilities in ([0.6, 0.4, 1e-9], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3])]
    found = mean_law(head, laws)  # votes: one each
    assert_allclose(found.log_probs.exp()[0], [0.3, 0.4, 0.3], rtol=1e-5)
    assert found.mode().tolist() == [1]


@settings(max_examples=12, deadline=None)
@given(head=st.sampled_from(HEADS), seeds=st.lists(st.integers(0, 99), min_size=2, max_size=4, unique=True))
def test_order_does_not_matter_and_a_policy_twice_is_itself(head, seeds):
    members = [a_policy(seed, head) for seed in seeds]
    assert_allclose(play(Ensemble(members[::-1])), play(Ensemble(members)), atol=1e-6)
    assert_allclose(play(Ensemble([members[0]] * 2)), play(members[0]), atol=2e-6)


def test_each_member_keeps_its_own_memory_and_statistics():
    kinds = (GRUConfig(embedding_size=8, hidden_size=8), MLPConfig(layers=(8,)), GRUConfig(embedding_size=4, hidden_size=12))
    members = [a_policy(seed, config=config) for seed, config in enumerate(kinds)]
    assert_allclose(play(Ensemble(members)), np.mean([play(member) for member in members], axis=0), atol=1e-6)
    assert Ensemble(members).initial_state(3).shape == (3, 8 + 0 + 12)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_a_saved_ensemble_acts_the_same(tmp_path, head):
    ensemble = Ensemble([a_policy(seed, head) for seed in (0, 1)])
    ensemble.save(tmp_path)
    loaded = load_policy(ensemble.save(tmp_path))  # over the one before
    assert loaded.describe() == ensemble.describe()
    assert_array_equal(play(loaded), play(ensemble))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["members"]


def test_one_network_is_loaded_as_before(tmp_path):
    policy = a_policy(0)
    assert_array_equal(play(load_policy(policy.save(tmp_path))), play(policy))


def test_samples_scatter_around_the_mean_decision_and_have_a_density():
    ensemble, obs = Ensemble([a_policy(seed, HEADS[3]) for seed in (0, 1)]), np.ones((4000, D), np.float32)
    found, _, value = ensemble.distribution(obs, ensemble.initial_state(4000))
    draws = found.sample(torch.Generator().manual_seed(0))
    assert_allclose(draws.median(0).values, found.mode()[0], atol=0.05)
    assert found.log_prob(draws).isfinite().all()
    assert value.shape == (4000,)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="ensemble of 1 policies; expected at least 2"):
        Ensemble([a_policy(0)])
    with pytest.raises(ConfigError, match="member 1 of the ensemble has env_id PairLeverage-v0; member 0 has Portfolio-v0"):
        Ensemble([a_policy(0), a_policy(1, env_id="PairLeverage-v0")])
    with pytest.raises(ConfigError, match="member 1 of the ensemble has head"):
        Ensemble([a_policy(0), a_policy(1, HEADS[1])])
    Ensemble([a_policy(0), a_policy(1)]).save(tmp_path)
    with pytest.raises(ConfigError, match=r"holds an ensemble; one network is expected here\. Distil it"):
        Policy.load(tmp_path)
    description = tmp_path / "members" / "ensemble.json"
    description.write_text(json.dumps({"format": 2}))
    with pytest.raises(ConfigError, match="ensemble format 2; this version reads 1"):
        load_policy(tmp_path)
    description.write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        load_policy(tmp_path)
    description.unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        load_policy(tmp_path)
