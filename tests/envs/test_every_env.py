"""One contract that every environment, in several settings, passes."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs import CATALOG, make, make_vec
from envs.accounts import OBS_LIMIT
from envs.backend import Backend
from envs.ledger import project
from envs.tape import MarketTape
from envs.trading_config import EpisodeConfig
from tests.envs.markets import CASES, random_actions, random_tape, tape_of, with_changed_future

EVERY_CASE = pytest.mark.parametrize("case", CASES)
EVERY_ID = pytest.mark.parametrize("env_id", CATALOG)
BACKENDS = pytest.mark.parametrize("library", ["numpy", "torch"])
MODES = pytest.mark.parametrize("mode", ["same_step", "next_step"])


def build(case: str, seed: int = 0, volatility: float = 0.02, **episode):
    config, assets = CASES[case]
    return replace(config, episode=replace(config.episode, **episode)), random_tape(seed, assets, volatility=volatility)


def exact(library: str) -> Backend:
    return Backend(library, "float64")


# ── Gymnasium ────────────────────────────────────────────────────────────────────────────────────────────────────────


@EVERY_ID
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_finds_nothing_to_object_to(env_id):
    check_env(gym.make(env_id).unwrapped)


@EVERY_CASE
def test_gymnasium_accepts_every_setting(case):
    check_env(make(*build(case)), skip_render_check=True)


@EVERY_ID
@BACKENDS
def test_make_vec_gives_the_native_vector_environment_on_either_backend(env_id, library):
    env = gym.make_vec(env_id, num_envs=5, vectorization_mode="vector_entry_point", backend=Backend(library, "float32"))
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(np.asarray(obs))
    for _ in range(3):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(np.asarray(obs))
        assert {tuple(x.shape) for x in (reward, terminated, truncated)} == {(5,)}
        assert {isinstance(x, torch.Tensor) for x in (obs, reward, terminated, truncated)} == {library == "torch"}
        assert str(reward.dtype).endswith("float32")


@EVERY_CASE
def test_each_observation_entry_has_one_name_of_its_own(case):
    env = make(*build(case))
    names = env.task.observation_names
    assert len(set(names)) == len(names) == env.observation_space.shape[0] == len(env.reset(seed=0)[0])


@EVERY_CASE
def test_the_same_seed_gives_the_same_episode_and_another_seed_another(case):
    env = make(*build(case))
    first, again, other = (env.reset(seed=seed)[1]["date"] for seed in (1, 1, 2))
    assert first == again != other


@EVERY_CASE
def test_what_was_returned_never_changes_later(case):
    """RLlib keeps references to observations, rewards and infos."""
    config, tape = build(case, length_bars=None, random_start=False, wealth_floor=0.0)
    env = make(config, tape)
    vec = make_vec(config, tape, 3, backend=exact("numpy"))
    kept, copies = [], []

    def keep(*arrays):
        kept.extend(arrays)
        copies.extend(np.copy(a) for a in arrays)

    keep(env.reset(seed=0)[0], vec.reset(seed=0)[0])
    for actions in random_actions(env.action_space, 30, 3, 0):
        given_action = actions.copy()
        obs, _, _, _, info = env.step(actions[0])
        keep(obs, *(value for value in info.values() if isinstance(value, np.ndarray)))
        keep(*vec.step(actions)[:4])
        assert_array_equal(actions, given_action)
    for now, then in zip(kept, copies, strict=True):
        assert_array_equal(now, then)


# ── one step loop: vector equals single, torch equals numpy ──────────────────────────────────────────────────────────


@EVERY_CASE
@BACKENDS
@MODES
def test_a_vector_of_accounts_equals_single_accounts_over_several_episodes(case, library, mode):
    """Prices move enough that some episodes end in ruin, so that accounts fall out of step with one another."""
    config, tape = build(case, seed=3, volatility=0.15, wealth_floor=0.9)
    count = 4
    vec = make_vec(config, tape, count, backend=exact(library), autoreset_mode=mode)
    singles = [make(config, tape) for _ in range(count)]
    obs, _ = vec.reset(seed=5)
    starts = np.asarray(vec.accounts.row)
    for i, env in enumerate(singles):
        assert_allclose(obs[i], env.reset(options={"start_row": starts[i]})[0], atol=1e-6)
    ended, episodes, ruins = np.zeros(count, bool), 0, 0
    for actions in random_actions(vec.single_action_space, 40, count, 1):
        obs, reward, terminated, truncated, infos = vec.step(torch.tensor(actions) if library == "torch" else actions)
        starts = np.asarray(vec.accounts.row)
        for i, env in enumerate(singles):
            if ended[i]:  # next_step only: this step did nothing but begin a new episode
                assert (float(reward[i]), bool(terminated[i]), bool(truncated[i])) == (0.0, False, False)
                assert "trade_closed" not in infos or not infos["trade_closed"][i].any()
                assert_allclose(obs[i], env.reset(options={"start_row": starts[i]})[0], rtol=1e-6, atol=1e-6)
                ended[i] = False
                continue
            last, *outcome, info = env.step(actions[i])
            assert_allclose([float(reward[i]), bool(terminated[i]), bool(truncated[i])], outcome, rtol=1e-9, atol=1e-9)
            if "trade_profit" in info:
                assert_allclose(infos["trade_profit"][i], info["trade_profit"], rtol=0, atol=1e-12)
                assert_array_equal(infos["trade_closed"][i], info["trade_closed"])
            over = outcome[1] or outcome[2]
            if over:
                episodes, ruins = episodes + 1, ruins + outcome[1]
                assert infos["_episode"][i]
                assert infos["episode"].keys() == info["episode"].keys()
                for name, value in info["episode"].items():
                    assert_allclose(infos["episode"][name][i], value, rtol=1e-9, atol=1e-9, err_msg=name)
            if over and mode == "same_step":
                assert infos["_final_obs"][i]
                assert_allclose(infos["final_obs"][i], last, rtol=1e-6, atol=1e-6)
                last = env.reset(options={"start_row": starts[i]})[0]
            ended[i] = over and mode == "next_step"
            assert_allclose(obs[i], last, rtol=1e-6, atol=1e-6)
    assert episodes > 10
    assert 0 < ruins < episodes


@EVERY_CASE
@BACKENDS
def test_accounts_of_a_batch_do_not_touch_each_other(case, library):
    config, tape = build(case, length_bars=20, wealth_floor=0.0)
    actions = random_actions(make(config, tape).action_space, 20, 3, 0)
    other = random_actions(make(config, tape).action_space, 20, 3, 99)
    other[:, 1:] = actions[:, 1:]
    paths = []
    for each in (actions, other):
        vec = make_vec(config, tape, 3, backend=exact(library))
        vec.reset(seed=0, options={"start_row": [3, 4, 5]})
        paths.append([vec.step(a)[:2] for a in each])
    for (obs, reward), (other_obs, other_reward) in zip(*paths, strict=True):
        assert_allclose(obs[1:], other_obs[1:], rtol=0, atol=1e-6)
        assert_allclose(reward[1:], other_reward[1:], rtol=0, atol=1e-9)
    assert not np.allclose(obs[0], other_obs[0])


@EVERY_CASE
def test_float32_training_batches_follow_the_exact_account(case):
    config, tape = build(case, length_bars=40, wealth_floor=0.0)
    actions = random_actions(make(config, tape).action_space, 40, 8, 0)
    vecs = [make_vec(config, tape, 8, backend=Backend("torch", precision)) for precision in ("float64", "float32")]
    for vec in vecs:
        vec.reset(options={"start_row": 5})
    for each in actions:
        (_, exact_reward, *_), (_, reward, *_) = (vec.step(each) for vec in vecs)
        assert_allclose(reward, exact_reward, rtol=1e-3, atol=1e-3)  # [percent]
    assert_allclose(vecs[1].accounts.wealth, vecs[0].accounts.wealth, rtol=1e-4)
    assert vecs[1].accounts.wealth.dtype == torch.float64


@EVERY_CASE
def test_actions_that_carry_gradients_leave_none_behind(case):
    vec = make_vec(*build(case), 2, backend=Backend("torch", "float32"))
    vec.reset(seed=0)
    action = torch.tensor(np.array(vec.action_space.sample()))
    action = action.requires_grad_() if action.is_floating_point() else action
    obs, reward, *_ = vec.step(action)
    assert [x.requires_grad for x in (obs, reward, vec.accounts.wealth)] == [False] * 3


# ── the money ────────────────────────────────────────────────────────────────────────────────────────────────────────


@EVERY_CASE
def test_info_explains_every_change_of_wealth_and_sums_are_sums(case):
    config, tape = build(case, length_bars=None, random_start=False, wealth_floor=0.0)
    env = make(config, tape)
    _, info = env.reset(seed=0)
    wealth, rewards, costs, terms = info["wealth"], [], [], []
    for action in random_actions(env.action_space, len(tape) - 1, 1, 0)[:, 0]:
        _, reward, _, truncated, info = env.step(action)
        assert_allclose(info["wealth"], wealth * (1 - info["cost"]) * (1 + info["portfolio_return"]), rtol=1e-12)
        row = env.accounts.row[0]
        carry = info["interest"] - info["financing"] - info["borrow_fee"]
        assert_allclose(info["portfolio_return"], info["weights"] @ (tape.gross[row] - 1) + carry, rtol=0, atol=1e-12)
        wealth = info["wealth"]
        rewards.append(reward)
        terms.append(sum(info["reward_terms"].values()))
        costs.append(info["cost"])
    assert truncated
    clip = config.reward.clip or np.inf
    assert_allclose(rewards, np.clip(terms, -clip, clip), rtol=1e-12, atol=1e-12)
    assert_allclose(sum(info["episode"][name] for name in info["reward_terms"]), sum(terms), rtol=1e-9, atol=1e-9)
    assert_allclose(info["episode"]["cost_paid"], sum(costs))
    assert_allclose(info["episode"]["total_return"], wealth - 1)


@EVERY_CASE
def test_weights_held_are_feasible_at_every_bar(case):
    config, tape = build(case, length_bars=None, random_start=False, volatility=0.1, wealth_floor=0.0)
    env = make(config, tape)
    env.reset(seed=0)
    over = False
    for row, action in enumerate(random_actions(env.action_space, len(tape) - 1, 1, 0)[:, 0]):
        if over:
            break
        _, _, terminated, over, info = env.step(action)
        over |= terminated
        night = config.caps.gross_overnight if tape.session_end[row] else None
        weights = info["weights"][None]
        cap = None if night is None else np.array([night])
        assert_allclose(project(weights, config.caps, cap), weights, rtol=0, atol=1e-12)


@EVERY_CASE
def test_a_whole_window_in_order_decides_first_on_its_first_close_and_values_last_on_its_last(case):
    config, tape = build(case, length_bars=None, random_start=False, wealth_floor=0.0)
    env = make(config, tape, start="2020-01-11", end="2020-01-20")
    dates = [env.reset(seed=0)[1]["date"]]
    over = False
    while not over:
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        over = terminated or truncated
        dates.append(info["date"])
    assert truncated
    assert [str(dates[0])[:10], str(dates[-1])[:10], len(dates)] == ["2020-01-11", "2020-01-20", 10]


# ── look-ahead ───────────────────────────────────────────────────────────────────────────────────────────────────────


def life(config, tape: MarketTape, actions):
    """Everything an agent sees, as (row it is known at, values)."""
    env = make(config, tape)
    obs, _ = env.reset(options={"start_row": 2})
    seen = [(2, obs)]
    for row, action in enumerate(actions, start=3):
        obs, reward, terminated, truncated, info = env.step(action)
        numbers = [reward, terminated, truncated, *info["reward_terms"].values()]
        plain = [np.ravel(v) for k, v in info.items() if k not in ("date", "reward_terms", "episode")]
        seen.append((row, np.concatenate([obs.astype(float), np.array(numbers, float), *plain])))
    return seen


@EVERY_CASE
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), t=st.integers(2, 26))
def test_nothing_after_t_changes_an_observation_reward_or_info_up_to_t(case, seed, t):
    config, assets = CASES[case]
    config = replace(config, episode=EpisodeConfig(length_bars=25, wealth_floor=0.0))
    tape = random_tape(seed, assets, 28)
    actions = random_actions(make(config, tape).action_space, 25, 1, seed)[:, 0]
    for (row, before), (_, after) in zip(
        life(config, tape, actions), life(config, with_changed_future(tape, t, seed), actions), strict=True
    ):
        if row <= t:
            assert_array_equal(before, after, err_msg=f"row {row}")
        elif row == t + 1:  # else the test would pass for an environment that shows nothing
            assert not np.array_equal(before, after)


# ── extreme prices ───────────────────────────────────────────────────────────────────────────────────────────────────


def extreme_gross(kind: str, rows: int, assets: int, rng: np.random.Generator) -> np.ndarray:
    exponents = {
        "anything": rng.uniform(-6, 6, (rows, assets)),
        "flat": np.zeros((rows, assets)),
        "one moves": np.where(np.arange(assets) == 0, rng.uniform(-6, 6, (rows, 1)), 0.0),
        "up for ever": np.full((rows, assets), 6.0),
        "down for ever": np.full((rows, assets), -6.0),
        "up, then down": np.where(np.arange(rows)[:, None] < rows - 5, 6.0, -6.0) * np.ones(assets),
        "ends of the range": rng.choice([-6.0, 6.0], (rows, assets)),
        "almost flat": rng.normal(0, 1e-12, (rows, assets)),
        "calm with one shock": np.where(rng.random((rows, assets)) < 0.05, rng.uniform(-6, 6), 0.001),
    }
    return 10.0 ** exponents[kind]


KINDS = (
    "anything",
    "flat",
    "one moves",
    "up for ever",
    "down for ever",
    "up, then down",
    "ends of the range",
    "almost flat",
    "calm with one shock",
)


@EVERY_CASE
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), floor=st.sampled_from([0.0, 0.01, 0.5]))
@pytest.mark.filterwarnings("error")
def test_observations_and_rewards_stay_finite_at_extreme_prices(case, kind, seed, floor):
    """7 settings × 20 markets × 8 accounts: 1,120 episodes and more, long enough for 1e6 a bar to overflow a float64."""
    config, assets = CASES[case]
    rng = np.random.default_rng(seed)
    gross = extreme_gross(kind, 60, assets, rng)
    tape = replace(random_tape(seed, assets, 60), gross=gross, features=rng.choice([-1e30, 0.0, 1.0, 1e30], (60, assets, 2)))
    config = replace(config, episode=EpisodeConfig(length_bars=58, wealth_floor=floor))
    vec = make_vec(config, tape, 8, backend=exact("numpy"))
    obs, _ = vec.reset(seed=seed)
    for actions in random_actions(vec.single_action_space, 58, 8, seed):
        assert np.isfinite(obs).all()
        assert (abs(obs) <= OBS_LIMIT).all()
        obs, reward, terminated, _, infos = vec.step(actions)
        assert np.isfinite(reward).all()
        assert np.isfinite(vec.accounts.wealth).all()
        assert_array_equal(terminated, (vec.accounts.wealth <= floor) & vec._ended)
        assert all(np.isfinite(sums).all() for sums in infos.get("episode", {}).values())


@EVERY_CASE
@BACKENDS
def test_float32_batches_stay_finite_at_extreme_prices_too(case, library):
    config, assets = CASES[case]
    rng = np.random.default_rng(0)
    tape = replace(random_tape(0, assets, 60), gross=extreme_gross("ends of the range", 60, assets, rng))
    vec = make_vec(replace(config, episode=EpisodeConfig(length_bars=58)), tape, 8, backend=Backend(library, "float32"))
    vec.reset(seed=0)
    for actions in random_actions(vec.single_action_space, 58, 8, 0):
        obs, reward, *_ = vec.step(actions)
        assert np.isfinite(np.asarray(obs)).all()
        assert np.isfinite(np.asarray(reward)).all()


@EVERY_CASE
def test_flat_prices_show_a_finite_observation_and_leave_an_idle_account_alone(case):
    config, assets = CASES[case]
    tape = replace(tape_of(*[[1.0] * 40] * assets), context=np.full((40, 1), 20.0), context_names=("vix",))
    tape = replace(tape, dollar_volume=np.full((40, assets), 1e6))
    env = make(replace(config, financing=replace(config.financing, cash_rate_annual=0.0)), tape)
    obs, _ = env.reset(seed=0)
    assert np.isfinite(obs).all()
    cash = {"Discrete": lambda space: 1, "Simplex": lambda space: np.eye(1, *space.shape, dtype=np.float32)[0]}
    idle = cash.get(type(env.action_space).__name__, lambda space: np.zeros(space.shape, np.float32))(env.action_space)
    for _ in range(7):
        *_, info = env.step(idle)
    assert info["wealth"] == 1.0
    assert info["episode"]["turnover_paid"] == 0.0
