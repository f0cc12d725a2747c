"""TQC: targets, entropy and objective by hand; what its losses move; the algorithm as a whole."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from torch.testing import assert_close

from envs.catalog import make_task
from envs.errors import ConfigError
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.spaces import Simplex
from rlplatform.algorithms.export import policy_from
from rlplatform.algorithms.tqc import TQCTrainingConfig, build_tqc
from rlplatform.algorithms.tqc_learner import COUNTED, TQCLearner, middle_target_entropy, quantile_target
from rlplatform.algorithms.transitions import ReplayEnvRunner
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import LogisticNormalHead, TanhNormalHead, head_for
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.q_critics import policy_actions, standard_target_entropy
from rlplatform.models.quantile_critic import levels, quantile_loss
from rlplatform.models.tqc_module import TQCModule
from rlplatform.models.truncated_critics import pooled
from tests.algorithms.counting import register
from tests.algorithms.test_checkpoint import assert_same_tree
from tests.envs.markets import random_tape

TRAINING = TQCTrainingConfig(
    num_envs_per_env_runner=5,
    rollout_length=12,
    batch_size=24,
    learning_starts=100,
    buffer_size=240,
    gradient_steps=3,
    quantiles=5,
    drop_per_critic=1,
    critic_layers=(8,),
    metrics_window=5,
)
GRU = GRUConfig(embedding_size=8, hidden_size=8, max_seq_len=6)
MLP = MLPConfig(layers=(8,))
models = pytest.mark.parametrize("model", [GRU, MLP], ids=lambda m: m.kind)


# --- by hand ---------------------------------------------------------------------------------------------------------------


def target_batch(rewards, terminated) -> dict:
    return {Columns.REWARDS: torch.tensor(rewards), Columns.TERMINATEDS: torch.tensor(terminated)}


def test_targets_are_reward_plus_discounted_pool_without_its_top_and_ruin_has_no_future():
    q_next = torch.tensor([[4.0, 0.0], [2.0, 8.0]])[:, None, None].expand(2, 1, 2, 2)  # pool 0 2 4 8; one a critic goes: 0 2
    batch = target_batch([[1.0, 3.0]], [[False, True]])
    assert_close(quantile_target(batch, q_next, 0.5, drop=1), torch.tensor([[[1.0, 2.0], [3.0, 3.0]]]))
    assert_close(quantile_target(batch, q_next, 0.5, drop=0)[0, 0], torch.tensor([1.0, 2.0, 3.0, 5.0]))


def test_in_the_unit_box_the_normal_s_target_entropy_is_sacs():
    assert middle_target_entropy(TanhNormalHead((-1.0,) * 3, (1.0,) * 3)) == pytest.approx(-3.0)


def test_cash_and_one_asset_spread_by_sixteen_hundredths_of_a_logit():
    # Weights have H = −(1 + log 2); dw/dy = ¼ in the middle for both: log |det| = log ½ + log ½.
    target = middle_target_entropy(LogisticNormalHead(2))
    assert target == pytest.approx(-(1 + math.log(2)) + math.log(4))
    assert math.exp(target - 0.5 * math.log(2 * math.pi * math.e)) == pytest.approx(0.178, abs=1e-3)


@pytest.mark.parametrize("head", [LogisticNormalHead(4), LogisticNormalHead(3, leverage=True), TanhNormalHead((-2.0,), (2.0,))])
def test_with_that_entropy_actions_in_the_middle_have_the_standard_one(head):
    # A narrow normal's image has the entropy of the normal plus the log determinant where it stands.
    middle = torch.zeros(1, head.num_outputs)
    log_std = torch.full_like(middle, -4.0)
    distribution = head.distribution(torch.cat([middle, log_std], -1))
    torch.manual_seed(0)
    actions = head.distribution(torch.cat([middle, log_std], -1).expand(20_000, -1)).sample()
    of_action = -float(distribution.log_prob(actions).mean())
    shift = of_action - float(distribution.entropy())
    assert middle_target_entropy(head) + shift == pytest.approx(standard_target_entropy(head), abs=0.05)


def test_64_minibatches_of_512_after_2048_steps_use_each_16_times():
    assert TQCTrainingConfig(gradient_steps=64, batch_size=512, rollout_length=32).replays_per_env_step == 16.0
    assert TQCTrainingConfig(num_env_runners=2).rollout_size == 2 * 64 * 32


# --- what the losses move --------------------------------------------------------------------------------------------------

SETTINGS = {
    "gamma": 0.5,
    "drop_per_critic": 1,
    "huber": 0.0,
    "target_entropy": None,
    "cvar_alpha": 0.25,
    "cvar_weight": 0.0,
}


def stage(head=None, **changes):
    """Eight transitions of two critics of four quantiles; parameters whose gradients say what a loss moves."""
    module = SimpleNamespace(
        Q=TQCModule.Q, Q_NEXT=TQCModule.Q_NEXT, Q_POLICY=TQCModule.Q_POLICY, ENTROPY=TQCModule.ENTROPY,
        log_alpha=torch.zeros((), requires_grad=True), reward_scale=torch.ones(()),
        actor_critic=SimpleNamespace(head=head or LogisticNormalHead(2)),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    batch = {
        Columns.REWARDS: torch.randn(8, 1, generator=generator),
        Columns.TERMINATEDS: torch.zeros(8, 1, dtype=torch.bool),
        Columns.TRUNCATEDS: torch.zeros(8, 1, dtype=torch.bool),
        COUNTED: torch.ones(8, 1, dtype=torch.bool),
    }
    out = {
        module.Q: torch.randn(2, 8, 1, 4, generator=generator).requires_grad_(),
        module.Q_NEXT: torch.randn(2, 8, 1, 4, generator=generator),
        module.Q_POLICY: torch.randn(8, 1, 8, generator=generator).sort(-1).values.requires_grad_(),
        module.ENTROPY: torch.full((8, 1), 2.0, requires_grad=True),
        "value": torch.zeros(8, 1, requires_grad=True),
    }
    return SimpleNamespace(settings=SETTINGS | changes, log_means=lambda **k: None), module, batch, out


def losses(*place) -> dict:
    return TQCLearner.losses(*place)


def test_the_critics_loss_is_the_quantile_loss_against_the_truncated_pool():
    learner, module, batch, out = stage()
    target = quantile_target(batch, out[module.Q_NEXT], 0.5, 1)  # 6 atoms, so all are compared
    expected = sum(quantile_loss(out[module.Q][c], target).mean() for c in range(2))
    assert_close(losses(learner, module, batch, out)["critic"], expected)


def test_a_truncated_step_and_the_burn_in_teach_nothing():
    learner, module, batch, out = stage()
    batch[Columns.TRUNCATEDS][2] = True
    batch[COUNTED][5] = False
    found = losses(learner, module, batch, out)
    by_critic = torch.autograd.grad(found["critic"], out[module.Q])[0].abs().sum((0, 2, 3))
    by_actor = torch.autograd.grad(found["policy"], out[module.Q_POLICY])[0].abs().sum((1, 2))
    assert [i for i in range(8) if by_critic[i] == 0] == [2, 5]
    assert [i for i in range(8) if by_actor[i] == 0] == [5]  # the observation before a cut is one to act on


def test_the_actor_raises_every_atom_or_the_worst_alone():
    plain, tail = (stage(cvar_weight=weight) for weight in (0.0, 1.0))
    by_atom = [torch.autograd.grad(losses(*s)["policy"], s[3][s[1].Q_POLICY])[0].sum((0, 1)) for s in (plain, tail)]
    assert_close(by_atom[0], torch.full((8,), -1 / 8))
    assert_close(by_atom[1], torch.tensor([-0.5, -0.5, 0, 0, 0, 0, 0, 0]))


def test_entropy_is_paid_for_by_the_temperature():
    place = stage()
    with torch.no_grad():
        place[1].log_alpha.fill_(math.log(0.3))
    grad = torch.autograd.grad(losses(*place)["policy"], place[3][place[1].ENTROPY])[0]
    assert_close(grad.sum(), torch.tensor(-0.3))


@pytest.mark.parametrize(("wanted", "sign"), [(3.0, -1), (1.0, 1)])
def test_the_temperature_rises_where_entropy_is_short_and_falls_where_it_is_plenty(wanted, sign):
    place = stage(target_entropy=wanted)  # the policy has 2
    grad = torch.autograd.grad(losses(*place)["alpha"], place[1].log_alpha)[0]
    assert float(grad) == pytest.approx(sign)


@pytest.mark.parametrize("space", [Simplex(3), Simplex(3, leverage=True), Box(-1, 1, (2,), np.float32)], ids=str)
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_the_policy_goes_where_the_critics_promise_more(space, direction):
    """A critic that pays `direction` × the second entry of the action."""
    head = head_for(space)
    mean = torch.zeros(64, head.num_outputs, requires_grad=True)
    distribution = head.distribution(torch.cat([mean, torch.full_like(mean, -1.0)], -1))
    torch.manual_seed(0)
    action = policy_actions(distribution)[0][0]
    atoms = pooled((direction * action[..., 1:2] + torch.linspace(-1, 1, 4)).expand(2, -1, -1))
    place = stage(head)
    place[3][place[1].Q_POLICY] = atoms[:8, None]
    before = distribution.mode()[:8, 1]
    step = torch.autograd.grad(losses(*place)["policy"], mean)[0]
    after = head.distribution(torch.cat([mean - step, torch.full_like(mean, -1.0)], -1)).mode()[:8, 1]
    assert (direction * (after - before) > 0).all()


def coin(drop, critics=2, count=16, steps=300) -> torch.Tensor:
    """Quantiles learnt of a fair coin's return, 1 a step, γ = ½, by the targets of slow copies."""
    generator = torch.Generator().manual_seed(0)
    quantiles = torch.ones(critics, count, requires_grad=True)
    slow, optimizer = quantiles.detach().clone(), torch.optim.Adam([quantiles], lr=0.03)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        batch = target_batch([[0.0]] * 64, [[False]] * 64)
        batch[Columns.REWARDS] = (torch.rand(64, 1, generator=generator) < 0.5).float()
        target = quantile_target(batch, slow[:, None, None].expand(critics, 64, 1, count), 0.5, drop)
        optimizer.zero_grad()
        quantile_loss(quantiles[:, None, None].expand(critics, 64, 1, count), target).mean().backward()
        optimizer.step()
        slow.lerp_(quantiles.detach(), 0.1)
    return quantiles.detach()


