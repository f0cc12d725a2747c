import math
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.algorithms.discrete_cql import (
    DiscreteCQLLearner,
    DiscreteCQLTrainingConfig,
    build_discrete_cql,
    conservative_gap,
)
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.algorithms.q_learner import offline_policy
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import head_for
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy
from rlplatform.models.q_module import Q_DATA, Q_NEXT_TARGET, DiscreteQModule, q_module_spec
from rlplatform.models.rl_module import HIDDEN
from rlplatform.offline.episodes import Episodes
from tests.algorithms.bandits import NUMBERED, SIMPLEX, bandit, transitions
from tests.algorithms.planted_data import best_share, mixture, share_of_optimum
from tests.algorithms.toys import RecallVectorEnv

MLP, GRU = MLPConfig(layers=(32, 32)), GRUConfig(embedding_size=32, hidden_size=32, max_seq_len=16)
TRAINING_CONFIG = DiscreteCQLTrainingConfig(
    gamma=0.2, steps_per_iteration=50, batch_size=128, learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05
)


def module(model, action_space=NUMBERED):
    torch.manual_seed(0)
    spec, _ = q_module_spec(DiscreteQModule, model)
    spec.observation_space, spec.action_space = gym.spaces.Box(-9, 9, (2,), np.float32), action_space
    return spec.build()


def built(model=MLP, training=TRAINING_CONFIG):
    return build_discrete_cql(training, model, register_episodes(bandit(NUMBERED), NUMBERED)).build_algo()


def test_the_gap_of_equal_values_is_the_log_of_the_number_of_actions_and_of_a_sure_thing_zero():
    q_all = torch.tensor([[5.0, 5.0, 5.0, 5.0], [100.0, 0.0, 0.0, 0.0]])
    assert_close(conservative_gap(q_all, torch.tensor([5.0, 100.0])), torch.tensor([math.log(4), 0.0]))


def test_the_losses_are_those_a_hand_gets():
    # Two transitions, two actions. r + γ Q' = 1 + 0.5 · 2 = 2 and, after ruin, 3. TD² = (2 − 1)² and (3 − 0)².
    batch = {Columns.REWARDS: torch.tensor([1.0, 3.0]), Columns.TERMINATEDS: torch.tensor([False, True])}
    out = {
        DiscreteQModule.Q_ALL: torch.tensor([[1.0, 1.0], [0.0, 0.0]]),
        Q_DATA: torch.tensor([1.0, 0.0]),
        Q_NEXT_TARGET: torch.tensor([2.0, 7.0]),
        "value": torch.tensor([1.0, 2.0]),
    }
    settings = {"gamma": 0.5, "conservatism": 2.0, "temperature": 0.1}
    losses = DiscreteCQLLearner.losses(SimpleNamespace(settings=settings, log_means=lambda **k: None), None, batch, out)
    assert float(losses["critic"]) == pytest.approx((1 + 9) / 2 + 2 * math.log(2))
    assert float(losses["value"]) == pytest.approx((0 + 4) / 2)


def test_rows_that_are_no_decision_do_not_count():
    batch = {Columns.REWARDS: torch.tensor([[1.0, 99.0]]), Columns.TERMINATEDS: torch.tensor([[False, False]])}
    batch[Columns.LOSS_MASK] = torch.tensor([[True, False]])
    out = {DiscreteQModule.Q_ALL: torch.zeros(1, 2, 2), Q_DATA: torch.zeros(1, 2), Q_NEXT_TARGET: torch.zeros(1, 2)}
    settings = {"gamma": 0.5, "conservatism": 0.0, "temperature": 0.1}
    stub = SimpleNamespace(settings=settings, log_means=lambda **k: None)
    losses = DiscreteCQLLearner.losses(stub, None, batch, out | {"value": torch.zeros(1, 2)})
    assert float(losses["critic"]) == pytest.approx(1.0)


def test_the_fast_network_chooses_what_the_slow_one_values():
    net, batch = module(MLP), transitions(NUMBERED)
    with torch.no_grad():
        net.actor_critic.policy.bias.copy_(torch.tensor([0.0, 50.0, 0.0, 0.0]))  # prefers action 1
        net.slow_actor_critic.policy.bias.copy_(torch.tensor([9.0, -3.0, 9.0, 9.0]))
    out = net.forward_train(batch)
    slow = net.slow_actor_critic(batch[Columns.NEXT_OBS], torch.zeros(32, 0)).params
    assert_close(out[Q_NEXT_TARGET], slow[:, 1])
    assert not out[Q_NEXT_TARGET].requires_grad


def test_with_memory_what_follows_is_valued_by_the_memory_of_the_episode():
    net = module(GRU)
    obs = torch.randn(3, 6, 2)
    first = torch.zeros(3, 5, dtype=torch.bool)
    first[:, 2] = True  # an episode begins inside
    batch = {Columns.OBS: obs[:, :5], Columns.NEXT_OBS: obs[:, 1:], Columns.ACTIONS: torch.zeros(3, 5, dtype=torch.int64)}
    batch |= {Columns.STATE_IN: {HIDDEN: torch.randn(3, 32)}, net.IS_FIRST: first}
    with torch.no_grad():
        net.slow_actor_critic.policy.weight.mul_(2)
    out = net.forward_train(batch)
    whole = torch.cat([first, torch.zeros(3, 1, dtype=torch.bool)], 1)
    values = net.actor_critic(obs, batch[Columns.STATE_IN][HIDDEN], whole).params
    expected = 2 * values.max(-1).values  # the slow network is the fast one with doubled values (its bias is zero)
    inside = [0, 2, 3, 4]  # row 1 is an episode's last: what follows it is not row 2, which begins anew
    assert_close(out[Q_NEXT_TARGET][:, inside], expected[:, 1:][:, inside])


