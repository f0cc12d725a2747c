import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.baselines import (
    BaselineConfig,
    baseline_targets,
    fractional_kelly,
    inverse_volatility,
    judge_baselines,
    min_cvar,
    momentum,
    risk_parity,
    standard_baselines,
)
from rlplatform.evaluation.metrics import summarize
from tests.evaluation.conftest import random_tape

SHORT = BaselineConfig(rebalance_bars=10, momentum_bars=20, volatility_bars=20, kelly_bars=30, fit_bars=40)
REGIMES = {"HOLD": (0, 0, 0, 0, 0), "ALL_CASH": (1, 0, 0, 0, 0), "ALL_A": (0, 1, 0, 0, 0), "MIX": (0.25, 0.5, 0.25, 0, 0)}
NAMES = list(standard_baselines("ABCD", SHORT, REGIMES))


def targets_of(name, tape, first=60, last=None):
    baseline = standard_baselines(tape.symbols, SHORT, REGIMES)[name]
    return baseline_targets(baseline, tape, first, len(tape) - 1 if last is None else last, FinancingConfig(), CapsConfig())


def test_the_registry_has_every_simple_portfolio():
    fixed = {"ALL_A", "ALL_B", "ALL_C", "ALL_D", "CASH", "EQUAL_WEIGHT", "EQUAL_WEIGHT_DRIFT", "REGIME_MIX"}
    fitted = {"MOMENTUM_TOP_1", "INVERSE_VOLATILITY", "FRACTIONAL_KELLY", "MIN_CVAR", "RISK_PARITY"}
    assert set(NAMES) == fixed | fitted


@pytest.mark.parametrize("name", NAMES)
def test_changing_the_future_does_not_move_earlier_targets(name):
    tape, changed = random_tape(rows=140), random_tape(rows=140).gross.copy()
    changed[101:] *= np.random.default_rng(1).uniform(0.5, 1.5, changed[101:].shape)
    other = MarketTape(dates=tape.dates, symbols=tape.symbols, gross=changed)
    np.testing.assert_array_equal(targets_of(name, tape)[: 101 - 60], targets_of(name, other)[: 101 - 60])


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_long_only_without_leverage(name):
    targets = targets_of(name, random_tape(rows=140))
    assert np.isfinite(targets).all()
    assert (targets >= 0).all()
    assert (targets.sum(-1) <= 1 + 1e-12).all()


@pytest.mark.parametrize("name", ["MOMENTUM_TOP_1", "INVERSE_VOLATILITY", "FRACTIONAL_KELLY", "MIN_CVAR", "RISK_PARITY"])
def test_between_two_decisions_nothing_is_traded(name):
    tape = random_tape(rows=140)
    tracks = judge_baselines(tape, str(tape.dates[60])[:10], None, CostConfig(), FinancingConfig(), config=SHORT)
    turnover = next(track for track in tracks if track.name == name).turnover
    waiting = np.arange(len(turnover)) % 10 != 0
    assert_allclose(turnover[waiting], 0.0, atol=1e-12)
    assert turnover[~waiting].max() > 0.01


def test_equal_weight_bought_once_is_the_mean_of_the_assets(free):
    tape = random_tape(rows=100)
    tracks = {track.name: track for track in judge_baselines(tape, None, None, **free, config=SHORT)}
    assets = np.mean([tracks[f"ALL_{symbol}"].wealth for symbol in "ABCD"], axis=0)
    assert_allclose(tracks["EQUAL_WEIGHT_DRIFT"].wealth, assets, rtol=1e-12)
    assert_allclose(tracks["EQUAL_WEIGHT"].wealth[1:], np.cumprod(tape.gross[1:].mean(1)), rtol=1e-12)


def test_cash_earns_the_cash_rate_and_drifting_portfolios_count_it(free):
    financing = FinancingConfig(cash_rate_annual=0.0252)
    tape = random_tape(rows=20)
    tracks = judge_baselines(tape, None, None, free["costs"], financing, config=SHORT)
    assert_allclose(next(track for track in tracks if track.name == "CASH").wealth, 1.0001 ** np.arange(20), rtol=1e-12)


def test_momentum_holds_the_best_of_the_window():
    past = np.array([[0.1, 0.2, 0.0], [0.1, -0.2, 0.0]])
    assert_allclose(momentum(past, 1), [1, 0, 0])
    assert_allclose(momentum(past, 2), [0.5, 0, 0.5])  # 1.21, 0.96, 1.00


