import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.algorithms.pretraining import PretrainConfig
from rlplatform.data import load_prices
from rlplatform.evaluation.shapley import ExplainConfig
from rlplatform.evaluation.stress import StressConfig
from rlplatform.experiments.benchmarking import load_bench, run_bench
from rlplatform.experiments.collecting import CollectConfig, collect_dataset
from rlplatform.experiments.comparing import compare_runs
from rlplatform.experiments.config import load_config
from rlplatform.experiments.ensembling import make_ensemble, plan_ensemble
from rlplatform.experiments.evaluating import evaluate_run
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.registry import setting_of, trials_of, update_registry
from rlplatform.experiments.reporting import ReportConfig, collect
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.stressing import stress_run
from rlplatform.experiments.teachers import teachers
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.files import directory_sha256, write_json, write_text
from rlplatform.models.ensemble import Ensemble, load_policy
from rlplatform.offline.reading import read_dataset
from tests.experiments.untrained import untrained_run

QUICK = ReportConfig(stress=StressConfig(paths=1, bars=30, shocks=()), explain=ExplainConfig(exact_groups=1, permutations=4))
NO_COSTS = "env.costs.proportional_bps=0.0"


@pytest.fixture(scope="module")
def members(small_yaml, tmp_path_factory):
    results = tmp_path_factory.mktemp("members")
    return [untrained_run(small_yaml, results, NO_COSTS, seed=seed, judged=False) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def ensemble(members):
    """Run directory and verdict. Read only."""
    return make_ensemble(plan_ensemble([member.path for member in members]))


def test_an_ensemble_trades_the_mean_of_its_members_weights_and_leaves_a_run_like_any_other(members, ensemble):
    run, verdict = ensemble
    config, tape = run.config(), prepare_market(run.config(), run.scaler()).tape
    tracks = [backtest(member.config(), tape, load_policy(member.policy), *config.split.test) for member in members]
    assert_allclose(verdict.policy.weights[0], np.mean([track.weights[0] for track in tracks], axis=0), atol=1e-6)
    assert verdict.policy.name == "ENSEMBLE_OF_3"
    assert isinstance(load_policy(run.policy), Ensemble)
    assert (run.report / "report.md").is_file()
    manifest = run.manifest()
    assert (manifest["status"], manifest["seeds"]) == ("finished", [0, 1, 2])
    assert manifest["test"]["sharpe"] == verdict.metrics["ENSEMBLE_OF_3"].sharpe
    assert [entry["policy_sha256"] for entry in manifest["ensemble"]["members"]] == [
        directory_sha256(member.policy) for member in members
    ]


def test_it_counts_its_members_as_trials_and_is_no_seed_of_their_setting(members, ensemble, tmp_path):
    run, _ = ensemble
    assert trials_of(run.path).count == 3
    assert len({setting_of(member.path) for member in members}) == 1
    write_text(tmp_path / "config.yaml", (run.path / "config.yaml").read_text())  # the same config without members
    assert setting_of(run.path) != setting_of(tmp_path)
    rows = update_registry(run.path.parent).set_index("run")
    assert rows.loc[run.name, "trials"] == 3
    assert rows.loc[run.name, "setting"] == setting_of(run.path)


def test_members_of_one_sweep_count_its_trials_once(members, small_yaml, tmp_path):
    write_text(tmp_path / "sweep.yaml", "")
    write_json(tmp_path / "manifest.json", {"num_trials": 12})
    arms = [untrained_run(small_yaml, tmp_path / f"arm{seed}", NO_COSTS, seed=seed, judged=False) for seed in (3, 4)]
    plan = plan_ensemble([arm.path for arm in (*arms, members[0])], out=tmp_path / "out", name="both")
    assert plan.num_trials == 12 + 1
    assert (plan.config.name, plan.config.results_dir) == ("both", str(tmp_path / "out"))


def test_commands_take_it(members, ensemble, typed):
    run, verdict = ensemble
    code, out, _ = typed("evaluate", run.path, "--json")
    assert code == 0
    assert "ENSEMBLE_OF_3" in out
    assert json.loads(out)["verdict"] == verdict.sentence
    found = compare_runs([run.path, members[0].path])
    assert [contender.trials.count for contender in found.contenders] == [3, 1]
    code, out, error = typed("ensemble", members[0].path)
    assert (code, out) == (2, "")
    assert "1 run given; an ensemble needs at least two" in error
    assert error.count("\n") == 1


def test_resuming_it_says_what_to_do(ensemble, typed):
    code, out, error = typed("train", "--resume", ensemble[0].path)
    assert (code, out) == (2, "")
    assert "is an ensemble and has no training to go on with. Resume its members" in error
    assert "rlplatform ensemble RUN_DIR RUN_DIR" in error


@pytest.mark.slow
def test_court_and_proofs_take_it(members, ensemble, typed, tmp_path):
    run, _ = ensemble
    code, out, _ = typed("evaluate", run.path, "--check")
    assert code in (0, 1)
    assert "not_collapsed" in out
    prices = load_prices(run.config().data)
    prices.to_frame().rename(columns={prices.symbols[0]: "close"}).to_csv(tmp_path / f"{prices.symbols[0]}.csv")
    other = evaluate_run(run, tmp_path, "2003-07-01", "2004-06-30")
    assert other.policy.name == "ENSEMBLE_OF_3"
    assert_allclose(other.policy.wealth, ensemble[1].policy.wealth)
    code, out, _ = typed("guards", "ab", run.path, "--json")
    assert code == 0
    assert json.loads(out)["windows"]
    code, out, _ = typed("compare", run.path, members[0].path, "--json")
    assert code == 0
    assert run.name in out
    code, out, _ = typed("scoreboard", run.path.parent, "--json")
    assert code == 0
    assert run.name in out
    code, _, error = typed("offline", "evaluate", run.path)
    assert code == 2
    assert error.count("\n") == 1


@pytest.mark.slow
def test_explanation_stress_benchmark_and_page_take_it(ensemble, tmp_path):
    run, verdict = ensemble
    assert stress_run(run.path, QUICK.stress).policy == "ENSEMBLE_OF_3"
    page = collect(run, settings=QUICK)
    assert page.decisions is not None
    assert page.evidence is not None
    assert page.stress is not None
    assert not [line for line in page.left_out if "moved" in line or "stress" in line]
    data = dataclasses.asdict(run.config().data)
    entries = [{"kind": "run", "path": str(run.path), "name": "ours"}, {"kind": "baseline", "name": "EQUAL_WEIGHT"}]
    content = {
        "name": "bench",
        "data": data,
        "period": ["2003-07-01", "2004-06-30"],
        "against": "EQUAL_WEIGHT",
        "policies": entries,
    }
    content |= {"costs": {"proportional_bps": 0.0}, "bootstrap": {"resamples": 200}, "results_dir": str(tmp_path)}
    write_text(tmp_path / "bench.yaml", dump_yaml(content))
    table = run_bench(load_bench(tmp_path / "bench.yaml"))
    assert_allclose(table.table.metrics["ours"].total_return, verdict.metrics["ENSEMBLE_OF_3"].total_return)


def test_what_it_decided_can_be_logged_and_learnt_from(ensemble, small_yaml, tmp_path):
    run, _ = ensemble
    config, policy = run.config(), load_policy(run.policy)
    collecting = CollectConfig(policy=f"policy:{run.policy}+deterministic", episodes=2)
    collect_dataset(config, collecting, tmp_path / "data")
    student = load_config(small_yaml, ["training={algorithm: bc}", f"dataset.paths=[{tmp_path / 'data'}]"])
    assert teachers(student) == {"teachers": {"runs": [str(run.path)], "num_trials": 3}}
    assert teachers(config) == {}
    episodes, manifest = read_dataset(tmp_path / "data")
    first = policy.act(episodes.obs[:1], policy.initial_state(1))[0]
    assert_allclose(episodes.actions[0], first[0], atol=1e-6)
    assert manifest.period["end"] <= str(config.split.train[1])


def test_one_network_is_asked_for_where_a_training_goes_on(ensemble):
    with pytest.raises(ConfigError, match="is an ensemble; a training goes on from one network"):
        _ = PretrainConfig(run=str(ensemble[0].path)).policy_directory


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.costs.proportional_bps=7"], r"env\.costs is .*7.*has .*0"),
        (["features={groups: [returns]}"], r"features is .*returns"),
        (["data.bars=1100"], r"data is .*1100.*has .*1200"),
        (["split.train=[2000-06-01, 2002-11-29]"], r"scales its features by the rows 2000-06-01 to 2002-11-29"),
        (
            ["split.validation=[2003-01-01, 2003-08-29]", "split.test=[2003-09-01, 2004-06-30]"],
            r"learnt from days until 2003-08-29; .* is judged from 2003-07-01",
        ),
        (["split.test=[2004-07-01, 2004-08-04]"], "no day in common"),
    ],
    ids=["costs", "features", "prices", "training days", "learnt from test days", "no common test"],
)
def test_runs_that_do_not_see_trade_or_pay_alike_are_refused(members, small_yaml, tmp_path, overrides, message):
    costs = [] if overrides[0].startswith("env.costs") else [NO_COSTS]
    other = untrained_run(small_yaml, tmp_path, *costs, *overrides, seed=5, judged=False)
    with pytest.raises(ConfigError, match=message) as refused:
        plan_ensemble([members[0].path, other.path])
    assert "\n" not in str(refused.value)


def test_days_that_all_members_hold_out_judge(members, small_yaml, tmp_path):
    other = untrained_run(small_yaml, tmp_path, NO_COSTS, "split.test=[2003-09-01, 2004-07-30]", judged=False)
    plan = plan_ensemble([members[0].path, other.path])
    assert [str(day) for day in plan.config.split.test] == ["2003-09-01", "2004-06-30"]


def test_one_twice_an_ensemble_and_a_run_without_a_policy_are_refused(members, ensemble, small_yaml, tmp_path):
    run, _ = ensemble
    with pytest.raises(ConfigError, match="is given twice"):
        plan_ensemble([members[0].path, members[0].path])
    with pytest.raises(ConfigError, match="is an ensemble itself"):
        plan_ensemble([members[0].path, run.path])
    with pytest.raises(ConfigError, match="has no trained policy yet"):
        plan_ensemble([members[0].path, RunDirectory.create(members[0].config()).path])
