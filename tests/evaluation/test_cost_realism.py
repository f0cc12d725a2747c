"""Costs a reader can work out on paper, then the laws: dearer trading never pays, and each edge ends where it is said to."""

import dataclasses
import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.data import Prices
from rlplatform.evaluation.backtest import run_targets
from rlplatform.evaluation.cost_realism import CostScenario, cost_realism, replay, standard_scenarios
from rlplatform.evaluation.market_detail import MarketDetail
from tests.evaluation.conftest import dates

FREE = FinancingConfig()
NO_COSTS = CostScenario(name="free", commission_bps=0.0)


def market(rows=300, seed=0, volume=1e6, opens=True):
    """Two assets near 100: prices, tape and detail. The night makes a third of each move."""
    rng = np.random.default_rng(seed)
    moves = 0.0002 + 0.01 * rng.standard_normal((rows, 2))
    close = 100 * np.exp(np.cumsum(moves, 0))
    prices = Prices(
        dates=dates(rows),
        symbols=("A", "B"),
        close=close,
        open=close * np.exp(-2 / 3 * moves) if opens else None,
        volume=None if volume is None else np.full((rows, 2), volume),
    )
    tape = MarketTape(dates=prices.dates, symbols=prices.symbols, gross=prices.gross())
    return tape, MarketDetail.of(prices)


def seer(tape, share=0.2, costs=0.0, turn=5):
    """A track that knows a little of the next bar: every `turn` bars it tilts by `share` to the asset that will do better."""
    ahead = np.append(tape.gross[1:, 0] > tape.gross[1:, 1], True)
    targets = np.where(ahead[:, None], [0.5 + share, 0.5 - share], [0.5 - share, 0.5 + share])
    targets = np.repeat(targets[::turn], turn, axis=0)[: len(tape)]
    return run_targets("seer", targets, tape, CostConfig(proportional_bps=costs), FREE, CapsConfig())


def holder(tape, weights=(0.5, 0.5)):
    targets = np.tile(np.array(weights), (len(tape), 1))
    return run_targets("market", targets, tape, CostConfig(proportional_bps=0), FREE, CapsConfig())


def test_without_costs_a_replay_is_the_track_itself():
    tape, detail = market()
    track = seer(tape)
    assert_allclose(replay(track, tape, detail, NO_COSTS, FREE).wealth, track.wealth, rtol=1e-12)


def test_buying_everything_once_costs_commission_and_half_spread():
    tape, detail = market(rows=3)
    track = holder(tape, (1.0, 0.0))
    paid = replay(track, tape, detail, CostScenario(name="both", commission_bps=1, half_spread_bps=4), FREE)
    assert_allclose(paid.cost[0], 5e-4, rtol=1e-3)
    assert_allclose(paid.cost[1], 0, atol=1e-12)


def test_the_impact_of_a_purchase_is_the_square_root_law():
    """100 m of 100 m traded a day at 1 % volatility: Y σ √(Q/V) = 1 % of the trade, and a hundredth as much costs 0.1 %."""
    tape, detail = market(rows=3)
    detail = dataclasses.replace(detail, volatility=np.full((3, 2), 0.01), daily_value=np.full((3, 2), 1e8))
    track = holder(tape, (1.0, 0.0))
    for account, paid in ((1e8, 0.01), (1e6, 0.001)):
        found = replay(track, tape, detail, CostScenario(name="big", commission_bps=0, account=account), FREE)
        assert_allclose(found.cost[0], paid, rtol=0.02)  # the target is a fraction of what is left: a little less is bought


def test_an_order_for_the_next_open_misses_the_night():
    """One asset, bought at the close of day 0: the fill at the next open has the day's move and not the night's."""
    tape, detail = market(rows=4)
    track = holder(tape, (1.0, 0.0))
    found = replay(track, tape, detail, CostScenario(name="open", commission_bps=0, next_open=True), FREE)
    assert_allclose(found.wealth[1], tape.gross[1, 0] / detail.overnight[1, 0], rtol=1e-12)
    assert_allclose(found.returns[1:], tape.gross[2:, 0] - 1, rtol=1e-9)
    assert_allclose(found.turnover, [1, 0, 0], atol=1e-12)


def test_at_the_next_open_one_trades_what_drifted_since_the_last_open_and_nothing_at_the_close():
    tape, detail = market(rows=5)
    found = replay(holder(tape), tape, detail, CostScenario(name="open", commission_bps=0, next_open=True), FREE)
    between_opens = tape.gross[1:-1] / detail.overnight[1:-1] * detail.overnight[2:]
    drifted = between_opens / between_opens.sum(1, keepdims=True)
    assert_allclose(found.turnover[1:], np.abs(0.5 - drifted).sum(1), rtol=1e-9)


