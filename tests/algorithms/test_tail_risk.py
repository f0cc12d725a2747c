"""PPO with a distribution of returns: samples and advantages by hand, laws, and what a learner makes of them."""

import pickle
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from torch.testing import assert_close

from envs import make, make_vec
from envs.catalog import CATALOG, DEMO_ASSETS, demo_tape
from envs.errors import ConfigError
from envs.trading_config import EpisodeConfig
from rlplatform.algorithms.device_env_runner import DeviceEnvRunner
from rlplatform.algorithms.imitation import MARWILTrainingConfig
from rlplatform.algorithms.ppo import PPOTrainingConfig, build_ppo
from rlplatform.algorithms.registration import register_trading_env
from rlplatform.algorithms.rollout import Rollout, generalised_advantages, joined
from rlplatform.algorithms.tail_risk import RETURN_SAMPLES, TailRisk, check_tail_risk, return_samples, tail_advantages
from rlplatform.algorithms.vector_learner import training_columns
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.quantile_critic import QuantileCriticConfig, levels
from tests.algorithms.counting import register
from tests.algorithms.test_rollout import rollout
from tests.algorithms.test_vector_learner import GRU, MLP, TRAINING, minibatches, workplace

CRITIC = QuantileCriticConfig(quantiles=8)
CAREFUL = replace(TRAINING, value_clip=None, use_kl_loss=False, cvar_alpha=0.25, cvar_weight=0.5)


@pytest.fixture(scope="module")
def name(ray_session):
    return register()["native"]


def distributional(steps, accounts, count, seed=0, **columns) -> Rollout:
    """With `count` random quantiles, whose means are its values; within an episode the next are those of the next row."""
    r = rollout(steps, accounts, seed=seed, **columns)
    now, ahead = torch.randn(2, steps, accounts, count).sort(-1).values
    now = columns.get("quantiles", now)
    ahead[:-1] = torch.where(r.done[:-1, :, None], ahead[:-1], now[1:])
    ahead = columns.get("next_quantiles", ahead)
    return replace(r, quantiles=now, next_quantiles=ahead, value=now.mean(-1), next_value=ahead.mean(-1))


# --- samples of the return -------------------------------------------------------------------------------------------------


def three_steps() -> Rollout:
    """Two quantiles. The episode is cut after row 1 (its last observation is worth −2 or 6); the next one goes on."""
    return distributional(
        3,
        1,
        2,
        reward=torch.tensor([[1.0], [2.0], [3.0]]),
        done=torch.tensor([[False], [True], [False]]),
        next_quantiles=torch.tensor([[[0.0, 4.0]], [[-2.0, 6.0]], [[10.0, 20.0]]]),
    )


def test_samples_of_one_step_are_reward_plus_discounted_quantiles():
    expected = torch.tensor([[[1.0, 3.0]], [[1.0, 5.0]], [[8.0, 13.0]]])
    assert_close(return_samples(three_steps(), gamma=0.5, gae_lambda=0.0), expected)


def test_samples_of_whole_episodes_add_all_rewards_up_to_the_cut():
    # Row 1: 2 + ½(−2 | 6) = 1 | 5. Row 0: 1 + ½(1 | 5) = 1.5 | 3.5.
    expected = torch.tensor([[[1.5, 3.5]], [[1.0, 5.0]], [[8.0, 13.0]]])
    assert_close(return_samples(three_steps(), gamma=0.5, gae_lambda=1.0), expected)


@pytest.mark.parametrize("gae_lambda", [0.0, 1.0])
def test_their_mean_is_the_lambda_return(gae_lambda):
    r = distributional(12, 5, 16)
    samples = return_samples(r, 0.9, gae_lambda)
    assert_close(samples.mean(-1), generalised_advantages(r, 0.9, gae_lambda) + r.value, atol=1e-5, rtol=1e-5)


def test_between_the_two_it_is_the_lambda_return_on_average():
    r = distributional(6, 3, 4)
    wide = replace(r, quantiles=r.quantiles.repeat(1, 1, 5_000), next_quantiles=r.next_quantiles.repeat(1, 1, 5_000))
    samples = return_samples(wide, 0.9, 0.6, torch.Generator().manual_seed(1))
    assert_close(samples.mean(-1), generalised_advantages(r, 0.9, 0.6) + r.value, atol=0.05, rtol=0)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7])
