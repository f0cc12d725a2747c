"""Specialists: one symbol's rows, the last of which choose; a model for each symbol in features and in the store."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from envs.errors import ConfigError, MarketDataError
from rlplatform.data.prices import Prices
from rlplatform.features.forecasts import registry
from rlplatform.features.forecasts.chronos import ChronosBackend, of_symbol
from rlplatform.features.forecasts.chronos_finetuning import (
    Choice,
    FinetuneConfig,
    choice_windows,
    finetune_forecaster,
    parent_sidecar,
)
from rlplatform.features.forecasts.chronos_training import ForecasterError, ForecasterTrainingConfig, train_forecaster
from rlplatform.features.forecasts.comparison import difference
from rlplatform.features.forecasts.config import ChronosConfig
from rlplatform.features.forecasts.forecast import LEVELS, key_of
from rlplatform.features.forecasts.panel import forecast_panel, statistics_name
from rlplatform.features.forecasts.registry import leaf
from rlplatform.features.forecasts.specialists import generic_model, specialists_at, specialists_forecast
from rlplatform.features.forecasts.store import FeatureStore
from rlplatform.features.forecasts.worker import ShardWorker
from tests.features.forecasts.conftest import days, forecast_of, prices_with, returns_with_clusters, small

TINY = ForecasterTrainingConfig(
    d_model=16, num_layers=1, num_heads=2, d_ff=32, context=32, patch=8, horizon=3, min_past=24, steps=30, batch_size=16
)


# Which rows teach and which choose


def test_windows_end_before_the_values_that_choose_and_those_are_the_last_rows():
    z = np.arange(100, dtype=np.float32)
    windows, targets = choice_windows(z, TINY, choice_bars=10)
    assert windows.shape == (8, 32)  # ten rows hold eight runs of three
    assert (windows[0, -1], targets[0].tolist()) == (89, [90, 91, 92])
    assert (windows[-1, -1], targets[-1].tolist()) == (96, [97, 98, 99])
    assert (targets >= 90).all()


@pytest.mark.parametrize("choice_bars", [2, 95])
def test_too_few_rows_to_learn_from_or_to_choose_with_are_refused(choice_bars):
    with pytest.raises(MarketDataError, match=rf"100 rows, {choice_bars} of them to choose"):
        choice_windows(np.zeros(100, np.float32), TINY, choice_bars)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"warmup_steps": -1}, "at least 0"),
        ({"looks": 0}, "looks"),
    ],
)
def test_a_finetuning_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**changed)


def test_a_folder_without_our_sidecar_is_no_parent(tmp_path):
    with pytest.raises(ConfigError, match=r"is no forecaster of `rlplatform forecast train`: it has no forecaster\.json"):
        parent_sidecar(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "forecaster.json").write_text("{}")
    assert generic_model(tmp_path) == tmp_path / "model"
    with pytest.raises(ConfigError, match="holds no specialists"):
        specialists_at(tmp_path / "model")


@pytest.mark.slow
def test_a_specialist_goes_on_from_its_parent_and_reads_no_row_after_training(tmp_path):
    pytest.importorskip("chronos")
    returns = returns_with_clusters(0)
    train_forecaster(days(), returns, "2019-03-01", tmp_path / "generic", TINY)
    config = FinetuneConfig(steps=12, looks=3, choice_bars=60, learning_rate=1e-3)
    made = finetune_forecaster(days(), returns[:, 0], "SPY", "2019-03-01", tmp_path / "generic", tmp_path / "SPY", config)
    assert [step for step, _ in made.looks] == [0, 4, 8, 12]
    assert dict(made.looks)[made.chosen_step] == min(dict(made.looks).values())
    about = json.loads((tmp_path / "SPY" / "forecaster.json").read_text())
    assert (about["train_end"], about["symbol"], len(about["parent_sha256"])) == ("2019-03-01", "SPY", 64)

    shocked = returns[:, 0].copy()
    shocked[days() > np.datetime64("2019-03-01")] *= 7
    again = finetune_forecaster(days(), shocked, "SPY", "2019-03-01", tmp_path / "generic", tmp_path / "again", config)
    assert again.sha256 == made.sha256  # to the bit

    rows = np.flatnonzero(days() <= np.datetime64("2019-03-01"))[-60:]
    moved = returns[:, 0].copy()
    moved[rows] *= 3
    other = finetune_forecaster(days(), moved, "SPY", "2019-03-01", tmp_path / "generic", tmp_path / "other", config)
    assert other.losses == made.losses  # the rows that choose teach nothing
    assert other.looks != made.looks

    wild = replace(config, learning_rate=10.0)
    with pytest.raises(
        ForecasterError, match=r"not finite numbers; nothing is saved\. Lower forecast\.finetune\.learning_rate"
    ):
        finetune_forecaster(days(), returns[:, 0], "SPY", "2019-03-01", tmp_path / "generic", tmp_path / "wild", wild)
    assert not (tmp_path / "wild").exists()


class Shifted:
    """A pipeline whose median is the model's one weight; no package is needed."""

    def __init__(self, model):
        self.model = model

    def predict_quantiles(self, inputs, prediction_length, quantile_levels, batch_size):
        at = torch.tensor(quantile_levels) - 0.5 + self.model.weight[0, 0]
        return [at.expand(1, prediction_length, -1) for _ in inputs], None


