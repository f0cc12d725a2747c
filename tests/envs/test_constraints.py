"""Constraints: each limit by hand, then never violated, idempotent, the identity inside, for all weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from envs import make
from envs.account_path import account_path
from envs.accounts import Accounts
from envs.backend import Backend
from envs.catalog import make_task
from envs.constraints import Constraints, ConstraintsConfig, FactorBound, GroupCap
from envs.errors import ConfigError
from envs.guards import LossShutdownConfig
from envs.portfolio import PortfolioConfig
from envs.terms import CapsConfig
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_tape

SYMBOLS = ("A", "B", "C", "D")
LONG = CapsConfig(long_only=True)
SIGNED = CapsConfig(long_only=False, gross=1.5, net=0.5)
EVERYTHING = ConstraintsConfig(
    per_asset={"A": 0.2, "D": 0.0},
    groups={"ab": GroupCap(symbols=("A", "B"), gross=0.4), "bc": GroupCap(symbols=("B", "C"), gross=0.7)},
    factors={
        "beta": FactorBound(loadings={"A": 1.2, "B": 0.8, "C": 1.0, "D": 0.3}, most=0.5),
        "value": FactorBound(loadings={"A": -1.0, "C": 1.0}, most=0.1),
    },
    turnover=0.3,
)
FREE = replace(EVERYTHING, turnover=None)


def layer(config, caps=LONG, backend=None) -> Constraints:
    return Constraints(config, caps, SYMBOLS, backend or Backend())


def apply(config, weights, held=(0.0, 0.0, 0.0, 0.0), caps=LONG) -> np.ndarray:
    return layer(config, caps).apply(np.array([weights]), np.array([held]))[0]


# --- each by hand ----------------------------------------------------------------------------------------------------------


def test_an_asset_is_clipped_at_its_own_cap_and_0_forbids_it():
    config = ConstraintsConfig(per_asset={"A": 0.2, "D": 0.0})
    assert_allclose(apply(config, [0.5, 0.3, 0.1, 0.1]), [0.2, 0.3, 0.1, 0.0])


def test_a_group_is_scaled_to_its_cap_and_the_others_stay():
    config = ConstraintsConfig(groups={"ab": GroupCap(symbols=("A", "B"), gross=0.4)})
    assert_allclose(apply(config, [0.6, 0.2, 0.1, 0.1]), [0.3, 0.1, 0.1, 0.1])
    assert_allclose(apply(config, [-0.6, 0.2, 0.1, 0.0], caps=SIGNED), [-0.3, 0.1, 0.1, 0.0])


def test_too_much_of_a_factor_scales_the_whole_account():
    config = ConstraintsConfig(factors={"beta": FactorBound(loadings={"A": 2.0, "B": 1.0}, most=0.5)})
    assert_allclose(apply(config, [0.4, 0.2, 0.4, 0.0]), [0.2, 0.1, 0.2, 0.0])  # exposure 1
    assert_allclose(apply(config, [-0.4, 0.8, 0.1, 0.0], caps=SIGNED), [-0.4, 0.8, 0.1, 0.0])  # hedged: 0


def test_a_turnover_budget_goes_part_of_the_way():
    config = ConstraintsConfig(turnover=0.2)
    # From (0.5, 0.5) to (0.9, 0.1) would take 0.8: a quarter of the way.
    assert_allclose(apply(config, [0.9, 0.1, 0.0, 0.0], held=[0.5, 0.5, 0.0, 0.0]), [0.6, 0.4, 0.0, 0.0])
    assert_allclose(apply(config, [0.6, 0.4, 0.0, 0.0], held=[0.5, 0.5, 0.0, 0.0]), [0.6, 0.4, 0.0, 0.0])  # 0.2 is within it


def test_drift_out_of_a_limit_is_traded_back_first_and_spends_the_budget():
    config = ConstraintsConfig(per_asset={"A": 0.5}, turnover=0.3)
    # Back to 0.5 takes 0.2, the 0.1 that is left moves a quarter of the 0.4 towards (0.3, 0.2).
    assert_allclose(apply(config, [0.3, 0.2, 0.0, 0.0], held=[0.7, 0.0, 0.0, 0.0]), [0.45, 0.05, 0.0, 0.0])
    # More than the budget: the limit comes first, and nothing else is traded.
    assert_allclose(apply(config, [0.1, 0.2, 0.0, 0.0], held=[0.9, 0.05, 0.0, 0.0]), [0.5, 0.05, 0.0, 0.0])


# --- laws ------------------------------------------------------------------------------------------------------------------


def violations(w, caps) -> list[float]:
    exposures = [abs(w @ np.array(row)) for row in ([1.2, 0.8, 1.0, 0.3], [-1.0, 0.0, 1.0, 0.0])]
    return [
        abs(w[0]) - 0.2,
        abs(w[3]) - 0.0,
        abs(w[:2]).sum() - 0.4,
        abs(w[1:3]).sum() - 0.7,
        exposures[0] - 0.5,
        exposures[1] - 0.1,
        abs(w).sum() - caps.gross,
        abs(w.sum()) - caps.net,
        -w.min() if caps.long_only else 0.0,
    ]


weights = arrays(np.float64, 4, elements=st.floats(-3, 3))


@settings(max_examples=60, deadline=None)
@given(weights, weights, st.sampled_from([LONG, SIGNED]))
def test_no_limit_is_ever_violated_and_what_keeps_them_stays(asked, drifted, caps):
    constraints = layer(EVERYTHING, caps)
    held = constraints.feasible(drifted[None])  # an account that keeps its limits
    target = constraints.apply(asked[None], held)
    assert max(violations(target[0], caps)) <= 1e-9
    assert abs(target - held).sum() <= 0.3 + 1e-9
    assert_allclose(constraints.apply(target, held), target, atol=1e-12)  # idempotent
    assert_allclose(constraints.feasible(held), held, atol=1e-12)
    assert_allclose(constraints.apply(held, held), held, atol=1e-12)
    after_drift = constraints.apply(asked[None], drifted[None])
    assert max(violations(after_drift[0], caps)) <= 1e-9
    back = abs(held - drifted).sum()
    assert abs(after_drift - drifted).sum() <= max(0.3, back) + 1e-9


@pytest.mark.parametrize("caps", [LONG, SIGNED], ids=["long", "signed"])
def test_torch_says_the_same_and_has_finite_gradients(caps):
    rng = np.random.default_rng(0)
    asked, held = rng.normal(0, 0.5, (2, 64, 4))
    asked[0] = held[0] = 0.0
    expected = layer(EVERYTHING, caps).apply(asked, held)
    x = torch.tensor(asked, requires_grad=True)
    found = layer(EVERYTHING, caps, Backend("torch", "float64")).apply(x, torch.tensor(held))
    assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    (found * torch.tensor(rng.normal(size=(64, 4)))).sum().backward()
    assert torch.isfinite(x.grad).all()
    single = layer(EVERYTHING, caps, Backend("torch", "float32")).apply(torch.tensor(asked).float(), torch.tensor(held).float())
    assert max(max(violations(row, caps)) for row in single.double().numpy()) <= 1e-6


def test_its_gradient_is_that_of_finite_differences_inside_a_scaled_group():
    torch_layer = layer(FREE, LONG, Backend("torch", "float64"))
    x = torch.tensor([[0.15, 0.6, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: torch_layer.feasible(w)[:, :3], x)


# --- in an account ---------------------------------------------------------------------------------------------------------


def test_every_trade_of_an_account_keeps_the_limits():
    config = PortfolioConfig(caps=SIGNED, episode=EpisodeConfig(length_bars=40), constraints=EVERYTHING)
    env = make(config, random_tape(3, 4))
    env.reset(seed=0)
    rng, moved = np.random.default_rng(1), 0.0
    for _ in range(40):
        held = env.accounts.constraints.feasible(env.accounts.weights)[0]
        back = abs(held - env.accounts.weights[0]).sum()
        step = env.accounts.advance(rng.uniform(-1, 1, (1, 4))).step
        target = step.target[0]
        assert max(violations(target, SIGNED)) <= 1e-9
        assert step.turnover[0] <= max(0.3, back) + step.cost[0] * abs(target).sum() + 1e-9
        moved += abs(target - held).sum()
    assert moved > 1.0


def test_guards_that_close_a_leg_leave_no_factor_unhedged():
    hedged = ConstraintsConfig(factors={"beta": FactorBound(loadings={"A": 1.0, "B": 1.0}, most=0.1)})
    shutdown = LossShutdownConfig(loss_limit=0.01, cooldown_bars=3)
    config = PortfolioConfig(caps=SIGNED, episode=EpisodeConfig(length_bars=40), constraints=hedged, shutdown=shutdown)
    accounts, closed = make(config, random_tape(3, 4)).accounts, 0
    for _ in range(40):
        step = accounts.advance(np.array([[0.5, -0.5, 0.0, 0.0]])).step
        closed += not step.target[:, :2].all()
        assert abs(step.target[0, :2].sum()) <= 0.1 + 1e-9
    assert closed > 0


def test_a_window_in_one_pass_keeps_the_same_limits():
    config = PortfolioConfig(caps=SIGNED, episode=EpisodeConfig(length_bars=20), constraints=FREE)
    backend = Backend("torch", "float64")
    task, _ = make_task(config, random_tape(3, 4))
    actions = torch.tensor(np.random.default_rng(0).uniform(-1, 1, (20, 2, 4)))
    accounts, first = Accounts(task, 2, (5, 45), backend), torch.zeros(20, 2, dtype=torch.bool)
    path = account_path(accounts, actions, torch.arange(5, 25)[:, None].expand(20, 2), first)
    for t in range(20):
        target = accounts.advance(actions[t]).step.target
        assert_allclose(path.step.target.view(20, 2, 4)[t], target, atol=1e-12)
        assert max(max(violations(row, SIGNED)) for row in target.numpy()) <= 1e-9


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: ConstraintsConfig(turnover=-0.1), r"constraints.turnover = -0.1; expected a multiple of wealth in \[0, 100\]"),
        (lambda: ConstraintsConfig(per_asset={"A": 200}), "constraints.per_asset.A = 200"),
        (
            lambda: make(PortfolioConfig(constraints=ConstraintsConfig(per_asset={"TSLA": 0.1})), random_tape(0, 2)),
            r"env.constraints.per_asset names 'TSLA', which is not traded; expected one of A, B",
        ),
    ],
)
def test_mistakes_are_named(made, message):
    with pytest.raises(ConfigError, match=message):
        made()