def test_critics_without_truncation_find_the_distribution_of_a_fair_coin_s_return():
    # Σ ½ᵏ bₖ is uniform on [0, 2].
    for found in coin(drop=0):
        assert_close(found, 2 * levels(16), atol=0.12, rtol=0)


def test_truncation_makes_them_careful_and_is_no_part_of_the_distribution():
    assert float(coin(drop=4).mean()) < 0.85  # of 1


# --- as a whole ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def name(ray_session):
    return register()["native"]


@pytest.fixture
def start(name):
    started = []

    def build(training=TRAINING, model=MLP, seed=0, **settings):
        started.append(build_tqc(training, model, name, {"actions": "simplex"} | settings, seed=seed).build_algo())
        return started[-1]

    yield build
    for algorithm in started:
        algorithm.stop()


def stored(algorithm) -> list[int]:
    return [answer.get() for answer in algorithm.learner_group.foreach_learner(lambda learner: learner.num_stored)]


def state_of(algorithm) -> dict:
    state = algorithm.learner_group.get_state()["learner"]
    return {key: state[key] for key in ("rl_module", "optimizer", "replay") if key in state}


@pytest.mark.parametrize("actions", ["simplex", "box"])
@models
def test_it_trains_where_episodes_terminate_and_truncate(start, actions, model):
    algorithm = start(model=model, training=replace(TRAINING, burn_in=2 * (model is GRU)), actions=actions)
    first = algorithm.train()
    assert first["env_runners"]["num_env_steps_sampled_lifetime"] == stored(algorithm)[0] == 120  # whole rollouts of 60
    second = algorithm.train()
    assert second["env_runners"]["num_env_steps_sampled_lifetime"] == 180
    learner = second["learners"][DEFAULT_MODULE_ID]
    for figure in ("policy_loss", "critic_loss", "value_loss", "entropy", "alpha", "q_policy", "cvar"):
        assert np.isfinite(learner[figure])
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    assert int(module.gradient_steps) == 6
    assert float(module.reward_scale) > 0.5  # of the first 120 rewards
    weights = algorithm.env_runner.module.get_state()
    for key, value in module.get_state().items():
        np.testing.assert_array_equal(np.asarray(weights[key]), np.asarray(value))


