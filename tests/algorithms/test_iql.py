import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.iql.torch.iql_torch_learner import IQLTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch.testing import assert_close

from envs.errors import ConfigError
from envs.spaces import Simplex
from rlplatform.algorithms.iql import IQLLearner, IQLTrainingConfig, build_iql, expectile_loss, extraction_weights
from rlplatform.algorithms.offline_data import register_episodes
from rlplatform.algorithms.q_learner import offline_policy
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy
from rlplatform.models.q_module import LOG_PROB_DATA, Q_DATA, IQLModule, q_module_spec
from tests.algorithms.bandits import BOX, SIMPLEX, bandit, learner_stub, transitions
from tests.algorithms.planted_data import best_share, mixture, share_of_optimum

MODEL = MLPConfig(layers=(32, 32))
TRAINING_CONFIG = IQLTrainingConfig(
    gamma=0.2, steps_per_iteration=50, batch_size=128, learning_rate=3e-3, critic_learning_rate=3e-3, tau=0.05, beta=4.0
)


def built(action_space, training=TRAINING_CONFIG):
    return build_iql(training, MODEL, register_episodes(bandit(action_space), action_space)).build_algo()


def test_errors_above_weigh_nine_times_those_below_at_the_ninth_decile():
    assert_close(expectile_loss(torch.tensor([2.0, -2.0]), 0.9), torch.tensor([3.6, 0.4]))


@pytest.mark.parametrize("expectile", [0.5, 0.8, 0.97])
def test_the_least_expectile_loss_of_a_coin_is_at_the_expectile(expectile):
    """Of 0 and 1 with equal odds: τ (1 − v) = (1 − τ) v, so v = τ."""
    guesses = torch.linspace(0, 1, 1_001)
    losses = (expectile_loss(1 - guesses, expectile) + expectile_loss(-guesses, expectile)) / 2
    assert float(guesses[losses.argmin()]) == pytest.approx(expectile, abs=2e-3)


def test_an_advantage_of_log_two_over_beta_weighs_twice_and_none_more_than_the_limit():
    weights = extraction_weights(torch.tensor([0.0, math.log(2) / 3, 50.0]), beta=3.0, max_weight=100.0)
    assert_close(weights, torch.tensor([1.0, 2.0, 100.0]))


def test_every_loss_is_rllibs_on_the_same_numbers():
    torch.manual_seed(0)
    spec, _ = q_module_spec(IQLModule, MODEL)
    spec.observation_space, spec.action_space = SimpleNamespace(shape=(2,)), BOX
    net, batch = spec.build(), transitions(BOX)
    out = net.forward_train(batch)
    settings = {"gamma": 0.9, "beta": 0.7, "expectile": 0.8, "max_weight": 100.0}
    ours = IQLLearner.losses(SimpleNamespace(settings=settings, log_means=lambda **k: None), net, batch, out)

    rllib = {Columns.ACTION_DIST_INPUTS: None, Columns.VF_PREDS: out[net.V], "vf_preds_next": out[net.V_NEXT]}
    rllib |= {"qf_preds": out[Q_DATA][0], "qf_twin_preds": out[Q_DATA][1], "qf_target_preds": out[net.Q_SLOW]}
    distribution = SimpleNamespace(from_logits=lambda _: SimpleNamespace(logp=lambda actions: out[LOG_PROB_DATA]))
    stub = learner_stub(
        SimpleNamespace(get_train_action_dist_cls=lambda: distribution),
        expectile={DEFAULT_MODULE_ID: torch.tensor([0.8])},
        temperature={DEFAULT_MODULE_ID: torch.tensor([0.7])},
    )
    stub._expectile_loss = IQLTorchLearner._expectile_loss.__get__(stub)
    config = SimpleNamespace(gamma=0.9, twin_q=True)
    IQLTorchLearner.compute_loss_for_module(stub, module_id=DEFAULT_MODULE_ID, config=config, batch=batch, fwd_out=rllib)
    theirs = {name.removesuffix("_loss"): loss for (_, name), loss in stub._temp_losses.items()}
    assert_close(ours["policy"], theirs["policy"], atol=1e-5, rtol=1e-5)
    assert_close(ours["state_value"], theirs["value"], atol=1e-5, rtol=1e-5)
    assert_close(ours["critic"], theirs["qf"] + theirs["qf_twin"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("action_space", [BOX, SIMPLEX], ids=str)
def test_it_learns_which_weight_pays_from_random_trades_with_beta_above_one(ray_session, action_space, tmp_path):
    algorithm = built(action_space)
    for _ in range(7):
        result = algorithm.train()
    policy = offline_policy(algorithm, "Toy-v0")
    algorithm.stop()
    policy = Policy.load(policy.save(tmp_path))
    obs = np.array([[0.9, 0.1], [-0.9, 0.1]], np.float32)
    actions, _, extras = policy.act(obs, policy.initial_state(2))
    assert actions[0, -1] - actions[0, -2] > 0.3
    assert actions[1, -2] - actions[1, -1] > 0.3
    assert {"state_value_loss", "weight", "weights_at_limit"} <= result["learners"][DEFAULT_MODULE_ID].keys()
    assert 0.001 < extras["value"].mean() < 0.02 * 1.25


def test_a_checkpoint_brings_back_every_network_and_both_copies_go_on_alike(ray_session, tmp_path):
    before = built(BOX)
    before.train()
    after = Algorithm.from_checkpoint(before.save_to_path(tmp_path / "checkpoint"))
    for algorithm in (before, after):
        algorithm.train()
    left, right = (a.learner_group.get_weights()[DEFAULT_MODULE_ID] for a in (before, after))
    assert int(left["gradient_steps"]) == 100
    for name in left:
        assert_array_equal(left[name], right[name])
    before.stop()
    after.stop()


def test_it_refuses_memory_and_says_what_to_use(ray_session):
    with pytest.raises(ConfigError, match=r"has memory\. Use mlp"):
        build_iql(IQLTrainingConfig(), GRUConfig(), register_episodes(bandit(BOX, num_episodes=2), BOX))


@pytest.mark.parametrize(("field", "value"), [("expectile", 1.0), ("expectile", 0), ("beta", 0), ("max_weight", 0)])
def test_a_setting_outside_its_meaning_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"training\.{field} = {value}"):
        IQLTrainingConfig(**{field: value})


@pytest.mark.slow
def test_from_a_mixture_of_mediocre_policies_comes_one_better_than_the_best_of_them(ray_session):
    data = register_episodes(mixture("planted_momentum"), Simplex(2))
    algorithm = build_iql(IQLTrainingConfig(gamma=0.5), MLPConfig(layers=(64, 64)), data).build_algo()
    for _ in range(5):
        algorithm.train()
    policy = offline_policy(algorithm, "Portfolio-v0")
    algorithm.stop()
    assert share_of_optimum("planted_momentum", policy) > max(0.65, 1.2 * best_share("planted_momentum"))
