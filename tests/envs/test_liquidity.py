"""Liquidity: the room for a trade by hand, which limit yields to which, then laws for all weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from envs import make, make_vec
from envs.backend import Backend
from envs.constraints import Constraints, ConstraintsConfig, FactorBound, GroupCap
from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.guards import LossShutdownConfig
from envs.ledger import project
from envs.liquidity import Liquidity, LiquidityConfig
from envs.portfolio import PortfolioConfig
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from envs.trading_config import EpisodeConfig
from tests.envs.markets import random_tape, tape_of

LONG = CapsConfig(long_only=True)
SIGNED = CapsConfig(long_only=False, gross=1.5, net=0.5)
FREE = ConstraintsConfig()
LIMITS = ConstraintsConfig(
    per_asset={"A": 0.3},
    groups={"ab": GroupCap(symbols=("A", "B"), gross=0.5), "bc": GroupCap(symbols=("B", "C"), gross=0.7)},
    factors={"value": FactorBound(loadings={"A": -1.0, "C": 1.0}, most=0.2)},
)
TENTH = LiquidityConfig(capital=100.0, participation=0.1, adv_bars=2)


def traded(wanted, held, room, config=FREE, caps=LONG, backend=None) -> np.ndarray:
    layer = Constraints(config, caps, "ABCD"[: len(held)], backend or Backend())
    return layer.apply(np.array([wanted]), np.array([held]), None, np.array([room]))[0]


def with_volume(*columns: list[float]) -> MarketTape:
    return replace(tape_of(*[[1.0] * len(column) for column in columns]), dollar_volume=np.array(columns, dtype=float).T)


# --- by hand ---------------------------------------------------------------------------------------------------------------


def test_the_room_is_a_tenth_of_the_trailing_average_over_what_the_account_is_worth():
    liquidity = Liquidity(TENTH, with_volume([100, 200, 300], [0, 0, 50]), Backend())
    room = liquidity.room(np.array([0, 1, 2, 2]), np.array([1.0, 1.0, 1.0, 2.0]))
    assert_allclose(room, [[0.1, 0.0], [0.15, 0.0], [0.25, 0.025], [0.125, 0.0125]])


def test_the_average_of_a_tape_in_segments_does_not_look_back_into_another_history():
    tape = replace(with_volume([100, 200, 300, 500]), segment=np.array([0, 0, 1, 1]))
    assert_allclose(Liquidity(TENTH, tape, Backend()).room(np.arange(4), np.ones(4))[:, 0], [0.1, 0.15, 0.3, 0.4])


def test_each_asset_is_traded_as_far_as_it_has_room():
    assert_allclose(traded([0.5, 0.5], held=[0.0, 0.0], room=[0.1, 0.3]), [0.1, 0.3])
    assert_allclose(traded([0.2, 0.8], held=[0.3, 0.7], room=[0.1, 0.1]), [0.2, 0.8])  # both fit
    assert_allclose(traded([0.0, 0.5], held=[0.2, 0.2], room=[0.0, 0.1]), [0.2, 0.3])  # A is not traded at all today


def test_a_full_account_buys_no_more_than_it_could_sell():
    assert_allclose(traded([0.9, 0.1], held=[0.5, 0.5], room=[0.4, 0.05]), [0.55, 0.45])


def test_a_full_group_holds_up_its_own_members_only():
    config = ConstraintsConfig(groups={"ab": GroupCap(symbols=("A", "B"), gross=0.4)})
    # A can be sold slowly, so B grows slowly; C is bought at once.
    assert_allclose(traded([0.0, 0.4, 0.6], [0.4, 0.0, 0.0], [0.1, 0.4, 0.6], config), [0.3, 0.1, 0.6])


def test_a_hedge_that_cannot_be_sold_holds_up_the_leg_it_hedges_and_nothing_else():
    config = ConstraintsConfig(factors={"beta": FactorBound(loadings={"A": 1.0, "B": -1.0}, most=0.1)})
    assert_allclose(traded([0.0] * 3, [0.4, 0.3, 0.3], [0.0, 0.3, 0.3], config), [0.4, 0.3, 0.0], atol=1e-9)


def test_liquidity_comes_before_a_cap_which_is_met_as_fast_as_the_market_takes_it():
    capped = ConstraintsConfig(per_asset={"A": 0.2})
    held = [0.5, 0.2]
    for after in (0.4, 0.3, 0.2, 0.2):
        held = traded([0.3, 0.4], held=held, room=[0.1, 0.2], config=capped)
        assert_allclose(held, [after, 0.4])  # and B is traded meanwhile


def test_an_account_over_its_gross_cap_buys_nothing_until_it_is_back():
    levered = CapsConfig(gross=1.0, net=1.0, per_asset=1.0)
    # 1.1 is held. A goes as far as it can; that is not enough, so C is not bought although it is asked for.
    assert_allclose(traded([0.2, 0.5, 0.3], [0.6, 0.5, 0.0], [0.05, 0.0, 0.3], caps=levered), [0.55, 0.5, 0.0], atol=1e-9)


def test_the_turnover_budget_counts_what_liquidity_lets_through():
    budget = ConstraintsConfig(turnover=0.2)
    # The market takes 0.1 and 0.3; half of that fits the budget.
    assert_allclose(traded([0.5, 0.5], held=[0.0, 0.0], room=[0.1, 0.3], config=budget), [0.05, 0.15])


def test_a_guard_closes_a_side_no_faster_than_the_market_takes_it():
    tape = tape_of([1.0, 1.0, 0.9, *[1.0] * 7])
    tape = replace(tape, dollar_volume=np.full((10, 1), 20.0))  # 2 a bar of an account of 100
    constraints = ConstraintsConfig(liquidity=replace(TENTH, adv_bars=1, capital=10.0))
    shutdown = LossShutdownConfig(loss_limit=0.01, cooldown_bars=9)
    free = {"costs": CostConfig(proportional_bps=0), "financing": FinancingConfig(rate_annual=0.0)}
    config = PortfolioConfig(
        caps=SIGNED, shutdown=shutdown, constraints=constraints, episode=EpisodeConfig(length_bars=9), **free
    )
    accounts, held = make(config, tape).accounts, []
    for _ in range(8):
        held.append(float(accounts.advance(np.array([[0.5]])).step.target[0, 0]))
    # 0.2 of wealth a bar in; 4 % lost at 0.4, shut; then 2 of what 9.6 are worth a bar out.
    assert_allclose(held[:2], [0.2, 0.4])
    drifted, step = 0.4 * 0.9 / 0.96, 2 / 9.6
    assert_allclose(held[2:5], [drifted - step, 0.0, 0.0], atol=1e-12)


# --- laws ------------------------------------------------------------------------------------------------------------------


def exposures(w, caps) -> dict[str, float]:
    """How far each limit is exceeded."""
    return {
        "A": abs(w[0]) - 0.3,
        "ab": abs(w[:2]).sum() - 0.5,
        "bc": abs(w[1:3]).sum() - 0.7,
        "value": abs(w[2] - w[0]) - 0.2,
        "gross": abs(w).sum() - caps.gross,
        "net": abs(w.sum()) - caps.net,
        "short": -w.min() if caps.long_only else 0.0,
        "largest": abs(w).max() - caps.per_asset,
    }


weights = arrays(np.float64, 4, elements=st.floats(-2, 2))
rooms = arrays(np.float64, 4, elements=st.floats(0, 0.4))


@settings(max_examples=100, deadline=None)
@given(weights, weights, rooms, st.sampled_from([LONG, SIGNED]), st.sampled_from([None, 0.3]), st.booleans())
def test_no_trade_exceeds_its_room_and_none_carries_the_account_further_out_of_a_limit(asked, held, room, caps, turnover, kept):
    config = replace(LIMITS, turnover=turnover)
    layer = Constraints(config, caps, "ABCD", Backend())
    held = project(held, CapsConfig(long_only=caps.long_only, gross=100, net=100, per_asset=100))
    held = layer.feasible(held[None])[0] if kept else held  # or drift has carried it out of its limits
    target = layer.apply(asked[None], held[None], None, room[None])[0]
    assert (abs(target - held) <= room + 1e-9).all()
    before, after = exposures(held, caps), exposures(target, caps)
    for name, excess in after.items():
        assert excess <= max(before[name], 0.0) + 1e-8, name
    if kept:
        if turnover is not None:
            assert abs(target - held).sum() <= turnover + 1e-9
        again = layer.apply(target[None], held[None], None, room[None])[0]
        assert_allclose(again, target, atol=1e-8)  # idempotent
        whole = layer.apply(asked[None], held[None], None, np.full((1, 4), 9.0))
        assert_allclose(whole, layer.apply(asked[None], held[None]), atol=1e-12)  # room for all: as without the limit


@pytest.mark.parametrize("caps", [LONG, SIGNED], ids=["long", "signed"])
def test_torch_says_the_same_and_has_finite_gradients(caps):
    rng = np.random.default_rng(0)
    asked, held = rng.normal(0, 0.5, (2, 64, 4))
    held = Constraints(LIMITS, caps, "ABCD", Backend()).feasible(held)
    room = rng.uniform(0, 0.3, (64, 4)) * rng.integers(0, 2, (64, 4))
    held[:4], asked[:2] = 0.0, 0.0
    config = replace(LIMITS, turnover=0.4)
    expected = Constraints(config, caps, "ABCD", Backend()).apply(asked, held, None, room)
    given = [torch.tensor(x, requires_grad=True) for x in (asked, held, room)]
    found = Constraints(config, caps, "ABCD", Backend("torch")).apply(given[0], given[1], None, given[2])
    assert_allclose(found.detach(), expected, atol=1e-7)  # what the tolerance at a limit makes of rounding
    (found * torch.tensor(rng.normal(size=(64, 4)))).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in given)
    assert all(abs(x.grad).sum() > 0 for x in given)
    single = Constraints(config, caps, "ABCD", Backend("torch", "float32"))
    found = single.apply(*(torch.tensor(x).float() for x in (asked, held)), None, torch.tensor(room).float())
    assert (abs(found.double().numpy() - held) <= room + 1e-6).all()
    assert max(max(exposures(row, caps).values()) for row in found.double().numpy()) <= 1e-6


def test_its_gradient_is_that_of_finite_differences():
    layer = Constraints(LIMITS, LONG, "ABCD", Backend("torch"))
    held = torch.tensor([[0.2, 0.3, 0.3, 0.1]], dtype=torch.float64)
    asked = torch.tensor([[0.05, 0.2, 0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    room = torch.tensor([[0.3, 0.05, 0.2, 0.06]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, r: layer.apply(w, held, None, r), (asked, room))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_no_account_of_a_batch_trades_more_than_its_share_as_it_grows(library):
    liquidity = LiquidityConfig(capital=1e6, participation=0.05, adv_bars=5)
    config = PortfolioConfig(
        caps=SIGNED, constraints=ConstraintsConfig(liquidity=liquidity), episode=EpisodeConfig(length_bars=40)
    )
    tape = random_tape(3, 4, volatility=0.1)
    accounts = make_vec(config, tape, 8, backend=Backend(library, "float64")).accounts
    rng, binding = np.random.default_rng(1), 0
    for _ in range(40):
        held, wealth, row = (np.array(x) for x in (accounts.weights, accounts.wealth, accounts.row))
        target = np.array(accounts.advance(accounts.backend.real(rng.uniform(-1, 1, (8, 4)))).step.target)
        average = np.array([tape.dollar_volume[max(0, t - 4) : t + 1].mean(0) for t in row])
        money = abs(target - held) * wealth[:, None] * 1e6
        assert (money <= 0.05 * average * (1 + 1e-9)).all()
        binding += int((money > 0.05 * average * 0.999).sum())
    assert binding > 100
    assert wealth.max() > 1.1


# --- what the tape must know -------------------------------------------------------------------------------------------------


def test_volumes_do_not_change_the_hash_of_a_tape_without_them_and_change_that_of_one_with_them():
    tape = tape_of([1.0, 1.1, 0.9])
    assert tape.dollar_volume is None
    traded = replace(tape, dollar_volume=np.ones((3, 1)))
    assert traded.sha256 != tape.sha256 != replace(traded, dollar_volume=np.full((3, 1), 2.0)).sha256 != traded.sha256
    assert replace(traded, dollar_volume=None).sha256 == tape.sha256
    assert_array_equal(traded.rows(0, 1).dollar_volume, [[1.0], [1.0]])
    assert tape.rows(0, 1).dollar_volume is None


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: LiquidityConfig(capital=0), ConfigError, "constraints.liquidity.capital = 0; expected what an account"),
        (lambda: replace(TENTH, participation=10), ConfigError, r"liquidity.participation = 10; expected a share .* \(0, 1\]"),
        (lambda: replace(TENTH, adv_bars=0), ConfigError, "liquidity.adv_bars = 0; expected at least 1"),
        (
            lambda: make(PortfolioConfig(constraints=ConstraintsConfig(liquidity=TENTH)), tape_of([1.0] * 9)),
            MarketDataError,
            "env.constraints.liquidity needs the value traded in each bar, and these prices have no volume for A. Use prices",
        ),
        (lambda: with_volume([1, -1, 1]), MarketDataError, r"dollar_volume\[2020-01-02, 'A'\] is -1.0; expected ≥ 0"),
        (lambda: with_volume([1, np.nan, 1]), MarketDataError, "dollar_volume is not finite at 2020-01-02"),
        (lambda: replace(tape_of([1.0] * 3), dollar_volume=np.ones(3)), ShapeError, r"dollar_volume has shape \(3,\)"),
    ],
)
def test_mistakes_are_named(made, error, message):
    with pytest.raises(error, match=message):
        made()
