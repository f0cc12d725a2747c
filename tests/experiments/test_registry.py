"""The registry is fed by manifests and forgets nothing."""

import datetime
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import sharpe_ratio
from rlplatform.experiments.registry import read_registry, setting_of, trials_of, update_registry
from rlplatform.files import write_json, write_text
from tests.experiments.judged_runs import judged_run

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


def test_a_winner_that_was_copied_away_still_knows_its_number_of_trials(tmp_path):
    assert trials_of(judged_run(tmp_path, "copied", sweep={"num_trials": 7})).count == 7
    assert trials_of(judged_run(tmp_path, "alone")).count == 1


def test_no_such_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a directory"):
        update_registry(tmp_path / "none")
