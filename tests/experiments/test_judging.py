"""Judging: the policy and every baseline on the same days; what was seen in training is not called a test."""

import dataclasses
import json

import numpy as np
import pytest

from envs.constraints import ConstraintsConfig
from envs.errors import ConfigError, MarketDataError
from envs.liquidity import LiquidityConfig
from envs.terms import CostConfig
from rlplatform.data import FolderConfig
from rlplatform.experiments.config import load_config
from rlplatform.experiments.evaluating import baselines_table, evaluate_run
from rlplatform.experiments.judging import (
    IN_SAMPLE,
    OUT_OF_SAMPLE,
    check_judging,
    judge_policy,
    named_regimes,
    sample_of,
    whole_period,
)
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.optimum import optimal_log_growth
from rlplatform.experiments.run_directory import RunDirectory

TRIO = ("SPY", "QQQ", "IWM")


@pytest.mark.parametrize(
    ("start", "end", "spy", "qqq", "iwm"),
    [("2015-01-01", "2019-12-31", 72.89, 116.44, 49.17), ("2020-01-01", "2024-12-31", 94.58, 143.86, 42.16)],
)
def test_buy_and_hold_without_costs_returns_what_design_says(shared_equities, start, end, spy, qqq, iwm):
    source = FolderConfig(path=str(shared_equities), symbols=TRIO)
    table = baselines_table(source, start, end, CostConfig(proportional_bps=0)).metrics
    found = [100 * table[f"ALL_{symbol}"].total_return for symbol in TRIO]
    np.testing.assert_allclose(found, [spy, qqq, iwm], atol=0.1)


def test_three_assets_are_judged_against_the_sixteen_regimes_too(shared_equities):
    table = baselines_table(FolderConfig(path=str(shared_equities), symbols=TRIO), "2024-01-01", "2024-06-30").metrics
    assert {"REGIME_GROWTH_TILT", "REGIME_SPY_QQQ_50", "EQUAL_WEIGHT", "MIN_CVAR", "CASH"} <= set(table)
    assert named_regimes(("A", "B", "C"))["A_B_50"] == (0.0, 0.5, 0.5, 0.0)


def test_a_period_that_ends_before_it_starts_is_refused(small_yaml):
    with pytest.raises(ConfigError, match=r"start = 2004-01-01 is after end = 2003-01-01. Swap them"):
        baselines_table(load_config(small_yaml).data, "2004-01-01", "2003-01-01")


class Invested:
    """Asks for everything in the asset, always."""

    def initial_state(self, batch):
        return None

    def act(self, obs, state, deterministic):
        return np.tile([0.0, 1.0], (len(obs), 1)), state, {}


def test_baselines_trade_in_the_market_that_the_policy_trades_in(small_yaml, tmp_path):
    """With an account of a million and a hundredth of the volume, nobody is invested at the first close."""
    config = load_config(small_yaml)
    prices = prepare_market(config).prices
    frame = prices.to_frame().rename(columns={prices.symbols[0]: "close"})
    frame.assign(volume=1e6 / frame["close"]).to_csv(tmp_path / f"{prices.symbols[0]}.csv")
    limit = ConstraintsConfig(liquidity=LiquidityConfig(capital=1e6, participation=0.01))
    config = dataclasses.replace(
        config,
        data=FolderConfig(path=str(tmp_path), calendar=None),
        env=dataclasses.replace(config.env, constraints=limit),
        features=dataclasses.replace(config.features, groups=("returns",)),
    )
    verdict = judge_policy(config, prepare_market(config).tape, Invested(), *config.split.test)
    held = next(track for track in verdict.baselines if track.name == "ALL_MOM").weights[:, 0]
    np.testing.assert_allclose(held[:20], verdict.policy.weights[:20, 0], atol=1e-6)
    np.testing.assert_allclose(held[:3], [0.01, 0.02, 0.03], atol=2e-3)
    assert "trades at most 0.01 of an asset's value traded" in " ".join(verdict.notes)


@pytest.mark.parametrize(
    ("start", "end", "sample"),
    [
        ("2003-07-01", "2004-06-30", OUT_OF_SAMPLE),
        ("2003-06-30", "2004-06-30", IN_SAMPLE),  # the last validation day
        ("2001-01-01", "2001-12-31", IN_SAMPLE),
        ("1999-01-01", "2000-06-01", IN_SAMPLE),  # the first training day
        ("1999-01-01", "2000-05-31", OUT_OF_SAMPLE),
    ],
)
def test_days_that_training_or_validation_saw_are_no_test(small_yaml, start, end, sample):
    assert sample_of(load_config(small_yaml).split, start, end) == sample


def test_a_gate_against_an_unknown_baseline_is_refused_before_the_training(small_yaml):
    config = load_config(small_yaml, ["evaluation.gate.benchmark=ALL_SPY"])
    with pytest.raises(ConfigError, match=r"gate.benchmark: ALL_SPY is not among the baselines: ALL_MOM, CASH"):
        check_judging(config, ("MOM",))


def test_judging_walks_the_whole_period_in_order(small_yaml):
    env = whole_period(load_config(small_yaml).env)
    assert env.episode.length_bars is None
    assert not env.episode.random_start