def test_observations_are_normalised_as_they_are_drawn(name):
    config = build_tqc(TRAINING, MLP, name, {"actions": "simplex"})
    runner = ReplayEnvRunner(config=config, worker_index=0)
    learner = config.build_learner(env=runner.env)
    for _ in range(2):
        rollouts = runner.sample()
        batches = list(learner._create_iterator_if_necessary(training_data=TrainingData(episodes=rollouts)))
    assert len(batches) == TRAINING.gradient_steps
    seen = {tuple(np.round(row, 4)) for row in runner._normalizer().normalized(rollouts[0].obs.flatten(0, 1).numpy()).tolist()}
    earlier_too = batches[0].policy_batches[DEFAULT_MODULE_ID][Columns.OBS].flatten(0, 1)
    assert earlier_too.abs().max() <= MLP.observation_clip
    assert any(tuple(np.round(row, 4)) in seen for row in earlier_too.tolist())


def test_the_burn_in_is_every_sequence_s_first_rows(name):
    config = build_tqc(replace(TRAINING, burn_in=2), GRU, name, {"actions": "simplex"})
    runner = ReplayEnvRunner(config=config, worker_index=0)
    learner = config.build_learner(env=runner.env)
    batch = next(iter(learner._create_iterator_if_necessary(training_data=TrainingData(episodes=runner.sample()))))
    counted = batch.policy_batches[DEFAULT_MODULE_ID][COUNTED]
    assert counted.tolist() == [[False, False, True, True, True, True]] * 4


