"""Where a return came from: parts that a reader can add up, and that sum to the whole to 1e-9."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from envs.errors import ConfigError, ShapeError
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.attribution import FINANCING, INTEREST, attribute
from rlplatform.evaluation.attribution_plots import plot_contributions
from rlplatform.evaluation.backtest import run_targets
from tests.evaluation.conftest import dates, random_tape

FREE, FLAT = CostConfig(proportional_bps=0), FinancingConfig(rate_annual=0.0)
LEVERED = CapsConfig(long_only=False, gross=3, net=3, per_asset=3)


def traded(targets, tape, costs=FREE, financing=FLAT, caps=LEVERED):
    return attribute(run_targets("t", np.asarray(targets, float), tape, costs, financing, caps), tape, costs, financing)


def tape_of(gross):
    gross = np.asarray(gross, float)
    return MarketTape(dates=dates(len(gross)), symbols=("A", "B")[: gross.shape[1]], gross=gross)


def test_one_bar_is_split_by_weight_times_return():
    found = traded([[0.5, 0.25], [0, 0]], tape_of([[1, 1], [1.10, 0.96]]))
    assert_allclose(found.return_parts, [0.05, -0.01])
    assert_allclose(found.total_return, 0.04)


def test_two_bars_are_linked_by_hand():
    found = traded([[1, 0], [0, 1], [0, 0]], tape_of([[1, 1], [1.10, 1], [1, 1.20]]))
    assert_allclose(found.total_return, 0.32)
    k = np.log(1.32) / 0.32  # ln 1.1 and ln 1.2 share 0.32 as they share ln 1.32
    assert_allclose(found.return_parts, [np.log(1.1) / k, np.log(1.2) / k])


def test_buying_half_the_account_at_5_bps_costs_its_asset_what_the_ledger_took():
    found = traded([[0.5, 0.0], [0, 0]], tape_of([[1, 1], [1, 1]]), CostConfig(proportional_bps=5))
    assert_allclose(found.cost_parts, [-2.5e-4, 0.0], rtol=1e-3)  # half of 5 bp, from A alone
    assert_allclose(found.return_parts, 0.0)


def test_leverage_pays_financing_and_idle_cash_earns_under_their_own_names():
    borrowed = traded([[2.0], [0]], tape_of([[1], [1]]), financing=FinancingConfig(rate_annual=0.252))
    assert borrowed.sources == ("A", FINANCING)
    assert_allclose(borrowed.return_parts, [0.0, -0.001])  # one account borrowed at 25.2 % / 252
    idle = traded([[0.0], [0]], tape_of([[1], [1]]), financing=FinancingConfig(cash_rate_annual=0.0252))
    assert idle.sources == ("A", INTEREST)
    assert_allclose(idle.return_parts, [0.0, 0.0001])


def test_all_risk_is_that_of_the_only_asset_that_moves():
    rng = np.random.default_rng(0)
    moves = np.exp(0.01 * rng.standard_normal(200))
    found = traded(np.full((200, 2), 0.5), tape_of(np.column_stack([moves, np.ones(200)])))
    assert_allclose(found.risk_parts, [found.volatility, 0.0], atol=1e-12)
    assert_allclose(found.volatility, 0.5 * moves[1:].std(ddof=1) * np.sqrt(252))


def test_a_hedge_takes_risk_away():
    rng = np.random.default_rng(1)
    moves = np.exp(0.01 * rng.standard_normal(200))
    found = traded(np.tile([1.0, -0.4], (200, 1)), tape_of(np.column_stack([moves, moves])))
    assert found.risk_parts[0] > found.volatility > 0 > found.risk_parts[1]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bps=st.sampled_from([0.0, 5.0, 50.0]),
    impact=st.sampled_from([0.0, 0.05]),
    rate=st.sampled_from([0.0, 0.0675]),
    basis=st.sampled_from(["gross", "debit"]),
)
def test_parts_sum_to_return_and_risk(seed, bps, impact, rate, basis):
    rng = np.random.default_rng(seed)
    tape = random_tape(rows=300, assets=3, seed=seed)
    scale = rng.uniform(0.5, 2.0, tape.gross.shape)
    tape = dataclasses.replace(tape, half_spread_bps=rng.uniform(0, 3, tape.gross.shape), impact_scale=scale)
    financing = FinancingConfig(basis=basis, rate_annual=rate, cash_rate_annual=rate / 2, borrow_fee_annual=rate / 3)
    found = traded(rng.normal(0.2, 0.5, tape.gross.shape), tape, CostConfig(proportional_bps=bps, impact=impact), financing)
    whole = found.return_parts.sum() + found.cost_parts.sum()
    assert_allclose(whole, found.total_return, atol=1e-9)
    assert_allclose(found.risk_parts.sum(), found.volatility, atol=1e-9)
    assert_allclose(sum(parts.sum() for parts, _ in found.by_year().values()), found.total_return, atol=1e-9)
    assert_allclose(found.net.sum(1), found.returns, atol=1e-9)


def test_years_have_their_own_returns():
    found = traded(np.full((400, 1), 1.0), random_tape(rows=400, assets=1, seed=3), caps=CapsConfig())
    years = found.by_year()
    assert list(years) == ["2020", "2021"]
    assert_allclose(np.prod([1 + own for _, own in years.values()]) - 1, found.total_return)


def test_rows_and_the_sentence_say_the_sum():
    found = traded(np.full((60, 2), 0.5), random_tape(rows=60, assets=2), CostConfig(proportional_bps=5))
    rows = found.rows()
    assert rows[-1]["source"] == "sum"
    assert rows[-1]["share of risk"] == "100 %"
    assert {row["source"] for row in rows[:-1]} == {"A", "B"}
    assert "of the risk" in found.sentence
    many = traded(np.full((60, 20), 0.05), random_tape(rows=60, assets=20))
    assert list(many.year_rows()[0])[-1] == "12 others"
    assert len(plot_contributions(many).axes[0].get_yticks()) == 12


def test_other_terms_or_another_tape_are_refused():
    tape, costs = random_tape(rows=60, assets=2), CostConfig(proportional_bps=5)
    track = run_targets("t", np.full((60, 2), 0.5), tape, costs, FLAT, CapsConfig())
    with pytest.raises(ConfigError, match="Give the costs and financing that it was traded under"):
        attribute(track, tape, CostConfig(proportional_bps=50), FLAT)
    with pytest.raises(ShapeError, match="lacks some of those dates or assets"):
        attribute(track, tape.rows(0, 40), costs, FLAT)
    with pytest.raises(ConfigError, match="was ruined"):
        attribute(dataclasses.replace(track, ruined=True), tape, costs, FLAT)