def test_next_open_costs_fall_on_the_open_and_financing_accrues_once():
    tape, detail = market(rows=60)
    levered = run_targets(
        "levered", np.tile([1.0, 1.0], (60, 1)), tape, CostConfig(proportional_bps=0), FREE, CapsConfig(gross=2, net=2)
    )
    at_close, at_open = (
        replay(levered, tape, detail, CostScenario(name="x", commission_bps=5, next_open=late), FREE) for late in (False, True)
    )
    assert_allclose(at_open.cost.sum(), at_close.cost.sum(), rtol=0.1)
    # The first night is spent in cash.
    assert_allclose(at_open.financing.sum(), at_close.financing.sum() * (2 * 59 - 1) / (2 * 59), rtol=0.02)


def test_dearer_trading_never_pays_and_the_benchmark_pays_too():
    tape, detail = market()
    found = cost_realism(seer(tape), holder(tape), tape, detail, FREE)
    names = [row.scenario.name for row in found.rows]
    assert names[:2] == ["commission only", "+ half spread"]
    assert names[-1] == "+ half spread, next open"
    growth = [row.metrics.cagr for row in found.rows[:-1]]
    assert growth == sorted(growth, reverse=True)
    assert found.rows[1].benchmark_cagr < found.rows[0].benchmark_cagr
    assert found.missing == ()
    json.dumps(found.to_dict(), allow_nan=False)
    assert len(found.table()) == 6


def test_at_the_break_even_cost_both_end_with_the_same_wealth():
    tape, detail = market()
    track, benchmark = seer(tape), holder(tape)
    found = cost_realism(track, benchmark, tape, detail, FREE, [NO_COSTS])
    assert 1 < found.break_even_bps < 1_000
    at_it = CostScenario(name="break even", commission_bps=found.break_even_bps)
    ends = [replay(t, tape, detail, at_it, FREE).wealth[-1] for t in (track, benchmark)]
    assert_allclose(ends[0], ends[1], rtol=1e-4)


def test_capacity_grows_with_the_liquidity_of_the_market():
    accounts = []
    for volume in (1e5, 1e7):
        tape, detail = market(volume=volume)
        accounts.append(cost_realism(seer(tape), holder(tape), tape, detail, FREE, [NO_COSTS]).capacity)
    assert 1e3 < accounts[0] < 1e13
    assert_allclose(accounts[1] / accounts[0], 100, rtol=0.02)  # only the ratio of account to volume counts


def test_without_an_edge_break_even_and_capacity_are_nothing():
    tape, detail = market()
    found = cost_realism(holder(tape, (0.0, 0.0)), holder(tape), tape, detail, FREE)
    if found.rows[0].growth_edge > 0:  # cash against a falling market: take the other side
        found = cost_realism(holder(tape), holder(tape, (0.0, 0.0)), tape, detail, FREE)
    assert (found.break_even_bps, found.capacity) == (0.0, 0.0)


def test_scenarios_that_the_prices_do_not_allow_are_named_and_left_out():
    tape, detail = market(volume=None, opens=False)
    found = cost_realism(seer(tape), holder(tape), tape, detail, FREE)
    assert [row.scenario.name for row in found.rows] == ["commission only", "+ half spread"]
    assert len(found.missing) == 4
    assert "+ half spread, next open: the prices lack opens." in found.missing
    assert math.isnan(found.capacity)
    with pytest.raises(MarketDataError, match="the prices lack volume"):
        replay(seer(tape), tape, detail, standard_scenarios()[2], FREE)
    with pytest.raises(MarketDataError, match="the prices lack opens"):
        replay(seer(tape), tape, detail, standard_scenarios()[-1], FREE)


def test_detail_knows_nothing_of_later_prices():
    _, detail = market(rows=300)
    _, other = market(rows=300, seed=0)
    np.testing.assert_array_equal(detail.volatility, other.volatility)
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((100, 1)), 0))
    volume = rng.uniform(1e5, 1e6, (100, 1))
    whole = MarketDetail.of(Prices(dates=dates(100), symbols=("A",), close=close, volume=volume, open=close))
    early = MarketDetail.of(Prices(dates=dates(60), symbols=("A",), close=close[:60], volume=volume[:60], open=close[:60]))
    for name in ("volatility", "daily_value", "overnight"):
        np.testing.assert_array_equal(getattr(whole, name)[:60], getattr(early, name))


def test_tracks_of_other_days_and_impossible_accounts_are_refused():
    tape, detail = market()
    with pytest.raises(ShapeError, match=r"seer covers .* expected 299 bars of A, B"):
        cost_realism(seer(tape), dataclasses.replace(holder(tape), symbols=("X", "Y"), name="seer"), tape, detail, FREE)
    with pytest.raises(ShapeError, match="the prices' detail lacks Z"):
        detail.at(tape.dates, ("A", "Z"))
    with pytest.raises(ConfigError, match="account = 0"):
        CostScenario(name="none", account=0)
    still = dataclasses.replace(detail, daily_value=np.zeros_like(detail.daily_value))
    with pytest.raises(MarketDataError, match="value traded of A at 2020-01-01 is 0"):
        still.impact_scale(1e6)