def test_the_exported_value_is_in_the_unit_of_the_reward(start):
    algorithm = start()
    algorithm.train()
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    policy = policy_from(algorithm)
    assert_close(policy.actor_critic.value.weight, module.actor_critic.value.weight * module.reward_scale)


@models
def test_a_restored_training_goes_on_to_the_bit_with_its_buffer(start, tmp_path, model):
    before, after = start(model=model), start(model=model, seed=5)
    for _ in range(2):
        before.train()
    after.restore_from_path(before.save_to_path(tmp_path / "checkpoint"))
    assert stored(after) == stored(before) == [180]
    assert_same_tree(state_of(after), state_of(before))
    rollouts = before.env_runner.sample()
    for algorithm in (before, after):
        torch.manual_seed(1)
        algorithm.learner_group.update(episodes=rollouts, timesteps={"num_env_steps_sampled_lifetime": 240})
    assert_same_tree(state_of(after), state_of(before))


def test_without_its_buffer_a_restored_training_fills_it_first(start, tmp_path):
    training = replace(TRAINING, save_buffer=False)
    before, after = start(training), start(training)
    for _ in range(2):
        before.train()
    before.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped().reward_scale.fill_(7.0)
    after.restore_from_path(before.save_to_path(tmp_path / "checkpoint"))
    assert stored(after) == [0]
    assert after.env_steps_wanted() == 100
    result = after.train()
    assert stored(after) == [120]
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 180 + 120
    scale = state_of(after)["rl_module"][DEFAULT_MODULE_ID]["reward_scale"]
    assert float(np.asarray(scale)) == 7.0  # the unit stays that of the values learnt so far


@pytest.mark.slow
def test_remote_runners_and_a_remote_learner(start, tmp_path):
    training = replace(TRAINING, num_env_runners=2, num_learners=1)
    algorithm = start(training, model=GRU)
    for _ in range(2):
        result = algorithm.train()
    assert stored(algorithm) == [240]
    assert np.isfinite(result["learners"][DEFAULT_MODULE_ID]["critic_loss"])
    (learner,) = algorithm.learner_group.foreach_learner(lambda each: each.get_state(components="rl_module"))
    weights = learner.get()["rl_module"][DEFAULT_MODULE_ID]
    for runner in algorithm.env_runner_group.foreach_env_runner(lambda r: r.module.get_state(), local_env_runner=False):
        for key, value in weights.items():
            np.testing.assert_array_equal(np.asarray(runner[key]), np.asarray(value))
    other = start(model=GRU, seed=3)  # here: the session's Ray has no more processors
    other.restore_from_path(algorithm.save_to_path(tmp_path / "checkpoint"))
    assert stored(other) == [240]


# --- what does not go together ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gamma", 1.1),
        ("tau", 0.0),
        ("quantiles", 1),
        ("drop_per_critic", 25),
        ("cvar_alpha", 0.0),
        ("num_learners", 2),
        ("learning_starts", 100),
        ("learning_starts", 200_000),
        ("initial_alpha", 0.0),
        ("gradient_steps", 0),
    ],
)
def test_a_setting_outside_its_meaning_is_named(field, value):
    with pytest.raises(ConfigError, match=rf"training\.{field} = {value}; expected"):
        TQCTrainingConfig(**{field: value})


@pytest.mark.parametrize(
    ("changes", "model", "env", "message"),
    [
        ({}, MLP, RegimeConfig(), "tqc needs weights .* MultiAssetRegime-v0 chooses one of 16 numbered actions"),
        ({"burn_in": 1}, MLP, PortfolioConfig(), "burn_in = 1 leaves nothing of sequences of 1 steps"),
        ({"burn_in": 6}, GRU, PortfolioConfig(), "burn_in = 6 leaves nothing of sequences of 6 steps"),
        (
            {"cvar_weight": 0.5, "cvar_alpha": 0.05},
            MLP,
            PortfolioConfig(),
            "num_critics × quantiles = 10 atoms is less than one",
        ),
    ],
)
def test_training_model_and_environment_must_suit_each_other(changes, model, env, message):
    with pytest.raises(ConfigError, match=message):
        replace(TRAINING, **changes).check(model, make_task(env, random_tape(0, 3))[0])
