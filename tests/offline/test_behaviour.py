import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import head_for
from rlplatform.models.policy import Policy
from rlplatform.offline.behaviour import make_behaviour
from tests.offline.datasets import trading_env


def decide(spec, env, rows=(30, 31, 32, 33), seed=0):
    behaviour, obs = make_behaviour(spec, env.task), env.reset(seed=0)[0]
    behaviour.begin(len(rows))
    return behaviour.act(np.array(rows), obs, torch.Generator().manual_seed(seed))


@pytest.fixture
def trained_policy(tmp_path):
    env = trading_env("pair")
    torch.manual_seed(0)
    config = GRUConfig(embedding_size=8, hidden_size=8)
    network = ActorCritic(config, len(env.task.observation_names), head_for(env.task.action_space))
    return Policy(network, None, "PairLeverage-v0").save(tmp_path / "policy")


def test_a_rule_acts_by_its_row_and_is_certain():
    env = trading_env("pair")
    actions, log_prob = decide("pair_spread", env, rows=(30, 31, 30, 31))
    assert_array_equal(actions[:2], actions[2:])
    assert np.isnan(log_prob).all()
    assert decide("regime_rotation", trading_env("regime"))[1].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("case", "spec"), [("pair", "momentum+noise:0.2"), ("portfolio", "uniform"), ("regime", "momentum+epsilon:0.1")]
)
def test_a_seed_fixes_actions_and_their_probabilities(case, spec):
    env = trading_env(case)
    first, again, other = (decide(spec, env, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(first[0], again[0])
    assert_array_equal(first[1], again[1])
    assert np.isfinite(first[1]).all()
    if case != "regime":
        assert not np.array_equal(first[0], other[0])


def test_a_trained_policy_logs_the_density_of_its_own_distribution(trained_policy):
    env = trading_env("pair")
    actions, log_prob = decide(f"policy:{trained_policy}", env)
    policy, obs = Policy.load(trained_policy), env.reset(seed=0)[0]
    out = policy.actor_critic(torch.from_numpy(obs), policy.initial_state(4))
    with torch.no_grad():
        expected = policy.head.distribution(out.params).log_prob(torch.from_numpy(actions))
    assert_allclose(log_prob, expected, rtol=1e-5)


def test_a_trained_policys_preferred_action_can_be_made_noisy(trained_policy):
    env = trading_env("pair")
    settings = {"kind": "policy", "path": str(trained_policy), "deterministic": True}
    certain, none = decide(settings, env)
    noisy, density = decide({**settings, "sigma": 0.1}, env)
    assert np.isnan(none).all()
    assert np.isfinite(density).all()
    assert 0 < np.abs(noisy - certain).max() < 0.6


def test_a_recurrent_policy_remembers_within_a_batch_and_forgets_between_two(trained_policy):
    env = trading_env("pair")
    behaviour = make_behaviour({"kind": "policy", "path": str(trained_policy), "deterministic": True}, env.task)
    obs = env.reset(seed=0)[0]
    acts = []
    for start in (True, False, True):
        if start:
            behaviour.begin(4)
        acts.append(behaviour.act(np.zeros(4, int), obs, torch.Generator())[0])
    assert not np.array_equal(acts[0], acts[1])
    assert_array_equal(acts[0], acts[2])


@pytest.mark.parametrize(
    ("case", "spec", "message"),
    [
        ("regime", "momentum+noise:0.2", "Use epsilon"),
        ("portfolio", "pair_spread", "two assets"),
        ("portfolio", "uniform+noise:0.1", "random already"),
        ("portfolio", {"kind": "policy", "path": "nowhere"}, "nowhere/policy.safetensors does not exist"),
    ],
)
def test_what_makes_no_sense_here_is_one_clear_error(case, spec, message):
    with pytest.raises(ConfigError, match=message):
        make_behaviour(spec, trading_env(case).task)


def test_a_policy_of_another_observation_or_action_space_is_refused(trained_policy):
    with pytest.raises(ConfigError, match=r"reads .* observations; Portfolio-v0 here has"):
        make_behaviour(f"policy:{trained_policy}", trading_env("portfolio").task)
