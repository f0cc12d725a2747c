from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs import ledger
from envs.constraints import ConstraintsConfig
from envs.errors import ConfigError, ShapeError
from envs.liquidity import LiquidityConfig
from envs.regime import ACTIONS, REGIMES, RegimeConfig, RegimeTask
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from envs.trading_config import EpisodeConfig
from envs.trading_env import TradingEnv
from rlplatform.evaluation.backtest import run_policy, run_targets, trading_room
from rlplatform.evaluation.baselines import BaselineConfig, judge_baselines
from tests.evaluation.conftest import dates, random_tape


def two_bars():
    return MarketTape(dates=dates(3), symbols=("A",), gross=[[7.0], [1.1], [1.2]])


def test_the_first_decision_earns_the_second_row_and_the_last_row_is_only_valued(free):
    track = run_targets("A", np.ones((3, 1)), two_bars(), **free)
    assert_allclose(track.wealth, [1.0, 1.1, 1.32])  # 7.0, the return into the first close, is not earned
    assert len(track) == 2


def test_buying_everything_at_100_bps_costs_just_under_one_percent_once():
    track = run_targets("A", np.ones((3, 1)), two_bars(), CostConfig(proportional_bps=100), FinancingConfig(), CapsConfig())
    assert_allclose(track.cost, [0.01 / 1.01, 0.0], atol=1e-12)  # κ = 0.01 (1 − κ)
    assert_allclose(track.wealth[-1], 1.32 * (1 - 0.01 / 1.01))


def test_targets_outside_the_caps_are_made_feasible(free):
    track = run_targets("A", np.full((3, 1), 5.0), two_bars(), **free)
    assert_allclose(track.weights, 1.0)


def test_the_overnight_cap_binds_at_the_end_of_each_session(free):
    caps = CapsConfig(gross=2.0, net=2.0, per_asset=2.0, gross_overnight=1.0)
    tape = MarketTape(dates=dates(3), symbols=("A",), gross=np.ones((3, 1)), session_end=[False, True, True])
    track = run_targets("A", np.full((3, 1), 2.0), tape, free["costs"], free["financing"], caps)
    assert_allclose(track.weights, [[2.0], [1.0]])


def test_impact_is_paid_on_the_wealth_of_the_moment():
    tape, costs, financing = random_tape(rows=60), CostConfig(proportional_bps=5, impact=0.05), FinancingConfig()
    targets = np.random.default_rng(1).dirichlet(np.ones(5), 60)[:, 1:]
    track = run_targets("random", targets, tape, costs, financing, CapsConfig())
    wealth, held = np.ones(1), np.zeros((1, 4))
    for t in range(59):
        step = ledger.step(wealth, held, targets[t : t + 1], tape.gross[t + 1], costs, financing)
        wealth, held = step.wealth, step.weights
    assert_allclose(track.wealth[-1], wealth[0], rtol=1e-12)


def test_spreads_of_the_tape_are_paid(free):
    tape = MarketTape(dates=dates(3), symbols=("A",), gross=np.ones((3, 1)), half_spread_bps=[[100.0], [0.0], [0.0]])
    assert_allclose(run_targets("A", np.ones((3, 1)), tape, **free).cost, [0.01 / 1.01, 0.0], atol=1e-12)


def test_targets_with_other_rows_than_the_tape_are_refused(free):
    with pytest.raises(ShapeError, match=r"A: targets have shape \(2, 1\); the tape is \(3, 1\)"):
        run_targets("A", np.ones((2, 1)), two_bars(), **free)


class LedgerEnv(gym.Env):
    """One account on a tape, as backtests need it: the action is the target of a single asset."""

    def __init__(self, tape, ruin_after=None):
        self.tape, self.ruin_after = tape, ruin_after

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.wealth, self.held = 0, np.full(1, 100.0), np.zeros((1, 1))
        return np.zeros(2), {"date": self.tape.dates[0], "wealth": 100.0}

    def step(self, action):
        target = np.array([[float(action)]])
        step = ledger.step(self.wealth, self.held, target, self.tape.gross[self.t + 1], CostConfig(), FinancingConfig())
        self.t, self.wealth, self.held = self.t + 1, step.wealth, step.weights
        named = {name: float(getattr(step, name)[0]) for name in ("turnover", "cost", "financing", "wealth", "borrow_fee")}
        info = named | {"weights": target[0], "date": self.tape.dates[self.t]}
        return np.full(2, self.t), 0.0, self.t == self.ruin_after, self.t == len(self.tape) - 1, info


class CountingPolicy:
    """Holds everything on even bars and nothing on odd ones; its state is the number of bars it has seen."""

    def initial_state(self, batch):
        return np.zeros(batch, int)

    def act(self, obs, state, deterministic):
        assert obs.shape == (1, 2)
        assert obs[0, 0] == state[0]  # the observation of bar t meets the state of bar t
        entropy = np.full(1, 0.0 if deterministic else 0.5)
        return 1 - state % 2, state + 1, {"entropy": entropy}


def test_a_policy_walks_the_whole_period_in_order_and_carries_its_state():
    tape = random_tape(rows=30, assets=1)
    track = run_policy("counting", LedgerEnv(tape), CountingPolicy())
    targets = np.arange(1, 31)[:, None] % 2
    known = run_targets("known", targets, tape, CostConfig(), FinancingConfig(), CapsConfig())
    for name in ("dates", "wealth", "weights", "turnover", "cost", "financing"):
        assert_allclose(getattr(track, name).astype(float), getattr(known, name).astype(float), rtol=1e-12, err_msg=name)
    assert track.actions.dtype.kind == "i"
    assert track.symbols == ("A",)
    assert not track.ruined


