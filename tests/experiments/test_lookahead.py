"""The proof passes our pipeline and catches ten planted leaks, each by name, row and day."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from rlplatform.cli import app
from rlplatform.data import load_prices
from rlplatform.experiments import lookahead
from rlplatform.experiments.config import load_config
from rlplatform.experiments.lookahead import Finding, LookaheadProof, Pipeline, prove
from rlplatform.experiments.lookahead_accounts import account_life, judged_env, statistics
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.features import FeatureBuilder
from rlplatform.features.lookahead import LookaheadError
from rlplatform.features.technical import ASSET_FEATURES, TechnicalFeature


@pytest.fixture(scope="module")
def config(small_yaml):
    return load_config(small_yaml, ["data.market=regimes"])


def only_finding(config, **parts) -> Finding:
    proof = prove(config, cuts=4, pipeline=Pipeline(**parts))
    assert len(proof.findings) == 1, [str(finding) for finding in proof.findings]
    return proof.findings[0]


def test_our_own_pipeline_is_clean_for_every_environment(config, small_yaml):
    regime = load_config(small_yaml, ["data.market=regimes", "env={id: MultiAssetRegime-v0, episode: {length_bars: 60}}"])
    pair = load_config(small_yaml, ["data.market=pair", "env={id: PairLeverage-v0, episode: {length_bars: 60}}"])
    for each in (config, regime, pair):
        proof = prove(each, cuts=4)
        assert proof.clean, [str(finding) for finding in proof.findings]
        assert set(proof.checks) == {"symbols", "features", "env", "execution", "scaler", "normaliser", "selection"}
        assert min(proof.checks.values()) > 0


# ── leaks in features: centred window, back-fill, shifted label, resampling, forecast ────────────────────────────────


def centred(gross):
    return pd.DataFrame(gross).rolling(5, center=True, min_periods=1).mean().to_numpy()


def back_filled(gross):
    monthly = np.where(np.arange(len(gross))[:, None] % 21 == 0, gross, np.nan)
    return pd.DataFrame(monthly).bfill().fillna(1.0).to_numpy()


def label(gross):
    return np.append(gross[1:], gross[-1:], axis=0)


def week_labelled_at_its_start(gross):
    days = pd.bdate_range("2000-01-03", periods=len(gross))
    weekly = pd.DataFrame(gross, index=days).cumprod().resample("W", label="left").last()
    return weekly.reindex(days, method="ffill").fillna(1.0).to_numpy()


def prepared_with(function):
    entry = TechnicalFeature(
        name="planted",
        group="trend",
        unit="−",
        description="a leak",
        function=lambda bars, window, config: function(bars.gross),
    )

    def prepare(config, scaler=None):
        prices = load_prices(config.data)
        cube = FeatureBuilder(config.features, asset_features=(*ASSET_FEATURES, entry)).build(prices)
        scaler = scaler or cube.fit_scaler(str(config.split.train[1]), str(config.split.train[0]))
        return Market(prices=prices, scaler=scaler, tape=cube.scaled(scaler).to_tape())

    return prepare


@pytest.mark.parametrize("function", [centred, back_filled, label, week_labelled_at_its_start])
def test_a_feature_that_peeks_is_named_with_row_day_and_asset(config, function):
    proof = prove(config, cuts=4, pipeline=Pipeline(prepare=prepared_with(function)))
    finding = next(finding for finding in proof.findings if finding.check == "features")
    assert finding.culprit == "planted"
    day, row, _ = finding.where.strip("[]").split(", ")
    assert day <= finding.changed_after
    dates = load_prices(config.data).dates
    assert str(dates[int(row.removeprefix("row "))])[:10] == day
    assert (np.busday_count(day, finding.changed_after)) <= 21  # a leak shows at the cut, not far before it


def test_a_causal_feature_of_ones_own_passes(config):
    assert prove(config, cuts=4, pipeline=Pipeline(prepare=prepared_with(lambda gross: gross.cumprod(0)))).clean


def test_a_forecast_whose_context_is_one_bar_too_long_is_named(config):
    def prepare(config, scaler=None):
        market = prepare_market(config, scaler)
        cvar = market.tape.forecast_cvar
        return replace(market, tape=replace(market.tape, forecast_cvar=np.append(cvar[1:], cvar[-1:], axis=0)))

    finding = prove(config, cuts=4, pipeline=Pipeline(prepare=prepare)).findings[0]
    assert (finding.check, finding.culprit) == ("features", "forecast_cvar")
    assert finding.changed_after in finding.where  # the very row of the cut saw the next one


# ── leaks of fitting: scaler, normaliser, early stopping, symbols ────────────────────────────────────────────────────


def test_a_scaler_fitted_on_all_rows_is_caught(config):
    def prepare(config, scaler=None):
        prices = load_prices(config.data)
        cube = FeatureBuilder(config.features).build(prices)
        scaler = scaler or cube.fit_scaler("2100-01-01")
        return Market(prices=prices, scaler=scaler, tape=cube.scaled(scaler).to_tape())

    finding = only_finding(config, prepare=prepare)
    assert (finding.check, finding.culprit) == ("scaler", "log_return_1")
    assert finding.changed_after == "2002-12-31"


def test_the_target_in_the_normaliser_is_caught(config):
    def normaliser(config, tape):
        first, last = tape.row_range(*map(str, config.split.train))
        rows = np.arange(first, last + 1)
        return statistics(np.column_stack([tape.features[rows, 0], tape.gross[rows + 1, 0]]), (*tape.feature_names, "target"))

    finding = only_finding(config, normaliser=normaliser)
    assert (finding.check, finding.culprit) == ("normaliser", "target")


def test_test_rows_in_early_stopping_are_caught(config):
    def selection(config, tape):
        first, last = tape.row_range(str(config.split.validation[0]), str(config.split.test[1]))
        return {"wealth": account_life(judged_env(config, tape, first, last), last - first + 1, 0)["wealth"]}

    finding = only_finding(config, selection=selection)
    assert (finding.check, finding.culprit, finding.changed_after) == ("selection", "wealth", "2003-06-30")


def test_a_list_of_the_symbols_that_survived_is_caught(config):
    def prepare(config, scaler=None):
        prices = load_prices(config.data)
        alive = np.sort(np.argsort(-prices.close[-1])[:2])
        chosen = prices.select([prices.symbols[i] for i in alive])
        return prepare_market(replace(config, data=lookahead.GivenPrices(prices=chosen)), scaler)

    finding = only_finding(config, prepare=prepare)
    assert finding.check == "symbols"
    assert finding.culprit in load_prices(config.data).symbols


# ── leaks of execution ───────────────────────────────────────────────────────────────────────────────────────────────


def test_same_bar_execution_on_a_signal_of_that_bars_close_is_caught(config):
    def same_bar(config, tape, first, last):
        env = judged_env(config, tape, first, last)
        env.accounts.gross = np.roll(env.accounts.gross, 1, axis=0)  # what is decided at t earns the bar that ends at t
        return env

    finding = only_finding(config, env=same_bar)
    assert (finding.check, finding.culprit) == ("execution", "wealth")
    assert finding.changed_after in finding.where


def test_an_observation_of_the_next_close_is_caught(config):
    def early(config, tape, first, last):
        env = judged_env(config, tape, first, last)
        env.accounts.market_table = np.roll(env.accounts.market_table, -1, axis=0)
        return env

    finding = only_finding(config, env=early)
    assert finding.check == "env"
    assert finding.culprit.startswith("observation ")


def test_a_pipeline_that_reads_other_prices_proves_nothing(config):
    market = prepare_market(config)
    with pytest.raises(LookaheadError, match="nothing at all moved"):
        prove(config, cuts=1, pipeline=Pipeline(prepare=lambda config, scaler=None: market))


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_passes_a_clean_config(small_yaml):
    done = CliRunner().invoke(app, ["lookahead", str(small_yaml), "--cuts", "2", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["clean"]
    assert len(answer["cuts"]) == 2


def test_the_command_names_the_culprit_and_its_row_and_ends_with_1(small_yaml, monkeypatch):
    finding = Finding(
        check="features", culprit="planted", where="[2001-02-03, row 7, A]", changed_after="2001-02-05", explanation="moves"
    )
    proof = LookaheadProof(checks={"features": 3}, cuts=("2001-02-05",), findings=(finding,))
    monkeypatch.setattr(lookahead, "prove", lambda config, cuts, seed: proof)
    done = CliRunner().invoke(app, ["lookahead", str(small_yaml)])
    assert done.exit_code == 1
    assert "features: planted [2001-02-03, row 7, A]: moves" in done.stdout
    assert dataclasses.asdict(finding) in json.loads(json.dumps(proof.to_dict()))["findings"]
