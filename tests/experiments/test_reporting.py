"""A run's page: collected from the run alone, and a clear line for what could not be found out."""

import json
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from envs.errors import ConfigError
from rlplatform import cli
from rlplatform.evaluation.html_report import render_html
from rlplatform.evaluation.shapley import ExplainConfig
from rlplatform.evaluation.stress import StressConfig
from rlplatform.experiments import reporting
from rlplatform.experiments.reporting import ReportConfig, collect, overfitting_of, report_run, scenarios_of, seeds_of
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.files import write_json
from tests.experiments.judged_runs import judged_run
from tests.experiments.untrained import untrained_run

GUARDS = "env.guards={regime: {}}"
QUICK = ReportConfig(stress=StressConfig(paths=1, bars=30, shocks=()), explain=ExplainConfig(exact_groups=1, permutations=4))


@pytest.fixture(scope="module")
def run(small_yaml, tmp_path_factory):
    return untrained_run(small_yaml, tmp_path_factory.mktemp("results"), GUARDS)


@pytest.fixture(scope="module")
def found(run):
    return collect(run, settings=QUICK)


def test_the_findings_are_those_of_the_runs_own_judgement(run, found):
    own = run.manifest()
    assert found.verdict.sentence == own["verdict"]
    assert found.evidence.sharpe == pytest.approx(own["test"]["sharpe"], rel=1e-12)
    assert found.hold_out.benchmark == found.costs.benchmark == found.benchmark
    assert len(found.regimes) == len(found.verdict.policy)
    assert set(found.superiority.compared) == {track.name for track in found.verdict.baselines}
    assert {row["part"] for row in found.guards.rows} >= {"whole period"}
    assert found.left_out == ()


def test_decisions_result_and_stress_are_on_the_page(run, found):
    own = run.manifest()["test"]
    assert found.result.total_return == pytest.approx(own["total_return"], rel=1e-9)
    assert found.decisions.dates[0] == found.verdict.policy.dates[0]
    assert found.stress.policy == found.verdict.policy.name
    assert found.stress.benchmark == found.benchmark
    assert (found.seeds, found.overfitting, found.walk) == (None, None, None)
    text = render_html(found)
    for heading in ("Why it decided so", "Where the result came from", "Stress"):
        assert f">{heading}</h2>" in text
    for heading in ("Seeds", "Walk-forward folds"):
        assert f">{heading}</h2>" not in text


def test_runs_of_the_same_setting_are_shown_as_a_distribution(monkeypatch, tmp_path):
    for number, sharpe in enumerate((0.5, 1.25, 0.75)):
        judged_run(tmp_path, f"small-{number}", sharpe=sharpe, seed=number)
    judged_run(tmp_path, "small-3", sharpe=9.0, costs=9)  # another setting
    judged_run(tmp_path, "small-4", sharpe=None)  # not judged
    monkeypatch.setattr(RunDirectory, "config", lambda run: SimpleNamespace(name="small"))
    found = seeds_of(RunDirectory(tmp_path / "small-2"))
    assert found.names == ("small-0", "small-1", "small-2")
    spread = found.spread["sharpe"]
    assert (spread.lowest, spread.median, spread.highest) == (0.5, 0.75, 1.25)
    assert found.own["sharpe"] == 0.75
    assert seeds_of(RunDirectory(tmp_path / "small-3")) is None


def test_a_winner_of_a_sweep_shows_how_much_its_choice_overfits(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "winner").mkdir()
    assert overfitting_of(tmp_path / "winner", 252) is None
    (tmp_path / "sweep.yaml").write_text("name: s\n", encoding="utf-8")
    pd.DataFrame(0.01 * rng.standard_normal((200, 30))).to_parquet(tmp_path / "trial_returns.parquet")
    found = overfitting_of(tmp_path / "winner", 252)
    assert (found.trials, found.blocks) == (30, 16)
    assert 0.1 < found.probability < 0.9  # luck chose


def test_the_costs_start_from_what_the_run_pays(run, found):
    scenarios = scenarios_of(2.0)
    assert (scenarios[0].commission_bps, scenarios[0].half_spread_bps) == (1.0, 0.0)
    assert (scenarios[1].commission_bps, scenarios[1].half_spread_bps) == (1.0, 1.0)
    assert scenarios_of(0.5)[1].costs.proportional_bps == 0.5
    assert found.costs.rows[1].metrics.sharpe == pytest.approx(run.manifest()["test"]["sharpe"], rel=1e-6)


def test_a_test_period_too_short_for_windows_is_reported_with_the_reason(small_yaml, tmp_path):
    short = untrained_run(small_yaml, tmp_path, "split.test=[2003-07-01, 2003-08-15]")
    found = collect(short, settings=QUICK)
    assert found.hold_out is None
    assert found.guards is None
    assert any(line.startswith("hold-out windows: windows.length_bars = 42") for line in found.left_out)
    assert "Left out: hold-out windows" in report_run(short.path, settings=QUICK).read_text(encoding="utf-8")


def test_a_run_without_a_policy_is_refused(small_yaml, tmp_path):
    from rlplatform.experiments.config import load_config

    run = RunDirectory.create(load_config(small_yaml, [f"results_dir={tmp_path}"]))
    with pytest.raises(ConfigError, match="no trained policy yet"):
        report_run(run.path)


def test_the_command_writes_the_page_with_what_offline_evaluation_found(run, monkeypatch, capsys):
    measured = {"value": 1.0, "standard_error": 0.1, "episodes": 3}
    estimate = {"name": "doubly_robust", "value": 1.25, "low": 1.0, "high": 1.5}
    run.report.mkdir(exist_ok=True)
    write_json(run.report / "off_policy.json", {"estimates": [estimate], "truth": measured, "logged": measured})
    monkeypatch.setattr(reporting, "ReportConfig", lambda: QUICK)
    monkeypatch.setattr(sys, "argv", ["rlplatform", "report", str(run.path), "--json"])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    page = json.loads(capsys.readouterr().out)["page"]
    assert page == str(run.report / "report.html")
    text = (run.report / "report.html").read_text(encoding="utf-8")
    assert "doubly_robust" in text
    assert "1.25" in text
    assert ">Guards</h2>" in text