def test_inverse_volatility_gives_half_the_weight_to_twice_the_volatility():
    past = np.array([[0.01, 0.02], [-0.01, -0.02]])
    assert_allclose(inverse_volatility(past), [2 / 3, 1 / 3])


def test_kelly_is_mean_over_variance_and_never_short():
    past = np.array([[0.03, -0.03], [-0.01, 0.01]])  # mean ±1 %, variance 0.0008
    assert_allclose(fractional_kelly(past, 0.5), [0.5 * 0.01 / 0.0008, 0.0])


def test_risk_parity_of_uncorrelated_assets_is_inverse_volatility():
    past = 0.01 * np.array([[1, 2], [-1, 2], [1, -2], [-1, -2]]).repeat(20, 0)
    assert_allclose(risk_parity(past), [2 / 3, 1 / 3], atol=1e-3)


def test_min_cvar_avoids_the_asset_that_crashes():
    rng = np.random.default_rng(0)
    past = 0.01 * rng.standard_normal((300, 2))
    past[::20, 1] -= 0.2
    assert_allclose(min_cvar(past), [1, 0], atol=0.05)


def test_rules_without_enough_history_hold_equal_weight():
    tape = random_tape(rows=50)
    targets = targets_of("MIN_CVAR", tape, first=5)
    assert_allclose(targets[0], 0.25)
    assert not np.allclose(targets[40], 0.25, atol=0.05)  # row 45 has its 40 returns


def test_row_zero_is_never_taken_for_a_return():
    tape = random_tape(rows=60)
    gross = tape.gross.copy()
    gross[0] = 5.0
    other = MarketTape(dates=tape.dates, symbols=tape.symbols, gross=gross)
    np.testing.assert_array_equal(targets_of("FRACTIONAL_KELLY", tape, 30), targets_of("FRACTIONAL_KELLY", other, 30))


def test_a_regime_held_for_ever_keeps_its_cash():
    assert_allclose(targets_of("REGIME_MIX", random_tape(rows=100)), np.tile([0.5, 0.25, 0, 0], (40, 1)))


def test_a_regime_that_does_not_sum_to_one_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"regimes.BAD = \(0.5, 0.6\); expected 2 fractions over CASH, A that sum to 1"):
        standard_baselines("A", regimes={"BAD": (0.5, 0.6)})


def test_settings_outside_their_meaning_are_refused():
    with pytest.raises(ConfigError, match=r"baselines.fit_bars = 1; expected at least 2"):
        BaselineConfig(fit_bars=1)
    with pytest.raises(ConfigError, match=r"baselines.kelly_fraction = 50"):
        BaselineConfig(kelly_fraction=50)


def test_one_asset_is_enough():
    tape = random_tape(rows=100, assets=1)
    tracks = judge_baselines(tape, str(tape.dates[60])[:10], None, CostConfig(), FinancingConfig(), config=SHORT)
    assert_allclose([t.wealth[-1] for t in tracks if t.name in ("MIN_CVAR", "RISK_PARITY")], tracks[0].wealth[-1], rtol=1e-6)


def test_every_baseline_shares_the_dates_of_the_period():
    tape = random_tape(rows=120)
    tracks = judge_baselines(tape, "2020-04-01", "2020-05-29", CostConfig(), FinancingConfig(), config=SHORT)
    assert {track.period for track in tracks} == {("2020-04-01", "2020-05-29")}


TOTAL_RETURNS = {  # DESIGN.md, §Judging
    ("2015-01-01", "2019-12-31"): {"ALL_SPY": 0.7289, "ALL_QQQ": 1.1644, "ALL_IWM": 0.4917},
    ("2020-01-01", "2024-12-31"): {"ALL_SPY": 0.9458, "ALL_QQQ": 1.4386, "ALL_IWM": 0.4216},
}


@pytest.mark.parametrize("period", TOTAL_RETURNS)
def test_buy_and_hold_of_real_prices_equals_the_known_total_returns(real_tape, free, period):
    tracks = judge_baselines(real_tape, *period, **free, config=BaselineConfig(rebalance_bars=10_000))
    found = {track.name: summarize(track).total_return for track in tracks}
    for name, expected in TOTAL_RETURNS[period].items():
        assert_allclose(found[name], expected, atol=1e-4, err_msg=name)
    assert {len(track) for track in tracks} == {1_257}
