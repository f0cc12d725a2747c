"""What stands in report.json, manifests and metrics beside the verdict: windows, dearer trading, guards, overfitting."""

import json
import types

import numpy as np
import pandas as pd
import pytest

from rlplatform.evaluation.overfitting import backtest_overfitting
from rlplatform.experiments import training
from rlplatform.experiments.judged_report import guards_in_manifest, judge_and_report, report_details, sweep_overfitting
from rlplatform.experiments.judging import backtest, judge_policy
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.standing import Standing
from rlplatform.experiments.sweep_directory import SweepDirectory
from rlplatform.experiments.tracking import _of_verdict
from rlplatform.files import write_json, write_text
from rlplatform.models.policy import Policy
from tests.experiments.untrained import untrained_run

GUARDS = "env.guards={regime: {turnover_limit: 0.01}}"


@pytest.fixture(scope="module")
def guarded(small_yaml, tmp_path_factory):
    """A run with guards that hold now and then, judged and reported. Read only."""
    run = untrained_run(small_yaml, tmp_path_factory.mktemp("guarded"), GUARDS, judged=False)
    market, policy = prepare_market(run.config(), run.scaler()), Policy.load(run.policy)
    return run, market, policy, judge_and_report(run.config(), market, policy, run)


def test_report_json_has_windows_and_dearer_trading_of_the_judged_path(guarded):
    run, _, _, verdict = guarded
    content = json.loads((run.report / "report.json").read_text())
    windows, costs = content["hold_out"], content["cost_realism"]
    assert windows["all"]["windows"] == len(verdict.policy) - windows["length_bars"] + 1
    assert costs["benchmark"] == windows["benchmark"]
    own = next(row for row in costs["rows"] if row["name"] == "+ half spread")  # 1 + 1 bp: the run's own 2 bp
    assert own["commission_bps"] + own["half_spread_bps"] == 2
    assert own["total_return"] == pytest.approx(verdict.metrics["PPO_MLP"].total_return, rel=1e-6)
    assert content["left_out"] == []


def test_a_period_shorter_than_a_window_says_so_and_the_report_is_written(guarded):
    run, market, policy, _ = guarded
    config = run.config()
    verdict = judge_policy(config, market.tape, policy, "2003-07-01", "2003-07-31")
    details = report_details(config, market, verdict)
    assert details["hold_out"] is None
    assert details["left_out"][0].startswith("windows: windows.length_bars = 42;")


def test_guards_are_told_in_report_manifest_and_tracking_as_the_path_met_them(guarded):
    run, _, _, verdict = guarded
    found = verdict.policy.guard_summary
    assert 0 < found["guard_turnover_rate"] < 1
    assert found["guard_turnover_rate"] == np.mean(verdict.policy.guards["guard_turnover_rate"])
    assert 0 < found["guard_scale"] < 1
    assert json.loads((run.report / "report.json").read_text())["guards"] == found
    assert guards_in_manifest(verdict) == {"guards": found}
    assert found.items() <= _of_verdict(verdict)["summary"].items()


def test_a_run_without_guards_says_nothing_of_them(small_yaml, tmp_path):
    run = untrained_run(small_yaml, tmp_path, judged=False)
    policy, tape = Policy.load(run.policy), prepare_market(run.config(), run.scaler()).tape
    verdict = judge_policy(run.config(), tape, policy, "2003-07-01", "2003-07-31")
    assert guards_in_manifest(verdict) == {}
    assert "guards" not in verdict.to_dict()


def test_each_look_at_the_validation_period_tells_what_the_guards_did(guarded):
    run, market, policy, _ = guarded
    config, row = run.config(), {}
    training._look(config, market.tape, policy, types.SimpleNamespace(judge=None), Standing(), row)
    track = backtest(config, market.tape, policy, *config.split.validation)
    assert {name for name in row if name.startswith("validation_guard_")} == {f"validation_{n}" for n in track.guard_summary}
    assert row["validation_guard_turnover_rate"] == track.guard_summary["guard_turnover_rate"]


def test_a_sweep_s_manifest_gets_the_probability_of_overfitting_of_its_choice(tmp_path):
    sweep = SweepDirectory(tmp_path)
    write_text(tmp_path / "sweep.yaml", "search: {}\n")
    assert sweep_overfitting(sweep, 252) == {"probability": None}
    returns = 0.01 * np.random.default_rng(1).standard_normal((120, 6))
    pd.DataFrame(returns, columns=[f"{n:04d}" for n in range(6)]).to_parquet(tmp_path / "trial_returns.parquet")
    found = sweep_overfitting(sweep, 252)
    assert found["probability"] == backtest_overfitting(returns).probability
    assert (found["trials"], found["blocks"]) == (6, 16)
    pd.DataFrame(returns[:, :1], columns=["0000"]).to_parquet(tmp_path / "trial_returns.parquet")
    alone = sweep_overfitting(sweep, 252)
    assert alone["probability"] is None
    assert "expected (bars, trials ≥ 2)" in alone["left_out"]
    write_json(tmp_path / "manifest.json", {"overfitting": alone})
