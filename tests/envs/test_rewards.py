"""Reward terms, each by hand on one step."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.ledger import step
from envs.rewards import TERMS, RewardConfig, RewardInputs, reward_terms, total_reward
from envs.terms import CostConfig, FinancingConfig

BOTH = pytest.mark.parametrize("xp", [np, torch], ids=["numpy", "torch"])


def inputs(xp=np, wealth=2.0, peak=4.0, held=(0.0, 0.0), target=(0.5, 0.25), gross=(1.1, 0.96)) -> RewardInputs:
    array = lambda *values: xp.asarray(np.array(values, dtype=np.float64))  # noqa: E731
    gross_next = array(gross)
    bar = step(array(wealth), array(held), array(target), gross_next, CostConfig(proportional_bps=100), FinancingConfig())
    return RewardInputs(
        bar, array(wealth), xp.maximum(array(peak), bar.wealth), gross_next, array((0.03, 0.02)), array((0.1, 0.4))
    )


KAPPA = 0.0075 / 1.0075  # 1 % of 0.75 (1 − κ)
GROWTH = (1 - KAPPA) * (1 + 0.05 - 0.01)
BY_HAND = {
    "log_growth": math.log(GROWTH),
    "excess_log_growth": math.log(GROWTH / 1.02),  # cash, +10 % and −4 % make +2 %
    "alpha": 0.04 - 0.03,
    "trading_cost": -KAPPA,
    "turnover": -0.75 * (1 - KAPPA),
    "drawdown": 2 * GROWTH / 4 - 1,
    "predicted_cvar": -(0.5 * 0.03 + 0.25 * 0.02),
    "forecast_uncertainty": -(0.5 * 0.1 + 0.25 * 0.4),
}


@BOTH
@pytest.mark.parametrize("name", TERMS)
def test_each_term_by_hand(xp, name):
    terms = reward_terms(inputs(xp), RewardConfig(**{name: 1.0}, scale=1.0))
    assert list(terms) == [name]
    assert_allclose(terms[name], [BY_HAND[name]], rtol=1e-12, atol=1e-15)


def test_every_term_has_a_weight_and_every_weight_a_term():
    assert set(TERMS) == {f.name for f in fields(RewardConfig)} - {"scale", "clip"} == set(BY_HAND)


@BOTH
def test_the_reward_is_the_scaled_weighted_sum_of_its_terms(xp):
    config = RewardConfig(log_growth=1.0, turnover=0.1, drawdown=0.5, scale=10.0)
    terms = reward_terms(inputs(xp), config)
    assert config.terms == tuple(terms) == ("log_growth", "turnover", "drawdown")
    by_hand = 10 * (BY_HAND["log_growth"] + 0.1 * BY_HAND["turnover"] + 0.5 * BY_HAND["drawdown"])
    assert_allclose(total_reward(terms, config), [by_hand])


@BOTH
def test_clipping_bounds_the_reward_and_leaves_the_terms_as_they_are(xp):
    config = RewardConfig(turnover=1.0, scale=100.0, clip=5.0)
    terms = reward_terms(inputs(xp), config)
    assert_allclose(total_reward(terms, config), [-5.0])
    assert_allclose(terms["turnover"], [100 * BY_HAND["turnover"]])


@BOTH
def test_shorts_carry_forecast_risk_by_their_size(xp):
    config = RewardConfig(predicted_cvar=1.0, scale=1.0)
    short = inputs(xp, target=(-0.5, 0.25))
    assert_allclose(reward_terms(short, config)["predicted_cvar"], [BY_HAND["predicted_cvar"]])


@BOTH
def test_ruin_costs_as_much_as_losing_all_but_a_millionth(xp):
    ruined = inputs(xp, held=(2.0, 0.0), target=(2.0, 0.0), gross=(0.1, 1.0))
    assert float(ruined.step.wealth[0]) < 0
    assert_allclose(reward_terms(ruined, RewardConfig(log_growth=1.0))["log_growth"], [100 * math.log(1e-6)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"turnover": -1.0, "alpha": 1.0},
            r"reward.turnover = -1.0; a weight is finite and ≥ 0 \(penalties carry their own minus",
        ),
        ({"alpha": float("nan")}, "reward.alpha = nan"),
        ({}, "reward has no term with a weight above 0. Set one of log_growth, excess_log_growth, alpha"),
        ({"alpha": 1.0, "scale": 0.0}, "reward.scale = 0.0; expected a finite number > 0"),
        ({"alpha": 1.0, "clip": -1.0}, "reward.clip = -1.0; expected > 0, or nothing for no clip"),
    ],
)
def test_a_bad_reward_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**settings)
