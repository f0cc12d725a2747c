"""The ledger: hand numbers, then an independent account in decimals, then laws for all inputs."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from envs import ledger
from envs.errors import ConfigError, ShapeError
from envs.ledger import hold, project, solve_cost, step, trade
from envs.terms import CapsConfig, CostConfig, FinancingConfig

FREE = FinancingConfig(rate_annual=0.0)
NO_COSTS = CostConfig(proportional_bps=0.0)
BOTH = pytest.mark.parametrize("xp", [np, torch], ids=["numpy", "torch"])


def array(xp, values):
    return xp.asarray(np.asarray(values, dtype=np.float64))


def one_bar(target, gross, financing=FREE, xp=np):
    return hold(array(xp, [target]), array(xp, [gross]), financing)


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_buying_half_the_account_pays_5_bps_of_the_trade_from_cash():
    step = trade(wealth=1_000, target=[0.5], costs=CostConfig(proportional_bps=5))
    assert_allclose(step.cost, 0.25, rtol=1e-3)  # ≈ 500 USD × 5 bp
    assert_allclose(step.wealth, 1_000 - step.cost)
    assert_allclose(step.cost, 500 * 5e-4 / (1 + 0.5 * 5e-4), rtol=1e-14)  # κ = c·½(1 − κ) exactly


def test_selling_everything_pays_on_all_that_is_held_and_switching_pays_twice():
    costs = CostConfig(proportional_bps=10)
    assert_allclose(trade(1_000, [0.0], costs, held=[1.0]).cost, 1.0)
    switch = trade(1_000, [0.0, 1.0], costs, held=[1.0, 0.0])
    assert_allclose(switch.cost, 2.0, rtol=2e-3)
    assert_allclose(switch.turnover, 2.0, rtol=2e-3)


def test_the_part_held_already_costs_nothing():
    held = trade(1_000, [0.5, 0.3], CostConfig(proportional_bps=50, impact=0.1), held=[0.5, 0.3])
    assert (held.cost, held.turnover) == (0, 0)


def test_square_root_impact_of_selling_a_quarter_of_a_fourfold_account():
    costs = CostConfig(proportional_bps=0, impact=0.01)
    kappa = solve_cost(np.array([4.0]), np.array([[0.25]]), np.array([[0.0]]), costs)
    assert_allclose(kappa, 0.01 * 2 * 0.125)  # k √4 · (1/4)^1.5


def test_spread_and_impact_scale_of_the_tape_add_to_and_multiply_the_settings():
    one, quarter, none = np.ones(1), np.array([[0.25]]), np.array([[0.0]])
    spread = solve_cost(one, quarter, none, CostConfig(proportional_bps=5), half_spread_bps=np.array([15.0]))
    assert_allclose(spread, 0.25 * 20e-4)
    impact = solve_cost(one, quarter, none, CostConfig(proportional_bps=0, impact=0.01), impact_scale=np.array([3.0]))
    assert_allclose(impact, 0.03 * 0.125)


@BOTH
def test_cost_by_asset_sums_to_the_cost(xp):
    rng = np.random.default_rng(0)
    wealth, held, target = (array(xp, x) for x in (rng.uniform(0.5, 2, 50), *rng.uniform(-0.7, 0.7, (2, 50, 3))))
    costs = CostConfig(proportional_bps=30, impact=0.05)
    kappa = solve_cost(wealth, held, target, costs)
    assert_allclose(ledger.cost_by_asset(wealth, held, target, kappa, costs).sum(-1), kappa, atol=1e-13)


@BOTH
def test_a_trade_that_costs_more_than_the_account_has_takes_all_of_it_and_no_more(xp):
    """Selling half of a tenfold position, k = 1: even liquidation costs 10^1.5 times the wealth."""
    kappa = solve_cost(array(xp, [1.0]), array(xp, [[10.0]]), array(xp, [[5.0]]), CostConfig(proportional_bps=0, impact=1.0))
    assert_array_equal(kappa, [1.0])
    after = step(array(xp, [1.0]), array(xp, [[10.0]]), array(xp, [[5.0]]), array(xp, [[0.1]]), CostConfig(impact=1.0), FREE)
    assert_array_equal(after.wealth, [0.0])  # not the positive product of a negative rest and a negative growth


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), bps=st.floats(0.01, 200), impact=st.floats(0, 0.1), assets=st.integers(1, 8))
@BOTH
def test_the_cost_solves_its_equation(xp, seed, bps, impact, assets):
    rng = np.random.default_rng(seed)
    wealth, scale = rng.uniform(0.1, 4, 16), rng.choice([0.01, 0.2, 1.0])
    held = rng.uniform(-1, 1, (16, assets)) * 2 / assets
    target = np.clip(held + scale * rng.normal(size=held.shape) / assets, -2 / assets, 2 / assets)
    costs = CostConfig(proportional_bps=bps, impact=impact)
    kappa = np.asarray(solve_cost(array(xp, wealth), array(xp, held), array(xp, target), costs))
    d = abs(target * (1 - kappa)[:, None] - held)
    cost = (bps * 1e-4 * d + impact * np.sqrt(wealth)[:, None] * d**1.5).sum(-1)
    assert_allclose(kappa, cost, rtol=0, atol=1e-12)


# ── holding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@BOTH
def test_weights_drift_with_prices_while_cash_stands_still(xp):
    held = one_bar([0.5, 0.25], [1.2, 0.8], xp=xp)
    assert_allclose(held.portfolio_return, [0.1 - 0.05])
    assert_allclose(held.weights, [[0.6 / 1.05, 0.2 / 1.05]])


@BOTH
def test_a_short_that_gains_shrinks_and_one_that_loses_grows(xp):
    assert_allclose(one_bar([-0.5], [0.8], xp=xp).weights, [[-0.4 / 1.1]])
    assert_allclose(one_bar([-0.5], [1.2], xp=xp).weights, [[-0.6 / 0.9]])


@BOTH
@pytest.mark.parametrize(("basis", "share"), [("gross", 1.0), ("debit", 0.0)])
def test_a_pair_of_plus_and_minus_one_pays_financing_on_gross_and_none_on_debit(xp, basis, share):
    held = one_bar([1.0, -1.0], [1.0, 1.0], FinancingConfig(basis=basis, rate_annual=0.0675), xp)
    assert_allclose(held.financing, [share * 0.0675 / 252])
    assert_allclose(held.portfolio_return, -held.financing)


@BOTH
@pytest.mark.parametrize("basis", ["gross", "debit"])
def test_twice_long_pays_financing_on_one_times_wealth_on_either_basis(xp, basis):
    assert_allclose(one_bar([2.0], [1.0], FinancingConfig(basis=basis), xp).financing, [0.0675 / 252])


@BOTH
def test_free_cash_earns_the_cash_rate_and_short_proceeds_only_on_the_debit_basis(xp):
    rates = dict(rate_annual=0.0, cash_rate_annual=0.0252)
    assert_allclose(one_bar([0.6], [1.0], FinancingConfig(**rates), xp).interest, [0.4 * 1e-4])
    assert_allclose(one_bar([-0.5], [1.0], FinancingConfig(basis="gross", **rates), xp).interest, [0.5 * 1e-4])
    assert_allclose(one_bar([-0.5], [1.0], FinancingConfig(basis="debit", **rates), xp).interest, [1.5 * 1e-4])


@BOTH
def test_shorts_pay_the_borrow_fee_on_their_value(xp):
    held = one_bar([0.5, -0.25, -0.25], [1.0] * 3, FinancingConfig(rate_annual=0, borrow_fee_annual=0.0252), xp)
    assert_allclose(held.borrow_fee, [0.5 * 1e-4])
    assert_allclose(held.portfolio_return, [-0.5 * 1e-4])


@BOTH
@pytest.mark.parametrize("years", [1, 2])
@pytest.mark.parametrize("basis", ["gross", "debit"])
def test_a_flat_2x_position_loses_exactly_what_the_financing_formula_says(xp, years, basis):
    bars = 252 * years
    targets, flat = array(xp, np.full((bars, 1, 1), 2.0)), array(xp, np.ones((bars, 1)))
    financing = FinancingConfig(basis=basis, rate_annual=0.0675)
    wealth = ledger.path(targets, flat, NO_COSTS, financing).wealth[-1]
    assert_allclose(wealth, [(1 - 0.0675 / 252) ** bars], rtol=0, atol=1e-9)
    account, held = array(xp, [1.0]), array(xp, [[0.0]])
    for s in range(bars):
        bar = step(account, held, targets[s], flat[s], NO_COSTS, financing)
        account, held = bar.wealth, bar.weights
    assert_allclose(account, wealth, rtol=0, atol=1e-12)


@BOTH
def test_a_ruined_account_is_reported_as_it_is_and_holds_nothing(xp):
    bar = step(array(xp, [1.0]), array(xp, [[2.0]]), array(xp, [[2.0]]), array(xp, [[0.4]]), NO_COSTS, FREE)
    assert_allclose(bar.wealth, [-0.2])
    assert_array_equal(bar.weights, [[0.0]])


# ── the independent account ──────────────────────────────────────────────────────────────────────────────────────────


class DecimalAccount:
    """Shares, cash and prices in decimals: the same rules told as a broker would, in money."""

    def __init__(self, assets: int) -> None:
        self.cash, self.prices, self.shares = Decimal(1), [Decimal(100)] * assets, [Decimal(0)] * assets

    @property
    def values(self):
        return [s * p for s, p in zip(self.shares, self.prices, strict=True)]

    @property
    def wealth(self):
        return self.cash + sum(self.values)

    def bill(self, wanted, rates, impacts):
        """What moving to the values `wanted` costs: commission plus impact in money, Σ c·v + k·√W·(v/W)^1.5·W."""
        wealth, bill = self.wealth, Decimal(0)
        for value, have, c, k in zip(wanted, self.values, rates, impacts, strict=True):
            share = abs(value - have) / wealth
            bill += c * share * wealth + k * wealth.sqrt() * share * share.sqrt() * wealth
        return bill

    def trade_to(self, weights, rates, impacts):
        """Positions are `weights` of what is left after the bill; the bill is found by bisection."""
        low, high = Decimal(0), self.wealth
        for _ in range(70):
            bill = (low + high) / 2
            wanted = [w * (self.wealth - bill) for w in weights]
            if self.bill(wanted, rates, impacts) > bill:
                low = bill
            else:
                high = bill
        self.cash = self.wealth - bill - sum(wanted)
        self.shares = [value / price for value, price in zip(wanted, self.prices, strict=True)]
        return bill

    def carry(self, gross, basis, rate, cash_rate, fee):
        """One bar: charges on the positions as they stand, then prices move."""
        shorts = -sum(v for v in self.values if v < 0)
        longs = sum(v for v in self.values if v > 0)
        spare = self.cash if basis == "debit" else self.wealth - longs - shorts
        charges = (-spare * rate if spare < 0 else -spare * cash_rate) + shorts * fee
        self.cash -= charges / 252
        self.prices = [p * g for p, g in zip(self.prices, gross, strict=True)]


@cache
def random_life(seed: int):
    """Random settings, targets and returns, with the wealth and weights that the decimal account has after each bar."""
    rng = np.random.default_rng(seed)
    assets, bars = int(rng.integers(1, 5)), 15
    settings = {
        "bps": rng.uniform(0, 50),
        "impact": rng.choice([0.0, rng.uniform(0, 0.1)]),
        "basis": str(rng.choice(["gross", "debit"])),
        "rates": rng.uniform(0, 0.1, 3),
        "spread": rng.uniform(0, 20, (bars, assets)),
        "scale": rng.uniform(0, 2, (bars, assets)),
    }
    targets = rng.normal(0, 1, (bars, assets))
    targets *= rng.uniform(0, 2, (bars, 1)) / abs(targets).sum(1, keepdims=True)
    targets[4:6] = targets[3]
    targets[9] = 0
    gross = np.exp(rng.normal(0, 0.05, (bars, assets)))
    wealths, weights = [], []
    with localcontext() as context:
        context.prec = 34
        exact = np.vectorize(lambda x: Decimal(float(x)), otypes=[object])
        account = DecimalAccount(assets)
        for s in range(bars):
            commissions = exact(settings["bps"] + settings["spread"][s]) / 10_000
            account.trade_to(exact(targets[s]), commissions, Decimal(float(settings["impact"])) * exact(settings["scale"][s]))
            account.carry(exact(gross[s]), settings["basis"], *exact(settings["rates"]))
            wealths.append(float(account.wealth))
            weights.append([float(v / account.wealth) for v in account.values])
    return settings, targets, gross, np.array(wealths), np.array(weights)


@BOTH
@pytest.mark.parametrize("seed", range(20))
def test_wealth_changes_only_by_returns_costs_and_financing(xp, seed):
    settings, targets, gross, wealths, weights = random_life(seed)
    costs = CostConfig(proportional_bps=settings["bps"], impact=settings["impact"])
    rate, cash_rate, fee = settings["rates"]
    financing = FinancingConfig(basis=settings["basis"], rate_annual=rate, cash_rate_annual=cash_rate, borrow_fee_annual=fee)
    wealth, held = array(xp, [1.0]), array(xp, np.zeros((1, targets.shape[1])))
    for s, target in enumerate(targets):
        cost_inputs = (array(xp, settings["spread"][s]), array(xp, settings["scale"][s]))
        bar = step(wealth, held, array(xp, target[None]), array(xp, gross[s]), costs, financing, *cost_inputs)
        wealth, held = bar.wealth, bar.weights
        assert_allclose(wealth, wealths[s : s + 1], rtol=1e-9)
        assert_allclose(held, weights[s : s + 1], rtol=0, atol=1e-9)


# ── a whole path at once ─────────────────────────────────────────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize("impact", [0.0, 0.05])
def test_a_path_equals_steps_in_a_loop_with_impact_on_reference_wealth(xp, impact):
    rng = np.random.default_rng(1)
    bars, accounts, assets = 300, 3, 4
    targets = rng.uniform(-0.5, 0.5, (bars, accounts, assets))
    gross = np.exp(rng.normal(0, 0.02, (bars, assets)))
    spread, scale = rng.uniform(0, 5, (2, bars, 1, assets))
    initial = rng.uniform(-0.3, 0.3, (accounts, assets))
    costs, financing = CostConfig(impact=impact), FinancingConfig(cash_rate_annual=0.03, borrow_fee_annual=0.02)
    targets, gross, spread, scale, initial = (array(xp, x) for x in (targets, gross, spread, scale, initial))
    path = ledger.path(targets, gross, costs, financing, initial, spread, scale)
    wealth, held = array(xp, np.ones(accounts)), initial
    for s in range(bars):
        reference = wealth * 0 + 1
        bar = step(reference, held, targets[s], gross[s], costs, financing, spread[s], scale[s])
        wealth, held = wealth * bar.wealth, bar.weights
        for name in ("weights", "cost", "turnover", "portfolio_return", "interest", "financing", "borrow_fee"):
            assert_allclose(getattr(path, name)[s], getattr(bar, name), rtol=0, atol=1e-12, err_msg=name)
        assert_allclose(path.wealth[s], wealth, rtol=1e-12)


@BOTH
def test_a_path_that_is_ruined_stays_where_it_fell_and_leaves_its_neighbour_alone(xp):
    targets = array(xp, np.full((4, 2, 1), 2.0) * np.array([[1.0], [0.5]]))
    path = ledger.path(targets, array(xp, [[1.0], [0.4], [1.5], [0.1]]), NO_COSTS, FREE)
    assert_allclose(path.wealth[:, 0], [1.0, -0.2, -0.2, -0.2])
    assert_allclose(path.wealth[:, 1], np.cumprod([1.0, 0.4, 1.5, 0.1]))


def test_a_float32_path_accumulates_its_wealth_in_float64():
    path = ledger.path(torch.ones(10, 1, 1), torch.ones(10, 1), CostConfig(), FREE)
    assert (path.wealth.dtype, path.weights.dtype) == (torch.float64, torch.float32)


# ── the feasible set ─────────────────────────────────────────────────────────────────────────────────────────────────

CAPS = {
    "long only": CapsConfig(),
    "long only, per-asset cap": CapsConfig(per_asset=0.3),
    "long only, net below gross": CapsConfig(gross=2.0, net=0.8),
    "levered": CapsConfig(gross=2.0, net=2.0, per_asset=2.0),
    "long/short": CapsConfig(long_only=False, gross=2.0, net=2.0, per_asset=2.0),
    "long/short, net cap": CapsConfig(long_only=False, gross=1.5, net=0.3, per_asset=0.8),
}
weight_arrays = st.lists(st.lists(st.floats(-10, 10), min_size=3, max_size=3), min_size=1, max_size=5)


def test_projection_by_hand():
    project_one = lambda weights, **caps: project(np.array([weights]), CapsConfig(**caps))[0]  # noqa: E731
    assert_allclose(project_one([1.0, 1.0]), [0.5, 0.5])
    assert_allclose(project_one([0.6, -0.4]), [0.6, 0.0])
    assert_allclose(project_one([0.6, 0.2], per_asset=0.5), [0.5, 0.2])
    assert_allclose(project_one([2.0, -2.0], long_only=False, gross=2.0, per_asset=2.0), [1.0, -1.0])
    assert_allclose(project_one([0.8, -0.2], long_only=False, gross=2.0, net=0.4), [0.6, -0.2])
    assert_allclose(project_one([0.2, -0.8], long_only=False, gross=2.0, net=0.4), [0.2, -0.6])


@pytest.mark.parametrize("name", CAPS)
@settings(max_examples=60, deadline=None)
@given(weights=weight_arrays, cap=st.none() | st.floats(0, 2.5))
def test_projection_is_feasible_idempotent_and_the_same_on_torch(name, weights, cap):
    caps, weights = CAPS[name], np.array(weights)
    gross_cap = None if cap is None else np.full(len(weights), cap)
    once = project(weights, caps, gross_cap)
    assert (abs(once) <= caps.per_asset * (1 + 1e-12)).all()
    assert (abs(once).sum(-1) <= (caps.gross if cap is None else cap) * (1 + 1e-12) + 1e-15).all()
    assert (abs(once.sum(-1)) <= caps.net * (1 + 1e-12)).all()
    assert not caps.long_only or (once >= 0).all()
    assert (once * weights >= 0).all()  # no position changes sides
    assert_allclose(project(once, caps, gross_cap), once, rtol=0, atol=1e-15)
    assert_allclose(project(torch.tensor(weights), caps, None if cap is None else torch.tensor(gross_cap)), once, atol=1e-15)


@BOTH
@pytest.mark.parametrize("name", CAPS)
def test_projection_leaves_feasible_weights_alone_to_the_last_bit(xp, name):
    caps = CAPS[name]
    inside = (
        np.random.default_rng(0).uniform(0 if caps.long_only else -1, 1, (200, 3))
        * min(caps.gross, caps.net, caps.per_asset)
        / 3
    )
    assert_array_equal(project(array(xp, inside), caps), inside)
    assert_array_equal(project(array(xp, inside), caps, array(xp, np.full(200, caps.gross))), inside)
    assert_array_equal(project(array(xp, inside * 0), caps, 0.0), inside * 0)


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────────

DIFFERENTIABLE = CostConfig(proportional_bps=20, impact=0.05)
CHARGED = FinancingConfig(cash_rate_annual=0.02, borrow_fee_annual=0.03)


def outcomes(wealth, held, target, gross):
    bar = step(wealth, held, target, gross, DIFFERENTIABLE, CHARGED)
    return bar.wealth, bar.weights, bar.cost, bar.turnover


@pytest.mark.parametrize("seed", range(5))
def test_gradients_of_a_step_equal_finite_differences(seed):
    rng = np.random.default_rng(seed)
    inputs = (
        rng.uniform(0.5, 2, 3),
        rng.uniform(0.1, 0.4, (3, 3)),
        rng.uniform(0.5, 0.9, (3, 3)),
        rng.uniform(0.9, 1.1, (3, 3)),
    )
    inputs = tuple(torch.tensor(x, requires_grad=True) for x in inputs)
    assert torch.autograd.gradcheck(outcomes, inputs, atol=1e-7)


def test_gradients_of_projection_equal_finite_differences_outside_and_inside_the_caps():
    caps = CapsConfig(long_only=False, gross=1.5, net=0.3, per_asset=0.8)
    weights = torch.tensor([[0.7, 0.6, -0.9], [0.1, 0.1, -0.05], [0.5, 0.4, -0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: project(w, caps), weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_zero_trades_at_cash_and_in_ruin(dtype):
    held = torch.tensor([[0.5, 0.2], [0.0, 0.0], [0.0, 0.0], [1.0, 0.9]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.5, 0.2], [0.0, 0.0], [1e-25, 0.0], [1.0, 0.9]], dtype=dtype, requires_grad=True)
    gross = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.1, 0.1]], dtype=dtype)
    for caps in CAPS.values():
        bar = step(torch.ones(4, dtype=torch.float64), held, project(target, caps), gross, DIFFERENTIABLE, CHARGED)
        total = bar.wealth.sum() + bar.weights.sum() + bar.cost.sum() + bar.turnover.sum()
        assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(total, (held, target)))


def test_a_float32_step_keeps_wealth_in_float64_and_the_rest_in_float32():
    half = torch.full((2, 3), 0.2)
    bar = step(torch.ones(2, dtype=torch.float64), half * 0, half, half + 0.8, DIFFERENTIABLE, CHARGED)
    assert bar.wealth.dtype == torch.float64
    assert {value.dtype for name, value in bar._asdict().items() if name != "wealth"} == {torch.float32}


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CostConfig(proportional_bps=0.0005),
            r"costs.proportional_bps = 0.0005 looks like a fraction.*Did you mean 5\?",
        ),
        (lambda: CostConfig(proportional_bps=-1), r"costs.proportional_bps = -1; expected 0 ≤ bp < 2000"),
        (lambda: CostConfig(proportional_bps=float("nan")), r"costs.proportional_bps = nan"),
        (lambda: CostConfig(impact=2), r"costs.impact = 2; expected a fraction of wealth in \[0, 1\]"),
        (lambda: FinancingConfig(basis="net"), r"financing.basis = 'net'; expected 'gross' or 'debit'"),
        (lambda: FinancingConfig(rate_annual=6.75), r"financing.rate_annual = 6.75 is not a fraction.*6.75 % is 0.0675"),
        (lambda: FinancingConfig(bars_per_year=0), r"financing.bars_per_year = 0; expected at least 1"),
        (lambda: CapsConfig(gross=0), r"caps.gross = 0; expected a multiple of wealth in \(0, 100\]"),
        (lambda: CapsConfig(gross=1, gross_overnight=2), r"caps.gross_overnight = 2; expected in \(0, caps.gross = 1\]"),
    ],
)
def test_a_setting_outside_its_meaning_is_refused_with_where_found_expected(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_weights_of_different_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"held weights have shape \(1, 2\) and target \(1, 3\); they must agree"):
        solve_cost(np.ones(1), np.zeros((1, 2)), np.zeros((1, 3)), CostConfig())
