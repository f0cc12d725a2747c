"""TradeBook: round trips by hand, then the conservation of money."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs import ledger
from envs.backend import Backend
from envs.terms import CostConfig, FinancingConfig
from envs.trade_book import TradeBook

LIBRARIES = pytest.mark.parametrize("library", ["numpy", "torch"])
FREE = FinancingConfig(rate_annual=0.0)
TEN_BPS = CostConfig(proportional_bps=10)


def walk(library, targets, gross, costs, financing, **rates):
    """Trade and book targets (S, B, N) bar by bar; the book, the closed trades of each bar, and the ledger's steps."""
    backend = Backend(library)
    targets, gross = backend.real(targets), backend.real(gross)
    book = TradeBook(targets.shape[1], targets.shape[2], backend)
    wealth, held, trades, steps = backend.real(np.ones(targets.shape[1])), targets[0] * 0, [], []
    rates = {name: backend.real(value) for name, value in rates.items()}
    for target, move in zip(targets, gross, strict=True):
        bar = ledger.step(wealth, held, target, move, costs, financing, **rates)
        trades.append(book.book(wealth, held, bar, move, costs, **rates))
        steps.append(bar)
        wealth, held = bar.wealth, bar.weights
    return book, trades, steps


@LIBRARIES
def test_buying_half_riding_ten_percent_and_selling_earns_the_ride_less_both_commissions(library):
    book, trades, steps = walk(library, [[[0.5]], [[0.0]]], [[1.1], [1.0]], TEN_BPS, FREE)
    kappa = 0.0005 / 1.0005
    stake = 0.5 * (1 - kappa)
    by_hand = stake * 0.1 - stake * 0.001 - stake * 1.1 * 0.001
    assert_array_equal([bool(t.closed[0, 0]) for t in trades], [False, True])
    assert_allclose(trades[1].profit, [[by_hand]])
    assert_allclose(steps[-1].wealth, [1 + by_hand])
    assert_array_equal(book.open_profit, [[0.0]])


@LIBRARIES
def test_a_flip_closes_one_trade_opens_another_and_splits_its_cost_by_value_moved(library):
    book, trades, _ = walk(library, [[[1.0]], [[-0.5]]], [[1.0], [1.0]], TEN_BPS, FREE)
    assert bool(trades[1].closed[0, 0])
    kappa = 0.001 / 1.001
    left = 1 - kappa  # wealth, all of it in the long position
    assert_allclose(trades[1].profit, [[-kappa - left * 0.001]])  # what opening it cost, and what closing it cost
    flip = (left + 0.5 * left) * 0.001 / 1.0005  # hand-solved: d = 1 + ½(1 − κ) = (1.5) / (1 + ½c), target short ½
    assert_allclose(trades[1].profit[0, 0] + book.open_profit[0, 0], -kappa - flip, rtol=1e-6)


@LIBRARIES
def test_trimming_a_position_does_not_close_it(library):
    _, trades, _ = walk(library, [[[1.0]], [[0.5]], [[0.2]]], [[1.1]] * 3, TEN_BPS, FREE)
    assert not any(bool(t.closed.any()) for t in trades)


@LIBRARIES
def test_financing_is_shared_by_size_and_the_borrow_fee_falls_on_the_short(library):
    financing = FinancingConfig(rate_annual=0.0252, borrow_fee_annual=0.0504)
    book, _, _ = walk(library, [[[1.5, -0.5]]], [[1.0, 1.0]], CostConfig(proportional_bps=0), financing)
    assert_allclose(book.open_profit, [[-0.75e-4, -0.25e-4 - 1e-4]])  # financing 1e-4 on 1×, fee 2e-4 on 0.5×


@LIBRARIES
@pytest.mark.parametrize("basis", ["gross", "debit"])
@pytest.mark.parametrize("seed", range(5))
def test_profits_of_closed_and_open_trades_add_up_to_the_change_of_wealth_less_interest(library, basis, seed):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1, 1, (40, 6, 2)) * rng.choice([0, 1, 1, 1], (40, 6, 2))
    gross = np.exp(rng.normal(0, 0.03, (40, 2)))
    financing = FinancingConfig(basis=basis, cash_rate_annual=0.05, borrow_fee_annual=0.04)
    costs = CostConfig(proportional_bps=30, impact=0.05)
    rates = {"half_spread_bps": rng.uniform(0, 9, 2), "impact_scale": rng.uniform(0, 2, 2)}
    book, trades, steps = walk(library, targets, gross, costs, financing, **rates)
    wealth, interest = np.ones(6), np.zeros(6)
    for bar in steps:
        interest += wealth * np.asarray((1 - bar.cost) * bar.interest)
        wealth = np.asarray(bar.wealth)
    profits = sum(np.asarray(t.profit).sum(-1) for t in trades) + np.asarray(book.open_profit).sum(-1)
    assert_allclose(profits, wealth - 1 - interest, rtol=0, atol=1e-12)
    assert sum(int(t.closed.sum()) for t in trades) > 100


@LIBRARIES
def test_reset_forgets_the_open_trades_of_chosen_accounts(library):
    book, _, _ = walk(library, [[[1.0], [1.0]]], [[1.1]], TEN_BPS, FREE)
    book.reset(book.backend.array([True, False], "bool"))
    assert float(book.open_profit[0, 0]) == 0.0 < float(book.open_profit[1, 0])