def test_entropy_is_kept_where_the_policy_tells_it():
    env = LedgerEnv(random_tape(rows=5, assets=1))
    assert_allclose(run_policy("sampled", env, CountingPolicy(), deterministic=False).entropy, 0.5)


def test_termination_ends_the_track_and_marks_it_ruined():
    track = run_policy("ruined", LedgerEnv(random_tape(rows=30, assets=1), ruin_after=3), CountingPolicy())
    assert len(track) == 3
    assert track.ruined


class BareEnv(gym.Env):
    """One bar of nothing, on no tape."""

    def reset(self, *, seed=None, options=None):
        return np.zeros(2), {"date": dates(2)[0], "wealth": 1.0}

    def step(self, action):
        figures = dict.fromkeys(("turnover", "cost", "financing"), 0.0)
        return np.ones(2), 0.0, False, True, figures | {"wealth": 1.0, "weights": np.zeros(1), "date": dates(2)[1]}


def test_an_environment_without_a_tape_needs_symbols():
    with pytest.raises(ConfigError, match=r"BareEnv has no tape to name its assets by\. Pass symbols="):
        run_policy("bare", BareEnv(), CountingPolicy())
    assert run_policy("bare", BareEnv(), CountingPolicy(), symbols=["X"]).symbols == ("X",)


class ConstantPolicy:
    """One discrete action for ever."""

    def __init__(self, action):
        self.action = action

    def initial_state(self, batch):
        return None

    def act(self, obs, state, deterministic):
        return np.full(len(obs), self.action), state, {}


def test_with_room_for_a_quarter_everything_is_bought_in_four_closes(free):
    tape = MarketTape(dates=dates(6), symbols=("A",), gross=np.ones((6, 1)))
    track = run_targets("A", np.ones((6, 1)), tape, **free, room=np.full((6, 1), 0.25))
    assert_allclose(track.weights[:, 0], [0.25, 0.5, 0.75, 1.0, 1.0])
    doubled = run_targets("A", np.ones((6, 1)), replace(tape, gross=np.full((6, 1), 2.0)), **free, room=np.full((6, 1), 0.25))
    assert_allclose(doubled.weights[1, 0], 0.4 + 0.25 / 1.25)  # drifted from a quarter, and worth 1.25: less room of its wealth


def test_known_targets_in_a_thin_market_are_traded_as_the_environment_trades_them():
    rng = np.random.default_rng(3)
    tape = replace(random_tape(rows=320, assets=3), dollar_volume=rng.uniform(50, 500, (320, 3)))
    liquidity = LiquidityConfig(capital=2_000.0, participation=0.2, adv_bars=5)
    config = RegimeConfig(
        costs=CostConfig(proportional_bps=20),
        constraints=ConstraintsConfig(liquidity=liquidity),
        episode=EpisodeConfig(length_bars=None, random_start=False),
    )
    env = TradingEnv(RegimeTask(config, tape), (260, 319))
    policy = run_policy("policy", env, ConstantPolicy(ACTIONS.index("EQUAL_WEIGHT")))
    targets, terms = np.full((60, 3), 0.25), (config.costs, config.financing, config.caps)
    inside, room = tape.rows(260, 319), trading_room(tape, liquidity, 260, 319)
    known = run_targets("known", targets, inside, *terms, room)
    assert_allclose(known.wealth, policy.wealth, rtol=1e-9)
    assert_allclose(known.weights, policy.weights, atol=1e-9)
    assert known.weights[0].sum() < 0.2 < run_targets("free", targets, inside, *terms).weights[0].sum()


def test_a_small_account_notices_no_liquidity_limit():
    tape = replace(random_tape(rows=90), dollar_volume=np.full((90, 4), 1e9))
    terms = CostConfig(), FinancingConfig()
    rules = BaselineConfig(momentum_bars=20, volatility_bars=20, kelly_bars=20, fit_bars=20)
    free_to_trade = judge_baselines(tape, None, None, *terms, config=rules)
    within = judge_baselines(tape, None, None, *terms, config=rules, liquidity=LiquidityConfig(capital=1_000.0))
    for one, other in zip(free_to_trade, within, strict=True):
        assert_allclose(other.wealth, one.wealth, rtol=1e-9, err_msg=one.name)


def test_a_regime_chosen_for_ever_in_its_environment_is_its_baseline():
    tape, costs = random_tape(rows=320, assets=3), CostConfig(proportional_bps=20)
    config = RegimeConfig(costs=costs, episode=EpisodeConfig(length_bars=None, random_start=False))
    env = TradingEnv(RegimeTask(config, tape), (260, 319))
    policy = run_policy("policy", env, ConstantPolicy(ACTIONS.index("BALANCED")))
    targets = np.tile(REGIMES["BALANCED"][1:], (60, 1))
    baseline = run_targets("baseline", targets, tape.rows(260, 319), costs, config.financing, config.caps)
    assert_allclose(policy.wealth, baseline.wealth, rtol=1e-12)
    assert_allclose(policy.turnover, baseline.turnover, atol=1e-12)
    assert (policy.dates == baseline.dates).all()
    assert policy.symbols == tape.symbols
