"""The registry is fed by manifests and forgets nothing."""

import datetime
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import sharpe_ratio
from rlplatform.experiments.config import load_config
from rlplatform.experiments.loading import to_yaml
from rlplatform.experiments.registry import read_registry, setting_of, trials_of, update_registry
from rlplatform.files import write_json, write_text
from tests.experiments.judged_runs import judged_run, judged_walk

NOON = datetime.datetime(2026, 11, 21, 12, 0, 0)


def test_every_manifest_becomes_a_row_that_survives_parquet(tmp_path):
    judged_run(tmp_path, "a", sharpe=1.5, seed=3)
    judged_run(tmp_path, "b", sharpe=None)
    table = update_registry(tmp_path, NOON)
    assert table["run"].tolist() == ["a", "b"]
    pd.testing.assert_frame_equal(read_registry(tmp_path), table)
    row = table.iloc[0]
    assert (row["sharpe"], row["seed"], row["start"], row["registered"]) == (1.5, 3, "2020-01-01", "2026-11-21T12:00:00")
    assert math.isnan(table.iloc[1]["sharpe"])
    assert not list(tmp_path.glob(".*"))


def test_what_has_not_changed_is_not_registered_again(tmp_path):
    judged_run(tmp_path, "a")
    first = update_registry(tmp_path, NOON)
    again = update_registry(tmp_path)
    pd.testing.assert_frame_equal(first, again)


def test_a_manifest_that_changed_adds_a_row_and_keeps_the_old_one(tmp_path):
    judged_run(tmp_path, "a", sharpe=1.0)
    update_registry(tmp_path)
    judged_run(tmp_path, "a", sharpe=2.0)
    table = update_registry(tmp_path)
    assert table["sharpe"].tolist() == [1.0, 2.0]
    assert table["current"].tolist() == [False, True]


def test_a_run_whose_directory_is_gone_is_remembered(tmp_path):
    judged_run(tmp_path, "a")
    update_registry(tmp_path)
    shutil.rmtree(tmp_path / "a")
    table = update_registry(tmp_path)
    assert table["present"].tolist() == [False]
    assert table["current"].tolist() == [True]


def test_seeds_names_and_places_do_not_make_another_setting_but_costs_do(tmp_path):
    one = judged_run(tmp_path, "a", seed=1)
    other_seed, dearer = judged_run(tmp_path, "b", seed=2), judged_run(tmp_path, "c", costs=9.0)
    assert setting_of(one) == setting_of(other_seed) != setting_of(dearer)


def test_a_number_s_spelling_and_a_default_that_is_left_out_make_no_other_setting(small_yaml, tmp_path):
    whole = to_yaml(load_config(small_yaml))
    assert "proportional_bps: 2.0" in whole
    assert "impact: 0.0\n" in whole
    texts = {
        "a": whole,
        "b": whole.replace("proportional_bps: 2.0", "proportional_bps: 2"),
        "c": whole.replace("bps: 2.0", "bps: 3.0"),
    }
    texts["d"] = "".join(line for line in whole.splitlines(keepends=True) if "impact: 0.0" not in line)
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / "config.yaml", text)
    a, b, c, d = (setting_of(tmp_path / name) for name in texts)
    assert a == b == d != c


@pytest.mark.parametrize(("counted", "trials"), [({}, 1), ({"num_trials": 7}, 7)], ids=["none", "seven"])
def test_a_student_counts_the_trials_of_its_teachers(tmp_path, counted, trials):
    run = judged_run(tmp_path, "student")
    manifest = json.loads((run / "manifest.json").read_text())
    write_json(run / "manifest.json", manifest | ({"teachers": counted} if counted else {}))
    assert trials_of(run).count == trials


def test_the_winner_of_a_sweep_is_charged_with_all_its_trials(tmp_path):
    sweep = tmp_path / "sweep"
    winner = judged_run(sweep, "winner")
    write_text(sweep / "sweep.yaml", "search: {}\n")
    write_json(sweep / "manifest.json", {"num_trials": 12})
    returns = pd.DataFrame(0.01 * np.random.default_rng(0).standard_normal((60, 10)), columns=[f"{n:04d}" for n in range(10)])
    returns.to_parquet(sweep / "trial_returns.parquet")
    found = trials_of(winner)
    assert found.count == 12  # two have no returns, and count
    assert_allclose(found.deviation, np.std([sharpe_ratio(column) for column in returns.to_numpy().T], ddof=1))
    table = update_registry(tmp_path)
    assert table["run"].tolist() == ["sweep/winner"]  # the sweep itself is no run
    assert table["trials"].tolist() == [12]


def test_every_training_of_a_pipeline_is_a_row_charged_with_all_of_them(tmp_path):
    pipeline = tmp_path / "stocks-pipeline"
    run = judged_run(pipeline / "pairs" / "KO-PEP", "ppo-seed0")
    write_text(pipeline / "pipeline.yaml", "pipeline: {}\n")
    write_json(pipeline / "manifest.json", {"num_trials": 8})
    assert trials_of(run).count == 8
    table = update_registry(tmp_path)
    assert table["run"].tolist() == ["stocks-pipeline/KO-PEP/ppo-seed0"]
    assert table["trials"].tolist() == [8]


def test_a_winner_that_was_copied_away_still_knows_its_number_of_trials(tmp_path):
    assert trials_of(judged_run(tmp_path, "copied", sweep={"num_trials": 7})).count == 7
    assert trials_of(judged_run(tmp_path, "alone")).count == 1


def test_each_seed_of_a_walk_forward_is_a_row_with_the_days_of_the_joined_path(tmp_path):
    judged_walk(tmp_path, "walk", sharpes={0: 0.2, 1: 0.4, 2: 0.9}, tried=12)
    judged_walk(tmp_path, "begun", seeds=[5])
    table = update_registry(tmp_path)
    walk = table[table["name"] == "walk"]
    assert walk["run"].tolist() == ["walk#seed0", "walk#seed1", "walk#seed2"]
    assert walk["kind"].unique().tolist() == ["walk-forward"]
    assert walk["sharpe"].tolist() == [0.2, 0.4, 0.9]
    assert walk["trials"].tolist() == [12] * 3
    assert walk["setting"].nunique() == 1
    assert set(walk["start"] + walk["end"]) == {"2010-01-042023-12-29"}
    assert table.set_index("run").loc["begun#seed5", ["status", "start"]].tolist() == ["running", pd.NA]
    assert table["present"].all()
    assert table["current"].all()
    shutil.rmtree(tmp_path / "walk")
    assert update_registry(tmp_path)["present"].tolist() == [True, False, False, False]


def test_windows_make_another_setting_of_a_walk_forward_and_parallel_trials_do_not(tmp_path):
    sharpes = {0: 0.1, 1: 0.2, 2: 0.3}
    judged_walk(tmp_path, "a", sharpes=sharpes)
    judged_walk(tmp_path, "b", sharpes=sharpes, max_concurrent=4)
    judged_walk(tmp_path, "c", sharpes=sharpes, train_years=3)
    settings = update_registry(tmp_path).groupby("name")["setting"].first()
    assert settings["a"] == settings["b"] != settings["c"]


def test_no_such_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a directory"):
        update_registry(tmp_path / "none")