def test_a_critic_that_learns_from_them_finds_the_distribution_of_the_return(gae_lambda):
    # A fair coin pays 1 every step, γ = ½: Σ ½ᵏ bₖ is uniform on [0, 2]. A mean λ-return would be far narrower.
    generator, risk = torch.Generator().manual_seed(0), TailRisk(alpha=0.05, weight=0.0, value_coeff=1.0, huber=0.0)
    torch.manual_seed(0)
    quantiles = torch.ones(16, requires_grad=True)
    optimizer = torch.optim.Adam([quantiles], lr=0.03)
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 250)
        now = quantiles.detach().sort().values.expand(8, 32, 16)
        reward = (torch.rand(8, 32, generator=generator) < 0.5).float()
        r = distributional(
            8, 32, 16, step, reward=reward, done=torch.zeros(8, 32, dtype=torch.bool), quantiles=now, next_quantiles=now
        )
        samples = return_samples(r, 0.5, gae_lambda, generator)
        optimizer.zero_grad()
        risk.loss(quantiles, samples).backward()
        optimizer.step()
    assert_close(quantiles.detach(), 2 * levels(16), atol=0.12, rtol=0)


# --- advantages ------------------------------------------------------------------------------------------------------------


def test_tail_advantages_by_hand():
    # θ = −4, 0, 1, 2 and α = ¼: ν = −2, f(g) = −2 − 4 (−2 − g)⁺; the critic's CVaR is −2 − (4 · 2)/4 = −4.
    quantiles = torch.tensor([-4.0, 0.0, 1.0, 2.0]).expand(3, 1, 4)
    samples = torch.tensor([[[-3.0, -3.0]], [[-2.0, 7.0]], [[-6.0, 0.0]]])  # f: −6, −6 | −2, −2 | −18, −2
    assert_close(tail_advantages(quantiles, samples, 0.25), torch.tensor([[-2.0], [2.0], [-6.0]]))


def test_returns_as_the_critic_expects_them_are_no_advantage():
    quantiles = distributional(4, 3, 16).quantiles
    assert_close(tail_advantages(quantiles, quantiles, 0.1), torch.zeros(4, 3), atol=1e-6, rtol=0)


