"""Each guard by hand, then the law that they only ever lower risk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs import make, make_vec
from envs.backend import Backend
from envs.errors import ConfigError
from envs.guard_consensus import ConsensusGate, ConsensusGateConfig
from envs.guard_kill_switch import KillSwitch, KillSwitchConfig
from envs.guard_regime import RegimeGuard, RegimeGuardConfig, Situation
from envs.guards import LossShutdown, LossShutdownConfig
from envs.ledger import LedgerStep, project
from envs.pair_leverage import PairLeverageConfig
from envs.terms import CapsConfig, CostConfig
from envs.trading_config import EpisodeConfig
from tests.envs.markets import CASES, random_actions, random_tape, tape_of

LIBRARIES = pytest.mark.parametrize("library", ["numpy", "torch"])


def shutdown(library="numpy", accounts=1, loss_limit=0.05, cooldown_bars=2):
    backend = Backend(library)
    return LossShutdown(LossShutdownConfig(loss_limit=loss_limit, cooldown_bars=cooldown_bars), accounts, backend), backend.real


@LIBRARIES
def test_longs_that_lose_six_percent_are_closed_for_two_decisions_and_shorts_stay(library):
    guard, real = shutdown(library)
    book = real([[1.0, -0.5]])
    guard.observe(book, real([[0.94, 1.0]]))
    assert_array_equal(guard.restrain(book), [[0.0, -0.5]])
    guard.observe(guard.restrain(book), real([[1.0, 1.0]]))
    assert_array_equal(guard.restrain(book), [[0.0, -0.5]])
    guard.observe(guard.restrain(book), real([[1.0, 1.0]]))
    assert_array_equal(guard.restrain(book), book)


@LIBRARIES
def test_shorts_that_lose_are_closed_and_longs_stay(library):
    guard, real = shutdown(library)
    guard.observe(real([[1.0, -0.5]]), real([[1.0, 1.2]]))
    assert_array_equal(guard.restrain(real([[1.0, -0.5]])), [[1.0, 0.0]])


@LIBRARIES
def test_losses_add_up_over_bars_and_profits_pay_them_back(library):
    guard, real = shutdown(library)
    for gross, loss in ((0.97, 0.03), (1.02, 0.01), (1.05, 0.0), (0.96, 0.04)):
        guard.observe(real([[1.0]]), real([[gross]]))
        assert_allclose(guard.loss[0], [loss], atol=1e-15)
    assert_array_equal(guard.restrain(real([[1.0]])), [[1.0]])
    guard.observe(real([[1.0]]), real([[0.98]]))
    assert_array_equal(guard.restrain(real([[1.0]])), [[0.0]])
    assert_array_equal(guard.loss[0], [0.0])  # a fresh start after the cooldown


@LIBRARIES
def test_accounts_are_apart_and_reset_one_by_one(library):
    guard, real = shutdown(library, accounts=3)
    guard.observe(real([[1.0]] * 3), real([[0.9], [0.9], [1.0]]))
    guard.reset(guard.backend.array([True, False, False], "bool"))
    assert_array_equal(guard.restrain(real([[1.0]] * 3)), [[1.0], [0.0], [1.0]])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_it_only_ever_sets_weights_to_zero(seed):
    rng = np.random.default_rng(seed)
    guard, _ = shutdown(accounts=4, cooldown_bars=3)
    for _ in range(20):
        asked = rng.normal(0, 1, (4, 3))
        kept = guard.restrain(asked)
        assert ((kept == asked) | (kept == 0)).all()
        guard.observe(kept, np.exp(rng.normal(0, 0.05, (4, 3))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_limit": 5}, r"shutdown.loss_limit = 5; expected a fraction of wealth in \(0, 1\)"),
        ({"cooldown_bars": 0}, "shutdown.cooldown_bars = 0; expected at least 1 bar"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LossShutdownConfig(**settings)


# ── the guards of one account ────────────────────────────────────────────────────────────────────────────────────────


def now(backend, wealth=1.0, peak=1.0, held=((0.0, 0.0),), row=0):
    return Situation(
        backend.array([wealth], "float64"), backend.array([peak], "float64"), backend.real(held), backend.array([row], "int64")
    )


def step_of(real, turnover=0.0, cost=0.0, target=((0.0, 0.0),)):
    zero = real([0.0])
    return LedgerStep(real([1.0]), real(target), real(target), real([cost]), real([turnover]), zero, zero, zero, zero)


@LIBRARIES
def test_a_fall_of_three_point_six_percent_scales_every_weight_to_sixty_percent(library):
    backend = Backend(library)
    guard = RegimeGuard(RegimeGuardConfig(), 1, backend)
    asked = backend.real([[0.5, -0.5]])
    assert_array_equal(guard.restrain(asked, now(backend, 0.965)), asked)
    assert_allclose(guard.restrain(asked, now(backend, 0.964)), [[0.3, -0.3]])


@LIBRARIES
def test_after_a_turnover_above_the_limit_positions_grow_by_the_probe_weight_and_shrink_freely(library):
    backend = Backend(library)
    guard = RegimeGuard(RegimeGuardConfig(), 1, backend)
    held = [[0.3, 0.4]]
    guard.observe(None, step_of(backend.real, turnover=0.55), None)
    assert_allclose(guard.restrain(backend.real([[0.9, -0.1]]), now(backend, held=held)), [[0.9, -0.1]])
    guard.observe(None, step_of(backend.real, turnover=0.56), None)
    assert_allclose(guard.restrain(backend.real([[0.9, 0.1]]), now(backend, held=held)), [[0.302, 0.1]])
    assert_allclose(guard.restrain(backend.real([[0.9, -0.1]]), now(backend, held=held)), [[0.302, -0.002]])


@LIBRARIES
def test_turnover_costs_reward_only_while_the_trailing_return_is_three_percent_down(library):
    backend = Backend(library)
    guard = RegimeGuard(RegimeGuardConfig(trailing_bars=2), 1, backend)
    found = []
    for row, wealth in enumerate((1.0, 0.98, 0.97, 0.96, 0.95)):
        guard.restrain(backend.real([[1.0, 0.0]]), now(backend, wealth, row=row))
        found.append(float(guard.penalty(backend.real([2.0]))[0]))
    # Two bars back: 1 and 1 from before the episode, then 1.0 → 0.97, 0.98 → 0.96 (−2.04 %), 0.97 → 0.95 (−2.06 %).
    assert_allclose(found, [0.0, 0.0, 0.015, 0.0, 0.0])


@LIBRARIES
def test_the_kill_switch_opens_at_fifteen_percent_and_closes_two_calm_bars_after_coming_back_to_ten(library):
    backend = Backend(library)
    switch = KillSwitch(KillSwitchConfig(calm_bars=2), random_tape(0, 2), 1, backend)
    asked, kept = backend.real([[1.0, 0.0]]), []
    for gross in (0.86, 0.98, 1.05, 1.02, 1.0, 1.0):  # unguarded depth: 0.86, 0.8428, 0.885, 0.9026, 0.9026, 0.9026
        switch.observe(asked, None, backend.real([[gross, 1.0]]))
        kept.append(float(switch.restrain(asked, now(backend))[0, 0]))
    assert kept == [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]


@LIBRARIES
def test_a_new_episode_finds_the_kill_switch_closed_and_its_neighbour_does_not(library):
    backend = Backend(library)
    switch = KillSwitch(KillSwitchConfig(), random_tape(0, 1), 2, backend)
    asked = backend.real([[1.0], [1.0]])
    switch.observe(asked, None, backend.real([[0.8], [0.8]]))
    for kept in ([[0.0], [0.0]], [[1.0], [0.0]]):
        assert_array_equal(switch.restrain(asked, now(backend)), kept)
        switch.reset(backend.array([True, False], "bool"))


@LIBRARIES
def test_a_stress_tag_unwinds_at_its_own_close(library):
    backend = Backend(library)
    tape = replace(random_tape(0, 2), context=np.array([[0.0], [1.0], [0.0], [0.0]] * 15), context_names=("regime_crisis",))
    switch = KillSwitch(KillSwitchConfig(stress_column="regime_crisis", calm_bars=2), tape, 1, backend)
    kept = [float(switch.restrain(backend.real([[1.0, 0.0]]), now(backend, row=row))[0, 0]) for row in range(4)]
    assert kept == [1.0, 0.0, 0.0, 1.0]


def gate(consensus, skew=0.0, **settings):
    names = ("forecast_consensus", "forecast_skew")
    features = np.stack([np.full((60, 2), consensus), np.full((60, 2), skew)], axis=-1)
    tape = replace(random_tape(0, 2), features=features, feature_names=names, half_spread_bps=np.zeros((60, 2)))
    return ConsensusGate(ConsensusGateConfig(**settings), tape, 5.0, 1, Backend())


@pytest.mark.parametrize(
    ("consensus", "skew", "asked", "kept"),
    [
        (0.16, 0.0, 0.8, 0.8),  # threshold 0.1 + 0.01 × 5 bp = 0.15
        (0.14, 0.0, 0.8, 0.3),  # held back at what is held
        (0.14, 0.2, 0.8, 0.8),  # skew in favour: 0.15 − 0.1 × 0.2 = 0.13
        (0.16, -0.2, 0.8, 0.3),
        (-0.9, 0.0, 0.2, 0.2),  # selling is always free
        (-0.16, 0.0, -0.5, -0.5),
        (0.16, 0.0, -0.5, 0.0),  # forecasts say up: no short
    ],
)
def test_positions_grow_only_where_agreement_reaches_the_threshold(consensus, skew, asked, kept):
    found = gate(consensus, skew).restrain(np.array([[asked, 0.0]]), now(Backend(), held=[[0.3, 0.0]]))
    assert_allclose(found, [[kept, 0.0]], atol=1e-15)


def test_dear_trades_and_a_poor_record_raise_the_threshold():
    guard = gate(0.16, memory_bars=2)
    held = np.array([[1.0, 0.0]])
    guard.observe(held, step_of(np.array, turnover=0.5, cost=0.0010, target=held), np.array([[0.9, 1.0]]))
    assert_allclose([guard.cost_bps, guard.hit_rate], [[12.5], [0.25]])  # half way from 5 to 20 bp and from ½ to 0
    assert_allclose(guard.restrain(held, now(Backend())), [[0.0, 0.0]])


def test_a_tape_without_forecasts_leaves_the_gate_open():
    guard = ConsensusGate(ConsensusGateConfig(), random_tape(0, 2), 5.0, 1, Backend())
    asked = np.array([[1.0, -1.0]])
    assert_array_equal(guard.restrain(asked, now(Backend())), asked)
    assert not guard.hits["consensus"].any()


def test_a_stress_column_that_the_tape_lacks_is_named():
    with pytest.raises(ConfigError, match=r"stress_column = 'storm' is not in the tape's context; it has vix"):
        KillSwitch(KillSwitchConfig(stress_column="storm"), random_tape(0, 2), 1, Backend())


# ── the law ──────────────────────────────────────────────────────────────────────────────────────────────────────────

GUARDED = [case for case in CASES if "guarded" in case]


@pytest.mark.parametrize("case", GUARDED)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), volatility=st.sampled_from([0.005, 0.03, 0.15]))
def test_no_guarded_weight_is_ever_larger_than_the_feasible_weight_asked_for(case, seed, volatility):
    config, assets = CASES[case]
    vec = make_vec(config, random_tape(seed, assets, volatility=volatility), 4, backend=Backend("numpy", "float64"))
    vec.reset(seed=seed)
    for actions in random_actions(vec.single_action_space, 20, 4, seed):
        asked = project(vec.task.target_weights(actions, vec.accounts), config.caps)
        kept = vec.accounts._restrained(asked, None)
        assert (abs(kept) <= abs(asked) + 1e-15).all()
        assert (kept * asked >= 0).all()
        vec.step(actions)


def test_closing_one_side_makes_no_room_for_the_other():
    """Guards come after the gross cap: 2 and −2 become 1 and −1 before the shorts are closed."""
    caps = CapsConfig(long_only=False, gross=2.0, net=2.0, per_asset=2.0)
    config = PairLeverageConfig(caps=caps, shutdown=LossShutdownConfig(), costs=CostConfig(proportional_bps=0))
    config = replace(config, episode=EpisodeConfig(length_bars=None, random_start=False))
    env = make(config, tape_of([1.0] * 4, [1.0, 1.2, 1.0, 1.0]))
    env.reset(seed=0)
    assert_allclose(env.step(np.array([1.0, -1.0]))[-1]["weights"], [1.0, -1.0])  # the short loses 20 %
    assert_allclose(env.step(np.array([1.0, -1.0]))[-1]["weights"], [1.0, 0.0])


@pytest.mark.parametrize("case", GUARDED)
def test_the_episode_says_how_often_each_guard_held_and_what_it_left(case):
    config, assets = CASES[case]
    config = replace(config, episode=EpisodeConfig(length_bars=50, wealth_floor=0.0))
    env = make(config, random_tape(1, assets, volatility=0.05))
    env.reset(seed=0)
    bars = []
    for action in random_actions(env.action_space, 50, 1, 0)[:, 0]:
        *_, info = env.step(action)
        bars.append({name: float(value[0]) for name, value in env.accounts.guards.last.items()})
    rates = ("drawdown", "trailing", "turnover", "kill_switch", "consensus")
    for name in (*(f"guard_{rate}_rate" for rate in rates), "guard_scale"):
        assert_allclose(info["episode"][name], np.mean([bar[name] for bar in bars]), atol=1e-12)
        assert info["episode"][name] > 0, name
    assert info["episode"]["guard_scale"] < 1
    assert_allclose(info["episode"]["guard_penalty"], sum(bar["guard_penalty"] for bar in bars))
    assert_allclose(info["episode"]["guard_turnover"], -config.reward.scale * info["episode"]["guard_penalty"])


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (RegimeGuardConfig, {"drawdown_scale": 1.5}, "drawdown_scale = 1.5; a guard lowers risk: expected 0 … 1"),
        (RegimeGuardConfig, {"drawdown_limit": 3.6}, "drawdown_limit = 3.6; expected a fraction"),
        (RegimeGuardConfig, {"trailing_return_limit": 0.03}, r"expected a loss in \(−1, 0\)"),
        (RegimeGuardConfig, {"turnover_penalty": -1}, "turnover_penalty = -1; expected a finite number ≥ 0"),
        (RegimeGuardConfig, {"trailing_bars": 0}, "trailing_bars = 0; expected at least 1 bar"),
        (KillSwitchConfig, {"recovered": 0.2}, "recovered = 0.2, drawdown = 0.15; expected"),
        (KillSwitchConfig, {"stress_off": 0.7}, "stress_off = 0.7 is above stress_on"),
        (KillSwitchConfig, {"calm_bars": 0}, "calm_bars = 0"),
        (ConsensusGateConfig, {"threshold": -1}, "threshold = -1; expected a finite number"),
        (ConsensusGateConfig, {"memory_bars": 0}, "memory_bars = 0"),
    ],
)
def test_bad_settings_of_each_guard_are_refused(cls, settings, message):
    with pytest.raises(ConfigError, match=message):
        cls(**settings)
