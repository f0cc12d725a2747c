"""Gradients through the ledger: the windows are the environment's own, the gradient is right, and learning works."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from envs.catalog import make, make_task
from envs.constraints import ConstraintsConfig
from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.rewards import RewardConfig
from envs.terms import CostConfig
from envs.trading_config import EpisodeConfig
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig
from rlplatform.algorithms.differentiable_algorithm import DifferentiableAlgorithm
from rlplatform.algorithms.differentiable_blind import BlindWindows
from rlplatform.algorithms.differentiable_group import GroupWindows
from rlplatform.algorithms.differentiable_learner import DifferentiableLearner
from rlplatform.algorithms.differentiable_windows import MarketWindows
from rlplatform.algorithms.pretraining import PretrainConfig
from rlplatform.algorithms.schedules import scheduled
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gru import GRUConfig
from rlplatform.models.heads import head_for
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy
from tests.envs.markets import CASES, EVERY_TERM, random_tape, tape_of

MODELS = {"gru": GRUConfig(embedding_size=8, hidden_size=8), "mlp": MLPConfig(layers=(8,))}
CONTINUOUS = {name: case for name, case in CASES.items() if not isinstance(case[0], RegimeConfig)}
UNGUARDED = {name: case for name, case in CONTINUOUS.items() if case[0].shutdown is None and case[0].guards is None}
UNGUARDED |= {"pair, every term": (PairLeverageConfig(reward=replace(EVERY_TERM, drawdown=1.0)), 2)}
GUARDED = CASES["portfolio, long/short, guarded"][0]
UNNORMALISED = replace(MODELS["mlp"], normalize_observations=False)
ORDERED = EpisodeConfig(length_bars=7, random_start=False, wealth_floor=0.5)


def lively_network(task, model, seed=0) -> ActorCritic:
    """Fresh, but with weights that move with what it sees."""
    torch.manual_seed(seed)
    network = ActorCritic(model, len(task.observation_names), head_for(task.action_space))
    with torch.no_grad():
        for parameter in network.policy.parameters():
            parameter.mul_(100.0)
    return network


def fitted_normalizer(task, **settings) -> ObservationNormalizer:
    normalizer = ObservationNormalizer(len(task.observation_names), **settings)
    normalizer.update(task.observation_table + np.random.default_rng(1).normal(size=task.observation_table.shape))
    return normalizer


def new_windows(task, kind=MarketWindows, accounts=3, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return kind(task, (0, len(task.tape) - 1), accounts, generator, **settings)


# The windows are the environment's own


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_window_is_what_the_environment_shows_and_pays_that_policy(name, model):
    config, assets = CONTINUOUS[name]
    task, tape = make_task(replace(config, episode=ORDERED), random_tape(3, assets))
    network, normalizer = lively_network(task, MODELS[model]), fitted_normalizer(task)
    windows = new_windows(task)
    parts = [windows.roll(network, normalizer, bars) for bars in (5, 4, 6)]  # accounts and memory go on between windows
    obs, reward, first = (torch.cat([getattr(part, name) for part in parts]).detach() for name in ("obs", "reward", "first"))
    policy, env = Policy(network, normalizer, config.id), make(task.config, tape)
    for account in range(3):
        for t in range(len(obs)):
            if first[t, account]:
                seen, state = env.reset()[0], policy.initial_state(1)
            assert_allclose(obs[t, account], seen, atol=3e-5, rtol=1e-5, err_msg=f"bar {t}")  # some are percent
            action, state, _ = policy.act(seen[None], state)
            seen, paid, *_ = env.step(action[0])
            assert_allclose(reward[t, account], paid, atol=5e-4, rtol=1e-4)  # percent, float32 against float64
    wealth = windows.accounts.wealth[-1].item()
    assert_allclose(wealth, 1.0 if bool(windows.first[-1]) else env.accounts.wealth[0], rtol=1e-5)


def test_episodes_end_at_different_bars_and_their_figures_add_up():
    task, _ = make_task(PortfolioConfig(episode=replace(ORDERED, length_bars=6), costs=CostConfig()), random_tape(5, 2))
    windows = new_windows(task, accounts=16)
    windows.accounts.sums = {name: values * 0 for name, values in windows.accounts.sums.items()}
    window = windows.roll(lively_network(task, MODELS["mlp"]), None, 6)
    assert len(window.episodes) >= 16
    assert {episode["length"] for episode in window.episodes} > {1.0, 6.0}
    for episode in window.episodes:
        assert_allclose(episode["return"], episode["log_growth"], rtol=1e-5, atol=1e-6)
        assert_allclose(episode["return"], 100 * np.log1p(episode["total_return"]), atol=1e-3)


@pytest.mark.parametrize("block_bars", [None, 3], ids=["history", "bootstrap"])
@pytest.mark.parametrize("name", UNGUARDED)
def test_a_policy_that_does_not_see_its_account_takes_a_window_in_one_pass_with_the_same_result_and_gradient(name, block_bars):
    config, assets = UNGUARDED[name]
    task, _ = make_task(replace(config, episode=replace(ORDERED, random_start=True, wealth_floor=0.0)), random_tape(3, assets))
    network = lively_network(task, MODELS["gru"])
    normalizer = fitted_normalizer(task, hidden=np.flatnonzero(task.account_entries))
    found = []
    for kind in (MarketWindows, BlindWindows):
        windows = new_windows(task, kind, accounts=5, block_bars=block_bars)
        parts = [windows.roll(network, normalizer, bars) for bars in (6, 5)]
        network.zero_grad()
        parts[-1].objective.mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        found.append((parts, windows.snapshot(), gradient))
    (steps, snapshot, gradient), (blind, blind_snapshot, blind_gradient) = found
    for ours, theirs in zip(blind, steps, strict=True):
        assert_allclose(ours.reward.detach(), theirs.reward.detach(), atol=5e-4)
        assert_array_equal(ours.first, theirs.first)
        for one, other in zip(ours.episodes, sorted(theirs.episodes, key=theirs.episodes.index), strict=True):
            assert one.keys() == other.keys()
            assert_allclose([one[key] for key in other], list(other.values()), rtol=1e-3, atol=2e-3)
    for key in ("row", "end_row", "wealth", "peak", "weights"):
        assert_allclose(blind_snapshot["accounts"][key], snapshot["accounts"][key], rtol=2e-5, atol=1e-6, err_msg=key)
    assert_allclose(blind_gradient, gradient, rtol=2e-2, atol=2e-4 * float(gradient.abs().max()))


def test_jumps_go_to_training_rows_only_and_leave_the_account_as_it_is():
    task, tape = make_task(PortfolioConfig(episode=EpisodeConfig(length_bars=40)), random_tape(3, 2))
    windows = MarketWindows(task, (10, 55), 50, torch.Generator().manual_seed(0), block_bars=4)
    rows, left = [], []
    network = lively_network(task, MODELS["mlp"])
    for _ in range(40):
        rows.append(windows.accounts.row.clone())
        left.append((windows.accounts.end_row - windows.accounts.row).clone())
        windows.roll(network, None, 1)
    rows, left = torch.stack(rows), torch.stack(left)
    assert rows.min() >= 10
    assert rows.max() <= 54  # a decision on the last row has no outcome
    going_on = left[1:] == left[:-1] - 1
    jumped = (rows[1:] != rows[:-1] + 1) & going_on
    assert 0.2 < jumped.float().mean() < 0.32  # 1 in 4, and forced ones at the last row
    assert len(tape) == 60


# The gradient


def test_the_gradient_of_one_bar_is_that_of_log_wealth():
    """All in one asset that gains 10 %: d log(1 + 0.1 w)/dw = 0.1 / (1 + 0.1 w), and w = σ(m) at m = 0 has slope 1/4."""
    task, _ = make_task(
        PortfolioConfig(episode=EpisodeConfig(length_bars=1), costs=CostConfig(proportional_bps=0)), tape_of([1.0, 1.1])
    )
    network = ActorCritic(MLPConfig(layers=(4,)), len(task.observation_names), head_for(task.action_space))
    with torch.no_grad():
        for parameter in network.policy.parameters():
            parameter.zero_()
    windows = new_windows(task, accounts=1)
    window = windows.roll(network, None, 1)
    window.objective.mean().backward()
    assert_allclose(window.reward.item(), 100 * np.log(1.05), rtol=1e-5)
    assert_allclose(network.policy.bias.grad.item(), 100 * 0.1 / 1.05 / 4, rtol=1e-4)


@pytest.mark.parametrize("name", ["portfolio, levered, all penalties", "pair, debit, costly"])
def test_the_gradient_through_the_account_agrees_with_finite_differences(name):
    """Costs, impact, financing, drawdown, drifted weights read again by the policy: the whole chain of a window."""
    config, assets = CONTINUOUS[name]
    task, _ = make_task(replace(config, episode=ORDERED, shutdown=None, reward=EVERY_TERM), random_tape(3, assets))
    network, normalizer = lively_network(task, MODELS["gru"]), fitted_normalizer(task)

    def objective() -> torch.Tensor:
        return new_windows(task).roll(network, normalizer, 7).objective.mean()

    objective().backward()
    generator = torch.Generator().manual_seed(2)
    for parameter in (network.policy.weight, network.encoder.embed.weight, network.encoder.gru.weight_hh_l0):
        way = torch.randn(parameter.shape, generator=generator)
        values = []
        for step in (-3e-3, 3e-3):
            with torch.no_grad():
                parameter.add_(step * way)
                values.append(objective().item())
                parameter.sub_(step * way)
        slope = (values[1] - values[0]) / 6e-3
        assert_allclose((parameter.grad * way).sum().item(), slope, rtol=0.05, atol=2e-3)


def test_what_the_account_shows_is_read_with_its_gradient_or_without():
    task, _ = make_task(PortfolioConfig(episode=ORDERED, costs=CostConfig(proportional_bps=50)), random_tape(3, 3))
    network, found = lively_network(task, MODELS["mlp"]), {}
    for given in (False, True):
        network.zero_grad()
        window = new_windows(task, given=given).roll(network, None, 6)
        window.objective.mean().backward()
        found[given] = window.reward.detach(), network.policy.weight.grad.clone()
    assert_array_equal(found[True][0], found[False][0])
    assert (found[True][1] - found[False][1]).abs().max() > 1e-3


def test_gradients_are_finite_where_nothing_is_traded_and_where_everything_is_lost():
    crash = tape_of([1.0, 1.0, 1e-9, 1.0, 1.0, 1.0, 1.0], [1.0] * 7)
    config = PairLeverageConfig(episode=replace(ORDERED, length_bars=5), costs=CostConfig(impact=0.1), reward=EVERY_TERM)
    task, _ = make_task(config, crash)
    network = lively_network(task, MODELS["mlp"])
    with torch.no_grad():
        network.policy.weight.zero_()
        network.policy.bias.copy_(torch.tensor([3.0, 0.0]))  # all the leverage in what falls to nothing
    windows = new_windows(task)
    window = windows.roll(network, None, 6)
    window.objective.mean().backward()
    assert window.episodes  # ruined
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


# The learner


def new_algorithm(training=None, model="gru", seed=1, config=None) -> DifferentiableAlgorithm:
    settings = {"total_env_steps": 4_096, "window": 4, "num_envs": 6, "updates_per_iteration": 2, "block_bars": 9}
    training = DifferentiableTrainingConfig(**settings | (training or {}))
    task, tape = make_task(config or PairLeverageConfig(episode=EpisodeConfig(length_bars=9)), random_tape(3, 2))
    return DifferentiableAlgorithm(training, MODELS[model], task, (0, len(tape) - 1), seed, task.config.id)


@pytest.mark.parametrize("account", ["gradient", "hidden"])
@pytest.mark.parametrize("model", MODELS)
def test_a_restored_training_goes_on_to_the_bit(model, account, tmp_path):
    training = {"account": account, "learning_rate": ((0, 1e-2), (100, 1e-3)), "weight_decay": 0.1}
    whole, later = new_algorithm(training, model), new_algorithm(training, model)
    whole.train()
    whole.save_to_path(str(tmp_path / "checkpoint"))
    later.restore_from_path(str(tmp_path / "checkpoint"))
    torch.rand(3)  # no global generator has a part in it
    for _ in range(2):
        assert whole.train() == later.train()
    ours, theirs = whole.policy(), later.policy()
    assert all(torch.equal(a, b) for a, b in zip(ours.actor_critic.parameters(), theirs.actor_critic.parameters(), strict=True))
    assert_array_equal(ours.normalizer.m2, theirs.normalizer.m2)
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {"learner.safetensors", "learner.json"}  # no pickle


def test_whoever_takes_over_another_s_checkpoint_makes_draws_of_its_own(tmp_path):
    one, other = new_algorithm(seed=1), new_algorithm(seed=2)
    one.train()
    one.save_to_path(str(tmp_path / "checkpoint"))
    before = other._learner.windows.accounts.row.clone()
    other.restore_from_path(str(tmp_path / "checkpoint"))
    assert_array_equal(other._learner.windows.accounts.row, before)
    assert torch.equal(one._learner.network.policy.weight, other._learner.network.policy.weight)
    assert other.train()["env_runners"]["num_env_steps_sampled_lifetime"] == 2 * 2 * 4 * 6


def test_a_training_draws_from_its_own_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = new_algorithm().train()
    assert_array_equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert new_algorithm().train() == first
    assert new_algorithm(seed=2).train() != first


def test_a_gradient_that_is_no_number_leaves_the_weights_as_they_were():
    learner = new_algorithm()._learner
    before = learner.network.policy.weight.detach().clone()
    learner.windows.roll = lambda *args: _poisoned(MarketWindows.roll(learner.windows, *args))
    figures, _ = learner.update()
    assert np.isnan(figures["policy_loss"])
    assert torch.equal(learner.network.policy.weight, before)


def _poisoned(window):
    return window._replace(objective=window.objective * float("nan"))


def test_a_hidden_account_stays_hidden_in_the_saved_policy(tmp_path):
    algorithm = new_algorithm({"account": "hidden"})
    algorithm.train()
    policy = Policy.load(algorithm.policy().save(tmp_path / "policy"))
    names = algorithm._learner.windows.accounts.task.observation_names
    obs = np.random.default_rng(0).normal(size=(2, len(names))).astype(np.float32)
    obs[1] = obs[0]
    obs[1, algorithm._learner.windows.accounts.task.account_entries] += 5.0
    actions = policy.act(obs, policy.initial_state(2))[0]
    assert_allclose(actions[0], actions[1], rtol=1e-5)
    obs[1, 0] += 1.0
    actions = policy.act(obs, policy.initial_state(2))[0]
    assert abs(actions[0] - actions[1]).max() > 1e-3 * abs(actions[0]).max()


def test_a_training_starts_from_an_earlier_policy_and_is_held_near_it(tmp_path):
    earlier = new_algorithm(seed=5)
    earlier.train()
    earlier.policy().save(tmp_path / "policy")
    training = {"pretrain": {"run": str(tmp_path), "kl_coeff": 100.0, "kl_anneal_env_steps": 10_000}, "learning_rate": 1e-2}
    free = training | {"pretrain": PretrainConfig(**training["pretrain"] | {"kl_coeff": 0.0})}
    held = training | {"pretrain": PretrainConfig(**training["pretrain"])}
    moved = {}
    for name, settings in (("free", free), ("held", held)):
        algorithm = new_algorithm(settings)
        algorithm.start_from(Policy.load(tmp_path / "policy"))
        start = algorithm._learner.network.policy.weight.detach().clone()
        assert torch.equal(start, earlier._learner.network.policy.weight)
        result = algorithm.train()["learners"]["default_policy"]
        moved[name] = (algorithm._learner.network.policy.bias - earlier._learner.network.policy.bias).abs().sum().item()
        assert ("kl_to_pretrained" in result) == (name == "held")
    assert moved["held"] < moved["free"]
    with pytest.raises(ConfigError, match=r"the earlier policy is a gru of .* and does not fit"):
        new_algorithm(model="mlp").start_from(Policy.load(tmp_path / "policy"))


# Groups


def test_a_group_starts_from_one_state_on_one_market_and_its_mean_is_the_baseline():
    """Rewards 1, 3 and then 2, 0: to go 3, 3 and 2, 0; the first pair is even, the second ±1."""
    task, _ = make_task(PortfolioConfig(episode=EpisodeConfig(length_bars=30)), random_tape(3, 2))
    windows = GroupWindows(2, 0, task, (0, 59), 6, torch.Generator().manual_seed(0), block_bars=5)
    network = lively_network(task, MODELS["gru"])
    for _ in range(3):
        window = windows.roll(network, None, 4)
        pairs = windows.accounts.row.view(3, 2)
        assert_array_equal(pairs[:, 0], pairs[:, 1])
        assert_array_equal(window.obs[0, ::2], window.obs[0, 1::2])  # the same state, weights included
        assert (window.reward[0, ::2] != window.reward[0, 1::2]).any()  # other actions
        grouped = windows._advantage(window).view(4, 3, 2)
        assert_allclose(grouped.sum(-1), 0, atol=1e-9)
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    small = window._replace(reward=torch.tensor([[1.0, 3.0], [2.0, 0.0]], dtype=torch.float64), first=nothing)
    assert_allclose(windows._advantage(small), [[0, 0], [1, -1]])
    ended = small._replace(first=torch.tensor([[False, False], [True, True]]))  # what follows is another episode's
    assert_allclose(windows._advantage(ended), [[-1, 1], [1, -1]])


def test_groups_learn_numbered_actions_and_go_on_to_the_bit(tmp_path):
    """Of three assets the first gains 1 % a bar: the optimum is to hold it alone."""
    tape = tape_of([1.01] * 60, [0.99] * 60, [1.0] * 60)
    task, _ = make_task(RegimeConfig(episode=EpisodeConfig(length_bars=20)), tape)
    settings = {"estimator": "grpo", "num_envs": 32, "window": 8, "learning_rate": 3e-2, "updates_per_iteration": 10}

    def fresh():
        return DifferentiableAlgorithm(
            DifferentiableTrainingConfig(**settings), MODELS["mlp"], task, (0, 59), 0, task.config.id
        )

    algorithm, later = fresh(), fresh()
    first = algorithm.train()["learners"]["default_policy"]["bar_reward"]
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    later.restore_from_path(str(tmp_path / "checkpoint"))
    second = algorithm.train()
    assert later.train() == second
    assert second["learners"]["default_policy"]["bar_reward"] > first + 0.1


# Settings


def test_settings_round_trip_and_mistakes_are_one_line():
    training = DifferentiableTrainingConfig(learning_rate=((0, 1e-3), (1000, 1e-4)), block_bars=20, account="hidden")
    assert DifferentiableTrainingConfig(**asdict(training)) == training
    for wrong, message in (
        ({"window": 0}, "training.window = 0; expected at least 1"),
        ({"block_bars": 1}, "training.block_bars = 1; expected at least 2 bars, or null"),
        ({"num_learners": 3}, "training.num_learners = 3; expected 0 or more, dividing num_envs = 64"),
        ({"weight_decay": -1.0}, "training.weight_decay"),
        ({"estimator": "grpo", "group_size": 7}, "training.group_size = 7; expected at least 2, whole groups"),
        ({"estimator": "grpo", "account": "hidden"}, "training.account = hidden; expected gradient or given"),
        ({"learning_rate": ((5, 1.0), (6, 1.0))}, "from step 0 on"),
    ):
        with pytest.raises(ConfigError, match=message):
            DifferentiableTrainingConfig(**wrong)


def test_a_schedule_is_linear_between_its_points():
    points = ((0.0, 1.0), (100.0, 0.5), (200.0, 0.1))
    assert [scheduled(points, step) for step in (0, 50, 100, 150, 200, 999)] == pytest.approx([1.0, 0.75, 0.5, 0.3, 0.1, 0.1])
    assert scheduled(0.3, 7) == 0.3


@pytest.mark.parametrize(
    ("config", "training", "model", "message"),
    [
        (RegimeConfig(), {}, MODELS["mlp"], r"MultiAssetRegime-v0 chooses one of 16 numbered actions\. Use ppo"),
        (GUARDED, {"account": "hidden"}, MODELS["mlp"], "hidden takes a window in one pass, but env.guards, env.shutdown"),
        (PortfolioConfig(constraints=ConstraintsConfig()), {"account": "hidden"}, MODELS["mlp"], "and env.constraints follow"),
        (GUARDED, {"estimator": "grpo"}, MODELS["mlp"], "grpo copies accounts, and not their env.guards or env.shutdown"),
        (PortfolioConfig(), {"account": "hidden"}, UNNORMALISED, "normalize_observations = false has none"),
    ],
    ids=["numbered actions", "guards", "constraints", "guards in groups", "no normaliser"],
)
def test_what_cannot_be_learnt_this_way_is_refused(config, training, model, message):
    task, _ = make_task(config, random_tape(0, 3))
    with pytest.raises(ConfigError, match=message):
        DifferentiableTrainingConfig(**training).check(model, task)


# Learning


def test_a_policy_learns_to_hold_what_rises_and_to_save_costs():
    """Two assets: one gains 1 % a bar, one loses; the first belongs in the account whole, and is then never traded."""
    task, tape = make_task(
        PortfolioConfig(episode=EpisodeConfig(length_bars=20), reward=RewardConfig(log_growth=1.0)),
        tape_of([1.01] * 60, [0.99] * 60),
    )
    training = DifferentiableTrainingConfig(window=8, num_envs=8, learning_rate=5e-2)
    learner = DifferentiableLearner(training, MODELS["mlp"], task, (0, len(tape) - 1), seed=0)
    figures = learner.updates(20)["figures"], learner.updates(20)["figures"]
    assert figures[1]["policy_loss"] < figures[0]["policy_loss"]
    assert learner.update()[0]["bar_log_growth"] > 0.85 * 100 * np.log(1.01)  # half of it would be equal weights of the three