def test_the_score_function_with_f_is_the_derivative_of_cvar():
    # Action 1 with probability p; its returns and those of action 0, all equally likely. CVaR_α of the mixture, α = 0.4.
    returns = torch.tensor([[-1.0, 0.0, 0.5, 1.0], [-6.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    alpha, p = 0.4, 0.3

    def cvar(p):
        flat, weight = returns.flatten(), torch.tensor([1 - p, p], dtype=torch.float64).repeat_interleave(4) / 4
        order = flat.argsort()
        taken = (alpha - (weight[order].cumsum(0) - weight[order])).clamp(min=0.0).minimum(weight[order])
        nu = flat[order][taken > 0][-1]
        return (taken * flat[order]).sum() / alpha, nu

    _, nu = cvar(p)
    f = nu - (nu - returns).clamp(min=0) / alpha
    score = f[1].mean() - f[0].mean()  # Σ_a p_a ∂log p_a/∂p E[f | a]
    derivative = (cvar(p + 1e-6)[0] - cvar(p - 1e-6)[0]) / 2e-6
    assert_close(score, derivative, atol=1e-6, rtol=0)


def test_the_objective_weighs_mean_and_tail_in_the_units_of_the_reward():
    r = distributional(6, 4, 8)
    generalised, samples = generalised_advantages(r, 0.9, 0.8), return_samples(r, 0.9, 0.8)
    tail = tail_advantages(r.quantiles, samples, 0.25)
    risk = TailRisk(alpha=0.25, weight=0.25, value_coeff=1.0, huber=0.0)
    assert_close(risk.advantages(generalised, r.quantiles, samples), 0.75 * generalised + 0.25 * tail)
    assert_close(replace(risk, weight=1.0).advantages(generalised, r.quantiles, samples), tail)


def test_without_weight_every_column_is_plain_ppos_to_the_bit():
    r = distributional(6, 4, 8)
    plain = training_columns(r, 0.9, 0.8)
    with_critic = training_columns(r, 0.9, 0.8, TailRisk(alpha=0.05, weight=0.0, value_coeff=1.0, huber=0.0))
    assert with_critic.keys() - plain.keys() == {RETURN_SAMPLES}
    assert all(torch.equal(plain[column], with_critic[column]) for column in plain)


# --- in the fast path ------------------------------------------------------------------------------------------------------


def updated(place, rollouts) -> dict:
    torch.manual_seed(7)
    place.learner.before_gradient_based_update(timesteps={})
    for batch in place.learner._create_iterator_if_necessary(
        training_data=TrainingData(episodes=rollouts), num_epochs=2, minibatch_size=24
    ):
        place.learner._update(batch.policy_batches)
    return {k: v.clone() for k, v in place.module.state_dict().items()}


@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
def test_alpha_means_nothing_to_plain_ppo(name, model):
    plain, other = (workplace(name, model, t) for t in (TRAINING, replace(TRAINING, cvar_alpha=0.5, cvar_weight=0.0)))
    other.module.load_state_dict(plain.module.state_dict())
    rollouts = plain.runner.sample()
    assert all(batch.get(RETURN_SAMPLES) is None for batch in minibatches(plain, rollouts))
    left, right = updated(plain, rollouts), updated(other, rollouts)
    assert all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
@pytest.mark.parametrize("runner", ["vector", "device"])
def test_rollouts_carry_the_quantiles_of_which_values_are_the_means(name, model, runner, request):
    model = replace(model, critic=CRITIC)
    if runner == "device":
        name = request.getfixturevalue("trading_name")
        source = DeviceEnvRunner(config=build_ppo(CAREFUL, model, name, {}), worker_index=0)
    else:
        source = workplace(name, model, CAREFUL).runner
    (r,) = source.sample()
    assert r.quantiles.shape == r.next_quantiles.shape == (*r.value.shape, 8)
    assert_close(r.quantiles.mean(-1), r.value)
    assert_close(r.next_quantiles.mean(-1), r.next_value)
    going_on = ~r.done[:-1]
    assert torch.equal(r.next_quantiles[:-1][going_on], r.quantiles[1:][going_on])
    assert r.done.any()


@pytest.fixture(scope="module")
def trading_name(ray_session):
    config = CATALOG["Portfolio-v0"][0](episode=EpisodeConfig(length_bars=9))
    makers = partial(_single, config), partial(_vector, config)
    return register_trading_env("Portfolio-v0", demo_tape(DEMO_ASSETS["Portfolio-v0"]), *makers)


def _single(config, tape, **_):
    return make(config, tape)


def _vector(config, tape, num_envs, **options):
    return make_vec(config, tape, num_envs, **options)


def test_a_rollout_with_quantiles_travels_and_joins():
    r = distributional(4, 6, 8)
    for again in (pickle.loads(pickle.dumps(r)), joined(r.split(3))):
        assert all(torch.equal(getattr(r, f.name), getattr(again, f.name)) for f in fields(Rollout))


@pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)
def test_the_learner_moves_critic_and_policy_and_says_how_good_the_critic_is(name, model):
    place = workplace(name, replace(model, critic=CRITIC), CAREFUL)
    before = {k: v.clone() for k, v in place.module.state_dict().items()}
    rollouts = place.runner.sample()
    after = updated(place, rollouts)
    for layer in ("policy", "value"):
        assert not torch.equal(before[f"actor_critic.{layer}.weight"], after[f"actor_critic.{layer}.weight"])
    found = place.learner.metrics.peek(DEFAULT_MODULE_ID)
    assert found["cvar"] <= found["value_at_risk"]
    assert 0 <= found["tail_share"] <= 1
    assert 0 <= found["quantile_crossings"] <= 1
    assert found["quantile_loss"] > 0


def test_squared_errors_teach_a_quantile_critic_nothing(name):
    place = workplace(name, replace(MLP, critic=CRITIC), CAREFUL)
    (batch, *_) = minibatches(place, place.runner.sample(), 24)
    assert not place.module.compute_values(batch).requires_grad
    assert place.learner.config.vf_loss_coeff == 0.0


# --- what does not go together ---------------------------------------------------------------------------------------------

QUANTILE_MLP = MLPConfig(critic=QuantileCriticConfig(quantiles=10))


@pytest.mark.parametrize(
    ("training", "model", "message"),
    [
        (PPOTrainingConfig(cvar_weight=0.5), MLPConfig(), r"cvar_weight = 0.5 needs the distribution of returns.*model.critic"),
        (PPOTrainingConfig(fast=False), QUANTILE_MLP, "model.critic needs the fast path"),
        (PPOTrainingConfig(value_clip=10.0), QUANTILE_MLP, r"training.value_clip = 10.0 limits squared errors"),
        (MARWILTrainingConfig(), QUANTILE_MLP, "model.critic is for PPO; training.algorithm = marwil"),
        (PPOTrainingConfig(cvar_weight=1.0), QUANTILE_MLP, "Take at least 20 quantiles"),
    ],
)
def test_critic_and_objective_must_suit_each_other(training, model, message):
    with pytest.raises(ConfigError, match=message):
        check_tail_risk(training, model)


@pytest.mark.parametrize(
    ("field", "value"), [("cvar_alpha", 0.0), ("cvar_alpha", 1.1), ("cvar_weight", -0.1), ("cvar_weight", 2.0)]
)
def test_a_setting_outside_its_meaning_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"training\.{field} = {value}; expected"):
        PPOTrainingConfig(**{field: value})
