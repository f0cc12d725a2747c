"""Scenarios do what their names say, and are traded by the same ledger as everything else."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.errors import ConfigError, ShapeError
from envs.indicators import volatility_regime
from envs.portfolio import PortfolioConfig
from envs.terms import CostConfig, FinancingConfig
from envs.trading_config import EpisodeConfig
from rlplatform.evaluation.baselines import Baseline, fixed, standard_baselines
from rlplatform.evaluation.stress import (
    SHOCKS,
    StressConfig,
    policy_player,
    rule_player,
    scenarios,
    stress_table,
)
from rlplatform.scenarios.blocks import block_bootstrap
from rlplatform.scenarios.shocks import shocked
from tests.evaluation.conftest import random_tape

TAPE = random_tape(rows=1500, assets=3)
FREE = CostConfig(proportional_bps=0)


def test_blocks_are_whole_rows_in_their_order():
    gross = 1.0 + np.arange(40).reshape(20, 2) / 100
    rows = (block_bootstrap(gross, 2_000, 10, np.random.default_rng(0)) - 1.0) * 100
    assert_allclose(rows[:, 1] - rows[:, 0], 1.0)  # assets of one day stay together
    follows = (np.round(np.diff(rows[:, 0])) % 40) == 2
    assert 0.86 < follows.mean() < 0.94  # nine in ten rows go on with the next day: blocks of ten on average


def test_a_regime_is_drawn_from_its_own_days_only():
    label = volatility_regime(TAPE.gross[1:].mean(axis=1))
    for name, code in (("calm", 0), ("choppy", 1), ("crisis", 2)):
        found = [s for s in scenarios(TAPE, StressConfig(paths=1, bars=50)) if s.name == name]
        if (label == code).sum() < 10:
            assert not found
            continue
        drawn = found[0].tape.gross[found[0].first + 1 :]
        days = {tuple(row) for row in TAPE.gross[1:][label == code]}
        assert len(drawn) == 50
        assert all(tuple(row) in days for row in drawn)


@pytest.mark.parametrize("shock", SHOCKS, ids=lambda shock: shock.name)
def test_a_shock_falls_and_recovers_by_what_it_says_with_raised_volatility_and_correlation(shock):
    long = dataclasses.replace(shock, fall_bars=2_000, recovery_bars=2_000)  # long, so that estimates are sharp
    path = np.log(shocked(TAPE.gross[1:], long, 10, np.random.default_rng(0)))
    fall, recovery = path[:2_000], path[2_000:]
    depth = np.log(1 - shock.fall)
    assert_allclose([fall.mean(1).sum(), recovery.mean(1).sum()], [depth, -shock.recovery * depth])
    usual = np.log(TAPE.gross[1:]).std(axis=0)
    assert_allclose(fall.std(axis=0) / usual, shock.volatility, rtol=0.1)
    assert_allclose(recovery.std(axis=0) / usual, shock.recovery_volatility, rtol=0.1)
    pairs = np.corrcoef(fall.T)[np.triu_indices(3, 1)]
    assert (pairs > 0.85).all()  # independent in history


def test_each_scenario_follows_real_history_and_is_decided_first_on_its_last_day():
    for scenario in scenarios(TAPE, StressConfig(paths=2, bars=30, history_bars=100)):
        assert scenario.first == 99
        assert_array_equal(scenario.tape.gross[:100], TAPE.gross[-100:])


def test_the_same_seed_draws_the_same_scenarios():
    config = StressConfig(paths=2, bars=30)
    one, two = scenarios(TAPE, config), scenarios(TAPE, config)
    other = scenarios(TAPE, dataclasses.replace(config, seed=1))
    assert [s.tape.sha256 for s in one] == [s.tape.sha256 for s in two]
    assert one[0].tape.sha256 != other[0].tape.sha256


def test_cash_loses_nothing_and_equal_weight_what_the_shock_took():
    paths = [s for s in scenarios(TAPE, StressConfig(paths=3)) if s.name == "shock_2008"]
    rules = {"CASH": Baseline(rule=fixed(np.zeros(3))), "EQUAL": Baseline(rule=fixed(np.full(3, 1 / 3)))}
    cash, equal = stress_table(paths, {n: rule_player(n, rule, FREE, FinancingConfig()) for n, rule in rules.items()})
    assert (cash.worst_return, cash.worst_drawdown, cash.paths) == (0.0, 0.0, 3)
    kept = (1 - 0.487) ** (1 - 0.69)  # fall, then 69 % of its log back
    assert_allclose(equal.median_return, kept - 1, atol=0.01)  # daily rebalancing adds a little
    assert equal.worst_drawdown < -0.48


def test_worst_is_never_better_than_the_quantile_and_the_quantile_never_better_than_the_median():
    rules = standard_baselines(TAPE.symbols)
    players = {n: rule_player(n, rules[n], CostConfig(), FinancingConfig()) for n in ("ALL_A", "MOMENTUM_TOP_1")}
    table = stress_table(scenarios(TAPE, StressConfig(paths=4, bars=40)), players)
    assert [row.player for row in table[:2]] == ["ALL_A", "MOMENTUM_TOP_1"]
    assert {"bootstrap", "shock_2008", "shock_2020"} <= {row.scenario for row in table}
    for row in table:
        assert row.worst_return <= row.return_5 <= row.median_return
        assert row.worst_drawdown <= row.median_drawdown <= 0


class EqualWeight:
    def initial_state(self, batch):
        return None

    def act(self, obs, state, deterministic):
        return np.full((len(obs), 4), [0.0, 1.0, 1.0, 1.0], np.float32), state, {}


def test_a_policy_loses_what_its_rule_loses():
    paths = scenarios(TAPE, StressConfig(paths=1, bars=40))
    config = PortfolioConfig(episode=EpisodeConfig(length_bars=None, random_start=False))
    players = {
        "policy": policy_player("policy", EqualWeight(), config, lambda tape: tape),
        "rule": rule_player("rule", Baseline(rule=fixed(np.full(3, 1 / 3))), config.costs, config.financing),
    }
    table = stress_table(paths, players)
    for policy, rule in zip(table[::2], table[1::2], strict=True):
        assert_allclose(policy.worst_return, rule.worst_return, rtol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match=r"stress.paths = 0; expected at least 1"):
        StressConfig(paths=0)
    with pytest.raises(ConfigError, match=r"shock 2008: fall = 46; expected a fraction in \(0, 1\)"):
        dataclasses.replace(SHOCKS[0], fall=46)
    with pytest.raises(ConfigError, match="at least 2 bars each"):
        dataclasses.replace(SHOCKS[0], fall_bars=1)
    with pytest.raises(ShapeError, match="the tape has 11 returns"):
        scenarios(random_tape(rows=12), StressConfig())
