"""Exploration that shrinks with the account's drawdown."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.testing import assert_close

from envs import make, make_vec
from envs.catalog import CATALOG, DEMO_ASSETS, demo_tape
from envs.errors import ConfigError
from envs.trading_config import EpisodeConfig
from rlplatform.algorithms.device_env_runner import DeviceEnvRunner
from rlplatform.algorithms.exploration import ExplorationConfig, drawdown_entry
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.algorithms.pretraining import Anchor, PretrainConfig, anchor_settings
from rlplatform.algorithms.registration import register_trading_env
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner
from rlplatform.models.gru import GRUConfig
from rlplatform.models.mlp import MLPConfig
from tests.algorithms.counting import ACTIONS, CountingVectorEnv, register
from tests.algorithms.test_pretraining import earlier, saved  # noqa: F401 (fixtures)
from tests.algorithms.test_vector_learner import GRU, MLP, TRAINING, Workplace, minibatches, workplace

CAREFUL = ExplorationConfig(drawdown_limit=0.1, floor=0.25)
EXPLORING = replace(TRAINING, entropy_coeff=0.5, value_clip=None, exploration=CAREFUL)


@pytest.fixture(scope="module")
def name(ray_session):
    return register()["native"]


# --- the weight by hand ----------------------------------------------------------------------------------------------------


def test_half_the_limit_is_half_the_weight_and_nothing_falls_below_the_floor():
    drawdown = torch.tensor([0.0, -0.02, -0.05, -0.075, -0.1, -0.6])
    assert_close(CAREFUL.weight(drawdown), torch.tensor([1.0, 0.8, 0.5, 0.25, 0.25, 0.25]))


def test_the_pull_counts_more_where_exploration_counts_less():
    config = replace(CAREFUL, anchor_gain=4.0)
    assert_close(config.anchor_weight(torch.tensor([1.0, 0.75, 0.25])), torch.tensor([1.0, 2.0, 4.0]))
    assert_close(CAREFUL.anchor_weight(torch.tensor([1.0, 0.25])), torch.ones(2))


@pytest.mark.parametrize(
    ("field", "value"), [("drawdown_limit", 0.0), ("drawdown_limit", 1.5), ("floor", -0.1), ("anchor_gain", -1.0)]
)
def test_a_setting_outside_its_meaning_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"training\.exploration\.{field} = {value}; expected"):
        ExplorationConfig(**{field: value})


def test_stock_rllib_and_a_pull_towards_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"training\.exploration needs the fast path"):
        PPOTrainingConfig(fast=False, exploration=CAREFUL)
    for pretrain in (None, PretrainConfig(run="-", kl_coeff=0.0)):
        with pytest.raises(ConfigError, match="nothing pulls to an earlier policy"):
            PPOTrainingConfig(pretrain=pretrain, exploration=replace(CAREFUL, anchor_gain=1.0))


# --- the drawdown comes with the rollout -----------------------------------------------------------------------------------


def _single(config, tape, **_):
    return make(config, tape)


def _vector(config, tape, num_envs, **options):
    return make_vec(config, tape, num_envs, **options)


@pytest.mark.parametrize("runner", [VectorEnvRunner, DeviceEnvRunner])
@pytest.mark.parametrize("env_id", CATALOG)
def test_a_rollout_brings_each_accounts_drawdown_as_it_was_before_normalising(env_id, runner, ray_session):
    """From the accounts themselves, through episodes that end inside the rollout."""
    config = CATALOG[env_id][0](episode=EpisodeConfig(length_bars=20))
    training = PPOTrainingConfig(num_envs_per_env_runner=4, rollout_length=32, minibatch_size=32, exploration=CAREFUL)
    registered = register_trading_env(
        env_id, demo_tape(DEMO_ASSETS[env_id]), partial(_single, config), partial(_vector, config)
    )
    sampler = runner(config=build_ppo(training, MLPConfig(layers=(8,)), registered, seed=1), worker_index=0)
    seen, observe = [], sampler.env.accounts.observe

    def watched():
        seen.append(np.array(sampler.env.accounts.drawdown, dtype=np.float32))
        return observe()

    sampler.sample(num_timesteps=4 * 32)  # the normaliser learns; what is there already is the first look of the next
    seen.append(np.array(sampler.env.accounts.drawdown, dtype=np.float32))
    sampler.env.accounts.observe = watched
    (rollout,) = sampler.sample(num_timesteps=4 * 32)
    drawdown = rollout.drawdown.numpy()
    assert all(any(np.array_equal(row, look) for look in seen) for row in drawdown)
    assert drawdown.min() < -0.005
    assert_allclose(drawdown[np.asarray(rollout.first)], 0.0)
    position = drawdown_entry(sampler.env)
    assert sampler.env.task.observation_names[position] == "drawdown"
    assert abs(np.asarray(rollout.obs)[..., position] - drawdown).max() > 0.01  # what the policy saw was normalised


def test_gymnasiums_own_vector_of_accounts_tells_it_too_and_one_without_names_is_refused():
    single = make(CATALOG["Portfolio-v0"][0](), demo_tape(4))
    assert drawdown_entry(SimpleNamespace(envs=[single])) == single.task.observation_names.index("drawdown")
    with pytest.raises(ConfigError, match="reads the observation's entry 'drawdown'; CountingEnv names none"):
        drawdown_entry(CountingVectorEnv(2))


# --- the loss --------------------------------------------------------------------------------------------------------------


def in_drawdown(place: Workplace, drawdown: torch.Tensor | None):
    """Loss and gradients of one rollout whose accounts stand `drawdown` (T, B) below their peaks."""
    (rollout,) = place.rollouts
    if drawdown is not None:
        rollout = replace(rollout, drawdown=drawdown)
    torch.manual_seed(0)  # of the order of sequences
    (batch,) = minibatches(place.workplace, [rollout])
    learner, module = place.workplace.learner, place.workplace.module
    outputs = module.forward_train(batch)
    loss = learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID,
        config=learner.config.get_config_for_module(DEFAULT_MODULE_ID),
        batch=batch,
        fwd_out=outputs,
    )
    gradients = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    params = outputs["action_dist_inputs"]
    return loss.detach(), gradients, module.actor_critic.head.distribution(params).entropy().detach(), batch


def placed(name, model=MLP, training=EXPLORING, actions="discrete"):
    """A learner that explores by drawdown and a rollout; the counting environment has no drawdown, so that it is put in."""
    quiet = replace(training, exploration=None)
    place = workplace(name, model, quiet, actions=actions)
    rollouts = place.runner.sample()
    place.learner._exploration = training.exploration
    torch.manual_seed(5)
    for parameter in place.module.parameters():  # or every entropy would be that of a fresh policy
        parameter.data += 0.3 * torch.randn_like(parameter)
    return SimpleNamespace(workplace=place, rollouts=rollouts)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
def test_at_the_peak_the_loss_and_its_gradients_are_todays_to_the_bit(name, model, actions):
    place = placed(name, model, actions=actions)
    ours, gradients, _, _ = in_drawdown(place, torch.zeros(12, 5))
    place.workplace.learner._exploration = None
    today, todays, _, _ = in_drawdown(place, None)
    assert torch.equal(ours, today)
    for left, right in zip(gradients, todays, strict=True):
        assert torch.equal(left, right)


def test_in_a_deep_drawdown_loss_and_gradients_are_those_of_the_entropy_weight_times_the_floor(name):
    place = placed(name)
    deep, gradients, _, _ = in_drawdown(place, torch.full((12, 5), -0.4))
    place.workplace.learner._exploration = None
    scheduler = place.workplace.learner.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID]
    before = scheduler.get_current_value()
    scheduler.get_current_value = lambda: 0.25 * before
    quarter, expected, _, _ = in_drawdown(place, None)
    assert before == 0.5
    assert_close(deep, quarter)
    for left, right in zip(gradients, expected, strict=True):
        assert_close(left, right)


def test_each_transition_counts_with_its_own_accounts_drawdown(name):
    place = placed(name)
    drawdown = -0.01 * torch.arange(60.0).view(12, 5)
    loss, _, entropy, batch = in_drawdown(place, drawdown)
    place.workplace.learner._exploration = None
    plain, _, again, _ = in_drawdown(place, None)
    assert_close(entropy, again)  # the same order of sequences
    weight = batch["exploration"]
    # The observation tells which transition it is: its drawdown is looked up from there.
    (rollout,) = place.rollouts
    by_obs = {tuple(o.tolist()): d for o, d in zip(rollout.obs.flatten(0, 1), drawdown.flatten(), strict=True)}
    depths = torch.tensor([-by_obs[tuple(o.tolist())] for o in batch["obs"].flatten(0, 1)])
    by_hand = torch.clamp(1 - depths / 0.1, min=0.25)
    assert_close(weight.flatten(), by_hand)
    assert float(entropy.std()) > 1e-3  # else any weights of the same mean would do
    assert float(loss - plain) == pytest.approx(float((0.5 * (1 - by_hand) * entropy.flatten()).mean()), abs=1e-6)


def test_the_pull_of_each_transition_counts_as_its_drawdown_says(name, saved, earlier):  # noqa: F811
    gain = replace(CAREFUL, anchor_gain=4.0)
    place = placed(name, GRU, replace(EXPLORING, entropy_coeff=0.0, exploration=gain, pretrain=saved))
    drawdown = torch.where(torch.arange(60).view(12, 5) % 2 == 0, 0.0, -0.05)  # weights 1 and 3
    outcomes = {}
    for label, values in (("flat", torch.zeros(12, 5)), ("some", drawdown)):
        place.workplace.learner._anchor = _anchor(saved, earlier)
        outcomes[label] = in_drawdown(place, values)
    (flat, *_, batch), (some, *_, other) = outcomes["flat"], outcomes["some"]
    assert_close(batch["obs"], other["obs"])
    head, ours = earlier.head, place.workplace.module.forward_train(batch)["action_dist_inputs"]
    kl = head.distribution(batch["anchor_params"]).kl(head.distribution(ours)).detach()
    weight = torch.where(other["exploration"] == 1.0, 1.0, 3.0)
    assert {1.0, 0.5} == {round(float(x), 6) for x in other["exploration"].unique()}
    assert float(some - flat) == pytest.approx(0.4 * float(((weight - 1) * kl).mean()), rel=1e-3, abs=1e-6)


def _anchor(saved, earlier):  # noqa: F811
    return Anchor(anchor_settings(saved), earlier.actor_critic, "cpu")


# --- a training ------------------------------------------------------------------------------------------------------------


def test_a_training_reports_the_mean_weight_and_the_entropy_in_drawdown(ray_session):
    config = CATALOG["MultiAssetRegime-v0"][0](episode=EpisodeConfig(length_bars=40))
    training = PPOTrainingConfig(
        num_envs_per_env_runner=8, rollout_length=31, minibatch_size=124, exploration=replace(CAREFUL, drawdown_limit=0.02)
    )
    tape = demo_tape(3)
    name = register_trading_env("MultiAssetRegime-v0", tape, partial(_single, config), partial(_vector, config))
    algorithm = build_ppo(training, GRUConfig(embedding_size=8, hidden_size=8), name, seed=2).build_algo()
    try:
        learner = algorithm.train()["learners"][DEFAULT_MODULE_ID]
    finally:
        algorithm.stop()
    assert 0.25 < learner["exploration_weight"] < 1.0
    assert 0.0 < learner["entropy_in_drawdown"] <= np.log(16) + 1e-5