@pytest.mark.parametrize("model", [MLP, GRU], ids=lambda m: m.kind)
def test_it_learns_which_action_pays_and_its_policy_is_an_ordinary_actor_critic(ray_session, model, tmp_path):
    algorithm = built(model)
    for _ in range(6):
        result = algorithm.train()
    policy = offline_policy(algorithm, "Toy-v0")
    net = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    algorithm.stop()
    policy = Policy.load(policy.save(tmp_path))
    obs = np.array([[0.9, 0.1], [-0.9, 0.1]], np.float32)
    actions, _, extras = policy.act(obs, policy.initial_state(2))
    assert_array_equal(actions, [1, 2])
    assert 0.006 < extras["value"].mean() < 0.01 * 1.25  # 0.01 a step, in the rewards' own unit
    assert {"critic_loss", "value_loss", "gap"} <= result["learners"][DEFAULT_MODULE_ID].keys()
    ppo = ActorCritic(model, 2, head_for(NUMBERED)).state_dict()
    assert ppo.keys() == policy.actor_critic.state_dict().keys()
    logits, values = policy.actor_critic.state_dict()["policy.weight"], net.actor_critic.state_dict()["policy.weight"]
    assert_close(logits * TRAINING_CONFIG.temperature, values)


def recalled(num_episodes: int, seed: int) -> Episodes:
    """Random answers in the memory toy: only one who remembers two steps knows which paid."""
    env = RecallVectorEnv(num_episodes)
    rng = np.random.default_rng([seed, 1])  # not the stream that the environment draws its symbols from
    (obs, _), rows = env.reset(seed=seed), []
    for _ in range(env.length):
        actions = rng.integers(4, size=num_episodes)
        following, rewards, *_ = env.step(actions)
        rows.append((obs, actions, rewards.astype(np.float32)))
        obs = following
    columns = [np.concatenate(np.stack(column, 1)) for column in zip(*rows, strict=True)]
    return Episodes(
        lengths=np.full(num_episodes, env.length),
        obs=columns[0],
        last_obs=obs,
        actions=columns[1],
        rewards=columns[2],
        terminated=np.zeros(num_episodes, bool),
        log_prob=np.full(len(columns[2]), math.log(0.25), np.float32),
    )


def test_a_gru_remembers_what_paid_two_steps_later(ray_session):
    data = register_episodes(recalled(400, seed=0), NUMBERED)
    training = replace(TRAINING_CONFIG, batch_size=512, steps_per_iteration=100, critic_learning_rate=5e-3)
    algorithm = build_discrete_cql(training, GRU, data).build_algo()
    for _ in range(4):
        algorithm.train()
    policy = offline_policy(algorithm, "Toy-v0")
    algorithm.stop()
    env = RecallVectorEnv(64)
    obs, _ = env.reset(seed=99)
    state, total = policy.initial_state(64), np.zeros(64)
    for _ in range(env.length):
        action, state, _ = policy.act(obs, state)
        obs, reward, *_ = env.step(action)
        total += reward
    assert total.mean() > 0.9 * (env.length - env.lag * 0.75)


# A restored training finds the states before its sequences with today's weights, not with those of the epoch's beginning.
@pytest.mark.parametrize(("model", "atol"), [(MLP, 0), (GRU, 2e-3)], ids=["mlp", "gru"])
def test_a_checkpoint_brings_back_every_network_and_both_copies_go_on_alike(ray_session, tmp_path, model, atol):
    before = built(model)
    before.train()
    after = Algorithm.from_checkpoint(before.save_to_path(tmp_path / "checkpoint"))
    for algorithm in (before, after):
        algorithm.train()
    left, right = (a.learner_group.get_weights()[DEFAULT_MODULE_ID] for a in (before, after))
    assert int(left["gradient_steps"]) == 100
    for name in left:
        assert_allclose(left[name], right[name], rtol=0, atol=atol)
    before.stop()
    after.stop()


def test_it_refuses_weights_and_says_what_to_use(ray_session):
    with pytest.raises(ConfigError, match="cql or iql"):
        build_discrete_cql(TRAINING_CONFIG, MLP, register_episodes(bandit(SIMPLEX, num_episodes=2), SIMPLEX))


@pytest.mark.parametrize(("field", "value"), [("conservatism", -1), ("temperature", 0)])
def test_a_setting_outside_its_meaning_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"training\.{field} = {value}"):
        DiscreteCQLTrainingConfig(**{field: value})


@pytest.mark.slow
def test_from_a_mixture_of_mediocre_policies_comes_one_better_than_the_best_of_them(ray_session):
    model = GRUConfig(embedding_size=64, hidden_size=64)
    data = register_episodes(mixture("planted_regimes"), gym.spaces.Discrete(16))
    training = DiscreteCQLTrainingConfig(gamma=0.5, batch_size=1_024, critic_learning_rate=3e-4)
    algorithm = build_discrete_cql(training, model, data).build_algo()
    for _ in range(2):
        algorithm.train()
    policy = offline_policy(algorithm, "MultiAssetRegime-v0")
    algorithm.stop()
    assert share_of_optimum("planted_regimes", policy) > max(0.7, 1.3 * best_share("planted_regimes"))