def test_the_best_of_the_looks_comes_back_and_the_generic_weights_where_nothing_was_better():
    windows, targets = np.zeros((4, 8), np.float32), np.zeros((4, 3), np.float32)
    for path, chosen in (((3.0, 2.0, 1.0, 2.5), 2), ((0.5, 2.0, 1.0, 2.5), 0)):
        model, choice = torch.nn.Linear(1, 1, bias=False), Choice(Shifted, windows, targets, every=1)
        for step, weight in enumerate(path):
            torch.nn.init.constant_(model.weight, weight)
            choice.look(model, step)
        choice.restore(model)
        assert (choice.step, model.weight.item()) == (chosen, path[chosen])
        assert model.training


# A model for each symbol


class Wide(ChronosBackend):
    """Answers with a spread that its folder names; no package is needed."""

    def predict(self, contexts):
        spread = self.sidecar["spread"] * (np.array(LEVELS) - 0.5)
        return np.broadcast_to(spread, (len(contexts), self.draws.steps, len(LEVELS)))


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Folders "generic", "SPY" and "QQQ", whose forecasts are 1, 2 and 3 wide."""
    monkeypatch.setattr(registry, "ChronosBackend", Wide)
    for spread, name in enumerate(("generic", "SPY", "QQQ"), start=1):
        (tmp_path / name).mkdir()
        (tmp_path / name / "forecaster.json").write_text(json.dumps({"train_end": "2018-12-31", "spread": spread}))
    return tmp_path


def settings(models, path="generic", paths=("SPY",), **changes):
    own = {symbol: str(models / symbol) for symbol in paths}
    chronos = ChronosConfig(path=None if path is None else str(models / path), paths=own, context=64, min_history=32)
    return small(backend="chronos", chronos=chronos, store=str(models / "store"), **changes)


def test_each_symbol_is_forecast_by_its_own_model_and_others_by_the_generic_one(models, returns):
    prices = prices_with(returns)  # SPY and BTC/USD
    panel = forecast_panel(prices, settings(models))
    alone = {
        symbol: forecast_panel(prices, settings(models, path=folder, paths=()))
        for symbol, folder in (("SPY", "SPY"), ("BTC/USD", "generic"))
    }
    for column, symbol in enumerate(prices.symbols):
        assert_allclose(panel.forecast.quantiles[:, column], alone[symbol].forecast.quantiles[:, column])
    generic = forecast_panel(prices, settings(models, paths=()))
    assert not np.allclose(panel.forecast.quantiles[-1, 0], generic.forecast.quantiles[-1, 0])


def test_the_store_keeps_each_model_under_its_own_key_and_has_all_afterwards(models, returns):
    prices, config = prices_with(returns), settings(models)
    store, backend = FeatureStore(models / "store"), leaf("chronos", config)
    worker, log_returns = ShardWorker(config, str(store.root)), returns
    for unit in store.stock(backend, prices.dates, prices.symbols, log_returns).units:
        worker.complete(unit, prices.dates, prices.symbols, log_returns)
    folders = {path.name for path in (store.root / "forecasts").iterdir()}
    assert folders == {f"chronos-{key_of(of_symbol(backend, symbol))}" for symbol in prices.symbols}
    assert len(folders) == 2
    stock = store.stock(leaf("chronos", config), prices.dates, prices.symbols, log_returns)
    assert (stock.units, stock.reused) == ((), 2 * len(prices))
    other = store.stock(leaf("chronos", settings(models, paths=())), prices.dates, prices.symbols, log_returns)
    assert {unit.symbol for unit in other.units} == {"SPY"}  # the generic one's of BTC/USD are there
    assert statistics_name(config) != statistics_name(settings(models, paths=()))


def test_a_symbol_without_any_model_and_a_question_without_a_symbol_are_one_line(models, returns):
    backend = leaf("chronos", settings(models, path=None))
    with pytest.raises(ConfigError, match=r"paths has no model of QQQ, and chronos\.path none for the others"):
        of_symbol(backend, "QQQ")
    with pytest.raises(ConfigError, match="asked one by one"):
        backend.forecast(days(), returns, np.array([400]))
    assert backend.absence() == ""
    gone = settings(models)
    missing = replace(gone, chronos=replace(gone.chronos, path=None, paths={}))
    assert leaf("chronos", missing).absence() == "absent (no path given)"


def test_horizons_that_one_specialist_never_learnt_are_refused(models):
    (models / "SPY" / "forecaster.json").write_text(json.dumps({"training": {"horizon": 2}}))
    with pytest.raises(ConfigError, match=r"reach 3 bars; .*SPY has learnt 2"):
        leaf("chronos", settings(models)).check()


def test_no_later_return_moves_what_the_specialists_say(models, returns):
    prices, config = prices_with(returns), settings(models)
    shocked = returns.copy()
    shocked[301:] *= 5
    rows = np.array([250, 300])
    one = specialists_forecast(config, dict(config.chronos.paths), prices, returns, rows)
    two = specialists_forecast(config, dict(config.chronos.paths), prices, shocked, rows)
    assert one.known.all()
    assert_allclose(one.quantiles, two.quantiles, rtol=0)


# Whether a specialist is any better


def test_the_difference_of_two_forecasters_is_that_of_their_crps_with_an_interval():
    """One symbol's quantiles are all 0 where the outcome is 0, the other's are 1 % off: a gain of 100 % on the first alone."""
    rng, rows = np.random.default_rng(0), 300
    outcome = 1e-3 * rng.standard_normal((rows, 2, 1))
    near = np.broadcast_to(np.array(LEVELS) * 1e-4, (rows, 2, 1, len(LEVELS))).copy()
    far = near.copy()
    far[:, 0] += 0.01 + 1e-3 * rng.standard_normal((rows, 1, 1))
    everything, first, second = difference(forecast_of(near), forecast_of(far), outcome, ("A", "B"), (0, 1))
    assert (everything.symbol, first.symbol, second.symbol) == ("all", "A", "B")
    assert first.low < first.gain_percent < first.high
    assert first.gain_percent == pytest.approx(90, abs=5)
    assert first.dm_t > 20
    assert (second.gain_percent, second.low, second.high, second.days) == (0.0, 0.0, 0.0, rows)
    assert np.isnan(second.dm_t)
    assert 0 < everything.gain_percent < first.gain_percent
    swapped = difference(forecast_of(far), forecast_of(near), outcome, ("A", "B"), (0,))[0]
    assert swapped.gain_percent < 0
    assert json.dumps(second.to_dict(), allow_nan=False)


def test_days_without_an_outcome_count_for_nothing():
    quantiles = np.broadcast_to(np.array(LEVELS), (30, 1, 1, len(LEVELS))).copy()
    outcome = np.full((30, 1, 1), np.nan)
    (row, _) = difference(forecast_of(quantiles), forecast_of(quantiles), outcome, ("A",), (0,))
    assert row.days == 0
    assert np.isnan(row.gain_percent)


def test_prices_and_their_symbols_stay_what_they_are(models, returns):
    """A pair in the other order gets each its own model still."""
    prices = prices_with(returns)
    turned = Prices(dates=prices.dates, symbols=prices.symbols[::-1], close=prices.close[:, ::-1])
    config = settings(models)
    one, two = forecast_panel(prices, config), forecast_panel(turned, config)
    assert_allclose(one.forecast.quantiles[:, 0], two.forecast.quantiles[:, 1])
    assert dataclasses.asdict(config.chronos)["paths"] == {"SPY": str(models / "SPY")}