def test_evaluate_finds_the_figures_that_training_printed(trained):
    again = evaluate_run(RunDirectory.open(trained.path))
    assert again.sentence == trained.verdict.sentence
    assert again.table.to_dict() == trained.verdict.table.to_dict()
    assert again.gate.to_dict() == trained.verdict.gate.to_dict()


def test_policy_and_baselines_share_their_days_and_costs(trained):
    for track in trained.verdict.baselines:
        np.testing.assert_array_equal(track.dates, trained.verdict.policy.dates)
    first, last = (str(date)[:10] for date in trained.verdict.policy.dates[[0, -1]])
    assert (first, last) == ("2003-07-01", "2004-06-30")
    bought = next(track for track in trained.verdict.baselines if track.name == "ALL_MOM")
    np.testing.assert_allclose(bought.cost.sum(), 2e-4, rtol=1e-3)  # 2 bp, once


def test_on_a_planted_market_the_verdict_says_how_much_of_the_known_optimum_was_reached(trained):
    verdict, config = trained.verdict, trained.job.config
    closes, dates = trained.job.market.prices.close[:, 0], trained.job.market.prices.dates
    log_return = np.diff(np.log(closes))
    mean = 0.5 * log_return[:-1]  # φ r_t; the optimum in the market's own continuous limit: all in or all out, by its sign
    days = (dates[1:-1] >= verdict.policy.dates[0]) & (dates[1:-1] < verdict.policy.dates[-1])
    by_sign = float(np.where(mean[days] + 2e-4 > 0, log_return[1:][days], 0.0).sum())
    assert verdict.optimal_growth == pytest.approx(by_sign, rel=0.1)  # the exact one holds fractions near zero
    assert verdict.share_of_optimum == pytest.approx(np.log(verdict.policy.wealth[-1]) / verdict.optimal_growth)
    assert f"{100 * verdict.share_of_optimum:.1f} % of the known optimum's growth.".replace("-", "−") in verdict.sentence
    manifest = RunDirectory.open(trained.path).manifest()
    assert manifest["share_of_optimum"] == pytest.approx(verdict.share_of_optimum)
    assert config.data.market == "momentum"


def test_without_anything_to_learn_there_is_no_share_of_an_optimum(small_yaml):
    config = load_config(small_yaml, ["data.market=no_signal"])
    tape = prepare_market(config).tape
    assert optimal_log_growth(config, tape, *config.split.test) is None
    real = dataclasses.replace(config, data=FolderConfig(path="nowhere", symbols=("A",)))
    assert optimal_log_growth(real, tape, *config.split.test) is None


def test_evaluate_on_training_days_says_so(trained):
    sentence = evaluate_run(RunDirectory.open(trained.path), start="2001-01-01", end="2001-12-31").sentence
    assert sentence.startswith("In sample (training or validation saw these days), 2001-01-01 to 2001-12-31")


def write_prices(folder, market, symbol="MOM"):
    folder.mkdir()
    market.prices.to_frame().set_axis(["close"], axis=1).to_csv(folder / f"{symbol}.csv")
    return folder


def test_other_prices_that_are_the_same_give_the_same_figures(trained, tmp_path):
    folder = write_prices(tmp_path / "prices", trained.job.market)
    found = evaluate_run(RunDirectory.open(trained.path), folder, "2003-07-01", "2004-06-30")
    ours, theirs = found.metrics["PPO_GRU"], trained.verdict.metrics["PPO_GRU"]
    np.testing.assert_allclose(ours.total_return, theirs.total_return, rtol=1e-9)
    np.testing.assert_allclose(ours.sharpe, theirs.sharpe, rtol=1e-9)


def test_other_prices_that_lack_a_symbol_are_refused(trained, tmp_path):
    folder = write_prices(tmp_path / "prices", trained.job.market, symbol="SPY")
    with pytest.raises(MarketDataError, match=r"has no 'MOM'; it has SPY"):
        evaluate_run(RunDirectory.open(trained.path), folder)


def test_days_outside_the_prices_are_refused(trained):
    with pytest.raises(MarketDataError, match="holds 0 of the tape's rows"):
        evaluate_run(RunDirectory.open(trained.path), start="2060-01-01")


def test_a_report_of_an_evaluation_goes_where_it_is_told(trained, tmp_path):
    evaluate_run(RunDirectory.open(trained.path), report=tmp_path / "report")
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["verdict"] == trained.verdict.sentence
    assert content["sample"] == OUT_OF_SAMPLE


def test_the_report_draws_the_way_before_the_test(trained):
    from rlplatform.experiments.judging import with_earlier
    from rlplatform.models.policy import Policy

    job = trained.job
    verdict = with_earlier(job.config, job.market.tape, Policy.load(job.run.policy), trained.verdict)
    names = [track.name for track in verdict.earlier]
    assert names[0] == verdict.policy.name
    assert set(names[1:]) == set(verdict.main_names)
    for track in verdict.earlier:
        assert str(track.dates[0])[:10] == "2000-06-01"
        assert track.dates[-1] == verdict.policy.dates[0]
    assert dataclasses.replace(verdict, earlier=()).table.to_dict() == trained.verdict.table.to_dict()
