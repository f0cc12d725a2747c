"""Prices become a tape, scaled by training rows only."""

import dataclasses

import numpy as np
import pytest

from envs.constraints import ConstraintsConfig
from envs.errors import MarketDataError
from envs.liquidity import LiquidityConfig
from rlplatform.data import FolderConfig
from rlplatform.experiments.config import load_config
from rlplatform.experiments.market import prepare_market, tape_of, volume_features
from rlplatform.features.lookahead import assert_causal
from tests.experiments.perturbed import PerturbedMarket


@pytest.fixture(scope="module")
def config(small_yaml):
    return load_config(small_yaml)


@pytest.fixture(scope="module")
def market(config):
    return prepare_market(config)


def test_the_tape_holds_every_row_and_the_scaler_training_rows_only(config, market):
    assert len(market.tape) == len(market.prices.dates)
    assert market.scaler.fitted_from >= str(config.split.train[0])
    assert market.scaler.fitted_to <= str(config.split.train[1])
    assert market.tape.gross.shape == (1200, 1)
    np.testing.assert_array_equal(market.tape.gross, market.prices.gross())


def test_features_of_training_rows_have_mean_0_and_standard_deviation_1(config, market):
    first, last = market.tape.row_range(*map(str, config.split.train))
    rows = market.tape.features[first : last + 1, :, market.tape.feature_names.index("log_return_1")]
    assert abs(rows.mean()) < 0.02
    assert abs(rows.std() - 1) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_prices_after_training_change_neither_scaler_nor_training_tape(config, market, seed):
    other = prepare_market(dataclasses.replace(config, data=PerturbedMarket(inner=config.data, after="2002-12-31", seed=seed)))
    assert other.tape.sha256 != market.tape.sha256
    assert other.scaler == market.scaler
    end = str(config.split.train[1])
    assert other.tape.between(None, end).sha256 == market.tape.between(None, end).sha256


def test_a_scaler_of_an_earlier_run_is_used_as_it_is(config, market):
    shorter = dataclasses.replace(config, data=dataclasses.replace(config.data, bars=1100))
    again = prepare_market(shorter, market.scaler)
    assert again.scaler is market.scaler
    np.testing.assert_array_equal(again.tape.features, market.tape.features[:1100])


def test_a_period_without_prices_is_named(config):
    with pytest.raises(MarketDataError, match=r"split.test = \[2003-07-01, 2004-06-30\] holds 0 of the tape's rows"):
        prepare_market(dataclasses.replace(config, data=dataclasses.replace(config.data, bars=800)))


def test_prices_with_volume_can_be_judged_by_a_policy_that_learnt_without(config, market, tmp_path):
    prices = market.prices
    table = prices.to_frame().rename(columns={prices.symbols[0]: "close"}).assign(volume=1000.0)
    table.to_csv(tmp_path / f"{prices.symbols[0]}.csv")
    folder = dataclasses.replace(config, data=FolderConfig(path=str(tmp_path), calendar=None))
    assert volume_features(config.features) & set(prepare_market(folder).tape.feature_names)
    again = prepare_market(folder, market.scaler)
    assert again.tape.feature_names == market.tape.feature_names


def test_a_liquidity_limit_gets_the_value_traded_and_nothing_else_does(config, market, tmp_path):
    prices = market.prices
    volume = np.random.default_rng(0).uniform(0, 1e6, len(prices))
    prices.to_frame().rename(columns={prices.symbols[0]: "close"}).assign(volume=volume).to_csv(
        tmp_path / f"{prices.symbols[0]}.csv"
    )
    limit = ConstraintsConfig(liquidity=LiquidityConfig(capital=1e8))
    limited = dataclasses.replace(config, env=dataclasses.replace(config.env, constraints=limit))
    folder = FolderConfig(path=str(tmp_path), calendar=None)
    again = prepare_market(dataclasses.replace(limited, data=folder), market.scaler)
    np.testing.assert_allclose(again.tape.dollar_volume[:, 0], prices.close[:, 0] * volume)
    plain = prepare_market(dataclasses.replace(config, data=folder), market.scaler)
    assert plain.tape.dollar_volume is None
    assert_causal(lambda given: tape_of(limited, given, market.scaler), again.prices, (30, 600), np.random.default_rng(1))
    with pytest.raises(MarketDataError, match="needs the value traded in each bar, and these prices have"):
        prepare_market(limited)
