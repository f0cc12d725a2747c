"""Sweeps end to end: what they leave, that they go on after a kill, and that one bad trial stops none of the others."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from envs.errors import ConfigError
from rlplatform.experiments import sweep_trial
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.search import load_sweep
from rlplatform.experiments.sweep import SweepFailedError, _end_running, _inside, _left, new_sweep, reason_of, run_sweep
from rlplatform.experiments.sweep_directory import ABANDONED, FAILED, FINISHED, STOPPED, SweepDirectory
from rlplatform.experiments.sweep_trial import Task, looks_of, tasks_of
from rlplatform.experiments.visible_rows import rows_before_test
from tests.conftest import REPOSITORY

PAIR = "  parameters: {env.reward.turnover: {grid: [0.0, 0.3]}}\n"
THREE = "  parameters: {training.learning_rate: {grid: [5.0e-4, 1.0e-3, 1.0e+30]}}\n"
POPULATION = """\
  parameters: {training.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}, training.num_epochs: {choice: [1, 2]}}
  algorithm: pbt
  num_samples: 4
"""


@pytest.fixture(scope="session")
def sweep_yaml(small_yaml, tmp_path_factory):
    """Writes the small run with a search block into a folder of its own, its results beside it."""

    def write(search):
        folder = tmp_path_factory.mktemp("sweep")
        path = folder / "sweep.yaml"
        text = small_yaml.read_text().replace(str(small_yaml.parent / "results"), str(folder / "results"))
        path.write_text(f"{text}search:\n{search}", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def pair(sweep_yaml, ray_session):
    """Two trials and one that diverges at its first step, run once for all tests. Read only."""
    directory = new_sweep(load_sweep(sweep_yaml(THREE), ["training.grad_clip=", "search.max_concurrent=2"]))
    return directory, run_sweep(directory)


# What a sweep leaves


def test_a_sweep_leaves_tables_plots_trials_and_a_judged_winner(pair):
    directory, results = pair
    found = {path.name for path in directory.path.iterdir()}
    tables = {"results.parquet", "results.csv", "trial_returns.parquet"}
    assert found == {"sweep.yaml", "manifest.json", "trials", "tune", "plots", "winner", *tables}
    assert results.trials["status"].tolist() == [FINISHED, FINISHED, FAILED]
    assert results.trials["env_steps"].tolist() == [2048, 2048, 0]
    assert results.trials["training.learning_rate"].tolist() == [5e-4, 1e-3, 1e30]
    assert pd.read_parquet(directory.path / "results.parquet").equals(results.trials)
    assert [trial.run.config().training.learning_rate for trial in directory.trials()] == [5e-4, 1e-3, 1e30]


def test_the_manifest_counts_the_trials_and_names_the_winner(pair):
    directory, results = pair
    manifest = directory.manifest()
    assert (manifest["status"], manifest["num_trials"], manifest["num_settings"]) == ("finished", 3, 3)
    bars = len(prepare_market(load_sweep(directory.path / "sweep.yaml").base).tape.between("2003-01-01", "2003-06-30")) - 1
    assert manifest["trial_returns"] == {"file": "trial_returns.parquet", "bars": bars, "trials": 2}
    assert manifest["winner"]["trial"] == results.median_trial
    assert manifest["winner"]["num_trials"] == 3
    assert manifest["trials"] == {"finished": 2, "failed": 1}


def test_the_score_is_that_of_the_checkpoint_the_trial_would_be_judged_by(pair):
    directory, results = pair
    for trial, score in zip(directory.trials()[:2], results.trials["validation_sharpe"], strict=False):
        rows = [row["validation_sharpe"] for row in trial.run.metrics() if "validation_sharpe" in row]
        assert score == max(rows)
        returns = pd.Series(trial.validation()["returns"])
        assert score == pytest.approx(252**0.5 * returns.mean() / returns.std(), rel=1e-12)


def test_the_winner_is_a_run_like_any_other_judged_on_the_test_period(pair):
    directory, results = pair
    run = RunDirectory.open(directory.winner)
    manifest = run.manifest()
    assert manifest["test"]["bars"] > 200
    assert manifest["sweep"]["num_trials"] == 3
    assert (run.report / "report.md").is_file()
    chosen = directory.trial(results.median_trial)
    weights = (run.policy / "policy.safetensors").read_bytes()
    assert weights == (chosen.run.checkpoint("best") / "policy" / "policy.safetensors").read_bytes()
    assert run.config() == chosen.run.config()


def test_trials_see_no_row_after_the_validation_period(small_yaml, sweep_yaml):
    sweep = load_sweep(sweep_yaml(PAIR))
    tape = prepare_market(sweep.base).tape
    assert str(rows_before_test(sweep.base, tape).dates[-1])[:10] == "2003-06-30"
    features = dataclasses.replace(sweep.base, features=dataclasses.replace(sweep.base.features, return_windows=(3,)))
    assert str(sweep_trial._tape_for(features, sweep, tape).dates[-1])[:10] == "2003-06-30"


def test_a_finished_sweep_given_again_runs_nothing(pair, monkeypatch):
    directory, results = pair
    monkeypatch.setattr("rlplatform.experiments.sweep._run_trials", None)
    monkeypatch.setattr("rlplatform.experiments.sweep.judge_winner", None)  # the test period is not opened again
    again = run_sweep(SweepDirectory.newest_of(load_sweep(directory.path / "sweep.yaml")))
    assert again.trials.equals(results.trials)


def test_other_settings_are_not_taken_for_the_same_sweep(pair):
    sweep = load_sweep(pair[0].path / "sweep.yaml", ["training.gamma=0.5"])
    with pytest.raises(ConfigError, match=r"with these settings .* was begun with other settings"):
        SweepDirectory.newest_of(sweep)


def test_other_prices_are_not_taken_for_the_same_sweep(pair, tmp_path):
    import shutil

    directory = SweepDirectory(shutil.copytree(pair[0].path, tmp_path / "copy"))
    directory.update_manifest(tape_sha256="0" * 64)
    with pytest.raises(ConfigError, match="prices or features are not those it began with"):
        run_sweep(directory)


def test_mistakes_leave_no_directory(sweep_yaml):
    path = sweep_yaml(PAIR)
    with pytest.raises(ConfigError):
        new_sweep(load_sweep(path, ["evaluation.gate.benchmark=X"]))
    assert not (path.parent / "results").exists()


# Who trains what


def test_a_planned_trial_is_one_setting_and_one_seed(sweep_yaml):
    sweep = load_sweep(sweep_yaml(PAIR + "  seeds: [5, 6]\n"))
    assert [tasks_of(sweep, {"trial": n}, "")[0] for n in (1, 2)] == [
        Task("0001", {"env.reward.turnover": 0.0}, 6),
        Task("0002", {"env.reward.turnover": 0.3}, 5),
    ]


def test_a_proposal_is_trained_with_every_seed_and_a_member_with_its_own(sweep_yaml):
    search = "  parameters: {training.num_epochs: {choice: [2, 4]}}\n  algorithm: optuna\n  seeds: [5, 6]\n"
    tasks = tasks_of(load_sweep(sweep_yaml(search)), {"training.num_epochs": 1}, "ab12")
    assert [(task.name, task.seed) for task in tasks] == [("ab12-seed5", 5), ("ab12-seed6", 6)]
    assert tasks[0].settings == {"training.num_epochs": 4}
    member = tasks_of(
        load_sweep(sweep_yaml(POPULATION)), {"training.num_epochs": 0, "training.learning_rate": 0.5}, "ab12_00003"
    )
    assert (member[0].name, member[0].seed) == ("0003", 6)  # the small run's seed is 3
    assert member[0].settings == {"training.learning_rate": 0.01, "training.num_epochs": 1}


def test_a_population_stays_inside_its_ranges(sweep_yaml):
    parameters = load_sweep(sweep_yaml(POPULATION)).search.parameters
    found = _inside(parameters, {"training.learning_rate": 0.012, "training.num_epochs": 1})
    assert found == {"training.learning_rate": 0.01, "training.num_epochs": 1}


def test_the_last_look_may_come_early(small_yaml, sweep_yaml):
    config = load_sweep(sweep_yaml(PAIR)).base
    assert [looks_of(config, iteration) for iteration in (2, 3, 4)] == [1, 2, 2]


def test_only_what_failed_without_a_reason_of_its_own_is_tried_again(sweep_yaml):
    sweep = load_sweep(sweep_yaml(PAIR))
    directory = SweepDirectory.create(sweep)
    assert _left(directory, sweep) == 2
    for name, final in (("0000", True), ("0001", False)):
        directory.trial(name).begin({}, 0)
        directory.trial(name).end(FAILED, "x", final=final)
    assert (_left(directory, sweep), _left(directory, sweep, retried=True)) == (0, 1)


@pytest.mark.parametrize(("out_of_time", "status"), [(True, STOPPED), (False, ABANDONED)])
def test_a_trial_that_tune_says_nothing_of_was_cut_by_the_clock_or_forgotten(sweep_yaml, out_of_time, status):
    """When a time budget is over Tune tells of no trial that was under way; the figures of its looks still count."""
    directory = SweepDirectory.create(load_sweep(sweep_yaml(PAIR)))
    for name in ("0000", "0001"):
        directory.trial(name).begin({}, 0)
    directory.trial("0001").end(FINISHED)
    _end_running(directory, out_of_time)
    assert [trial.record()["status"] for trial in directory.trials()] == [status, FINISHED]
    expected = "the sweep's time was up before its first look" if out_of_time else "another trial took its place"
    assert expected in directory.trial("0000").record()["error"]


# What goes wrong


def test_a_trial_that_diverges_is_a_row_with_its_error_and_the_others_go_on(pair):
    directory, results = pair
    assert list(results.errors()) == ["0002"]
    assert "TrainingDivergedError: training diverged" in results.errors()["0002"]
    assert results.settings[-1].rank is None
    assert directory.trial("0002").record()["final"]  # and is not tried again


def test_a_sweep_in_which_nothing_worked_says_the_first_error(pair, sweep_yaml, monkeypatch):
    sweep = load_sweep(sweep_yaml(PAIR))
    directory = SweepDirectory.create(sweep)

    def fail(directory, sweep, tape):
        for name in ("0000", "0001"):
            directory.trial(name).begin({"env.reward.turnover": 0.0}, 0)
            directory.trial(name).end(FAILED, "MemoryError: no room")

    monkeypatch.setattr("rlplatform.experiments.sweep._run_trials", fail)
    with pytest.raises(SweepFailedError, match=r"no trial came to a validation_sharpe\. The first: MemoryError: no room"):
        run_sweep(directory)
    assert directory.manifest()["status"] == "failed"


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ("Failure # 1 (occurred at …)\nray::x\n  File …\nValueError: no such thing\n", "ValueError: no such thing"),
        (
            "Failure # 1 (occurred at …)\nThe actor died unexpectedly before finishing this task.\n\tpid: 7\n"
            "Failure # 2 (occurred at …)\nThe actor died unexpectedly before finishing this task.\n"
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR …",
            "ProcessLostError: its process was killed, at the last of 3 attempts; "
            "often for want of memory, see the node's logs",
        ),
        (
            "Failure # 1\nThe actor died …\nThe actor died because its node has died. Node Id: 1",
            "ProcessLostError: its node died, at the last of 3 attempts; often for want of memory, see the node's logs",
        ),
        ("", "no reason was given"),
    ],
)
def test_a_failed_trial_s_reason_is_one_readable_line(errors, reason):
    assert reason_of(errors) == reason


# In processes of their own


def command(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "rlplatform.cli", *map(str, arguments)],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def until(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was_with_the_same_command(sweep_yaml):
    """SIGKILL of the driver while the second of three trials is under way; the first is not run again."""
    path = sweep_yaml("  parameters: {env.reward.turnover: {grid: [0.0, 0.1, 0.3]}}\n")
    path.write_text(path.read_text().replace("total_env_steps: 2000", "total_env_steps: 6000"))
    first = command("sweep", path, cwd=path.parent)
    trials = path.parent / "results"

    def second_has_a_checkpoint():
        assert first.poll() is None, first.stderr.read()
        return any(trials.glob("*/trials/0001/checkpoints/last/standing.json"))

    until(second_has_a_checkpoint)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close(), first.stderr.close()
    directory = SweepDirectory.newest_of(load_sweep(path))
    done, begun = directory.trial("0000"), directory.trial("0001")
    finished_at = (done.path / "trial.json").stat().st_mtime_ns
    until(lambda: not _writes(begun.path))

    second = command("sweep", path, "--resume", "--json", cwd=path.parent)
    output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    answer = json.loads(output)
    assert answer["trials"] == {"finished": 3}
    assert (done.path / "trial.json").stat().st_mtime_ns == finished_at
    table = pd.read_parquet(directory.path / "results.parquet")
    assert table["env_steps"].tolist() == [6144] * 3
    for trial in directory.trials():  # every iteration once, whatever was repeated
        assert [row["iteration"] for row in trial.run.metrics()] == list(range(1, 13))
    assert len(directory.manifest()["resumed"]) == 1


def _writes(path, seconds=3.0):
    """Whether workers that outlive their driver for a moment still write."""
    newest = max(each.stat().st_mtime for each in path.rglob("*"))
    return time.time() - newest < seconds


@pytest.mark.slow
def test_optuna_proposes_and_asha_stops_the_weak_early(sweep_yaml, ray_session):
    search = "  parameters: {training.learning_rate: {loguniform: [1.0e-6, 1.0e-2]}}\n  algorithm: optuna\n"
    sweep = load_sweep(
        sweep_yaml(f"{search}  scheduler: asha\n  num_samples: 6\n  max_concurrent: 2\n"), ["evaluation.interval_iterations=1"]
    )
    results = run_sweep(new_sweep(sweep))
    assert set(results.trials["status"]) == {FINISHED, STOPPED}
    assert len(results.trials) == 6
    stopped = results.trials.set_index("trial")["env_steps"][(results.trials["status"] == STOPPED).to_numpy()]
    assert (stopped < 2048).all()
    assert results.trials["validation_sharpe"].notna().all()
