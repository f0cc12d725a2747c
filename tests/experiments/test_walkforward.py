"""Walk-forwards end to end: no fold peeks, scalers are its own, and a killed one ends as if nothing had happened."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from envs.errors import ConfigError
from rlplatform.data import load_prices
from rlplatform.experiments import walkforward
from rlplatform.experiments.config import load_config
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.scoreboard import make_scoreboard
from rlplatform.experiments.storage import fetch, stored
from rlplatform.experiments.trial_training import train_trial
from rlplatform.experiments.visible_rows import rows_before_test
from rlplatform.experiments.walkforward import (
    WalkForwardFailedError,
    new_walk,
    run_chain,
    run_walk,
)
from rlplatform.experiments.walkforward_directory import WalkForwardDirectory, load_walk
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.files import write_text
from tests.conftest import REPOSITORY

TINY = """\
name: tiny
seed: 3
data: {{source: synthetic, market: momentum, bars: 1200}}
split:
  train: [2000-06-01, 2002-12-31]
  test: [2003-01-01, 2004-06-30]
env: {{id: Portfolio-v0, costs: {{proportional_bps: 2}}, episode: {{length_bars: 60}}}}
model: {{kind: mlp, layers: [8]}}
training: {{total_env_steps: 512, num_envs_per_env_runner: 16, rollout_length: 32, minibatch_size: 256, num_epochs: 1}}
evaluation: {{interval_iterations: 1, bootstrap: {{resamples: 100}}}}
results_dir: {results}
walkforward: {{{block}}}
"""
BLOCK = "train_years: 2.5, test_months: 12, validation_months: 4, purge_bars: 2, seeds: [3, 4], max_concurrent: 2"


def write(folder, block=BLOCK):
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(results=folder / "results", block=block), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def walked(tmp_path_factory, ray_session):
    """Two folds with two seeds, trained in this process without Tune, once for all tests. Read only."""
    directory = new_walk(load_walk(write(tmp_path_factory.mktemp("walk"))))

    def train_here(directory, walk, folds, dates):
        jobs = [(fold.number, seed) for fold in folds for seed in walk.seeds]
        run_chain(jobs, str(directory.path), walk, folds, dates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walkforward, "_train_all", train_here)
        return directory, run_walk(directory)


def test_it_leaves_a_run_a_fold_and_seed_and_a_report_on_the_joined_path(walked):
    directory, result = walked
    found = {path.name for path in directory.path.iterdir()}
    assert found == {
        "walkforward.yaml", "manifest.json", "folds", "report", "walkforward.json", "folds.csv", "path.csv",
    }  # fmt: skip
    assert [trial.name for trial in directory.folds()] == ["000-seed3", "000-seed4", "001-seed3", "001-seed4"]
    assert directory.manifest()["status"] == "finished"
    table = pd.read_csv(directory.path / "folds.csv")
    assert table["start"].tolist()[1] == table["end"].tolist()[0]
    path = pd.read_csv(directory.path / "path.csv")
    for seed in (3, 4):  # wealth is chained: the folds' returns multiply to the path's
        growth = np.prod(1 + table[table["seed"] == seed]["total_return"])
        assert growth == pytest.approx(path[f"seed{seed}"].iloc[-1], rel=1e-12)
    assert result.seed in (3, 4)
    assert json.loads((directory.path / "walkforward.json").read_text())["spread"]["sharpe"]["seeds"] == 2
    assert (directory.report / "report.md").read_text().startswith("Out of sample, 2002-12-02 to 2004-06-30")


def test_each_fold_fits_its_own_scaler_on_its_own_training_days(walked):
    directory, _ = walked
    for number in (0, 1):
        run = directory.fold(number, 3).run
        scaler, split = run.scaler(), run.config().split
        assert (scaler.fitted_from[:10], scaler.fitted_to[:10]) == tuple(map(str, split.train))
        assert split.train[1] < split.validation[0] < split.validation[1] < split.test[0]
    first, second = (directory.fold(number, 3).run.scaler() for number in (0, 1))
    assert first.feature_mean != second.feature_mean


def test_a_finished_walk_given_again_trains_nothing_and_finds_the_same(walked, monkeypatch):
    directory, result = walked
    monkeypatch.setattr(walkforward, "_train_all", None)
    again = run_walk(WalkForwardDirectory.newest_of(load_walk(directory.path.parent.parent / "tiny.yaml")))
    assert again.to_dict() == result.to_dict()


def test_results_that_belong_into_a_bucket_are_stored_there_when_all_is_judged(walked, tmp_path, monkeypatch):
    directory = WalkForwardDirectory(shutil.copytree(walked[0].path, tmp_path / "walk"))
    bucket = f"file://{tmp_path / 'bucket'}"
    write_text(directory.path / "walkforward.yaml", dump_yaml(directory.walk().content | {"results_dir": bucket}))
    monkeypatch.setattr(walkforward, "judge_trained", lambda *_: (walked[1], prepare_market(walked[0].walk().base)))
    notes = []
    run_walk(directory, notes.append)
    assert stored(bucket) == ["walk"]
    assert notes[-1] == f"stored at {bucket}/walk"
    copy = fetch(f"{bucket}/walk", tmp_path / "copy")
    assert json.loads((copy / "manifest.json").read_text())["status"] == "finished"
    assert (copy / "folds" / "001-seed4" / "policy" / "scaler.json").is_file()


def test_the_scoreboard_knows_it(walked):
    directory, result = walked
    board = make_scoreboard(directory.path.parent)
    standing = board.standings[0]
    assert (standing.kind, standing.name, standing.spread.seeds, standing.rank) == ("walk-forward", "tiny", 2, 1)
    assert standing.median("sharpe") == pytest.approx(result.spread["sharpe"].median)
    assert standing.cells()["test"] == " to ".join(result.verdict.policy.period)


def test_other_prices_are_not_taken_for_the_same_walk(walked, tmp_path):
    directory = WalkForwardDirectory(shutil.copytree(walked[0].path, tmp_path / "copy"))
    directory.update_manifest(tape_sha256="0" * 64)
    with pytest.raises(ConfigError, match="prices or features are not those it began with"):
        run_walk(directory)


# Nothing peeks


def handed_out(monkeypatch, tmp_path, place, tape_of_call):
    """(fold, config, tape) of each fold's training, which is stopped where it is handed the tape."""
    walk, handed = load_walk(write(tmp_path)), []

    def spy(*arguments):
        handed.append(tape_of_call(*arguments))
        raise InterruptedError

    monkeypatch.setattr(place, spy)
    dates = prepare_market(walk.base).tape.dates
    folds = walk.folds(dates)
    for fold in folds:
        config = walk.config_for(fold, dates, 3)
        with pytest.raises(InterruptedError):
            train_trial(config, WalkForwardDirectory(tmp_path).fold(fold.number, 3), {"fold": fold.number})
    return dates, zip(folds, handed, strict=True)


def test_no_training_is_handed_a_row_of_its_test_or_later(monkeypatch, tmp_path):
    dates, found = handed_out(
        monkeypatch, tmp_path, "rlplatform.experiments.trial_training.train", lambda config, tape, *_: (config, tape)
    )
    for fold, (config, tape) in found:
        assert tape.dates[-1] == dates[fold.last_seen]
        assert tape.dates[-1] < dates[fold.test[0] - 2]  # two purged rows, and the decision's own
        assert str(config.split.test[0]) == str(dates[fold.test[0]])[:10]


def test_no_training_environment_is_handed_a_row_of_its_validation_or_later(monkeypatch, tmp_path, ray_session):
    """Those that sample, wherever they run: not even the validation, which `train` itself may see."""
    dates, found = handed_out(
        monkeypatch, tmp_path, "rlplatform.experiments.trainers.register_trading_env", lambda env_id, tape, *_: tape
    )
    for fold, tape in found:
        assert tape.dates[-1] == dates[fold.train[1]]
        assert tape.dates[-1] < dates[fold.validation[0] - 2]


def test_prices_after_a_fold_s_first_decision_change_nothing_that_it_learns_from(walked, monkeypatch):
    walk = walked[0].walk()
    dates = prepare_market(walk.base).tape.dates
    fold = walk.folds(dates)[0]
    config = walk.config_for(fold, dates, 3)
    before = prepare_market(config)
    seen = rows_before_test(config, before.tape)
    prices = load_prices(config.data)
    close = prices.close.copy()
    close[fold.last_seen + 1 :] *= 1.7
    monkeypatch.setattr("rlplatform.experiments.market.load_prices", lambda data: dataclasses.replace(prices, close=close))
    after = prepare_market(config)
    assert after.tape.sha256 != before.tape.sha256
    assert rows_before_test(config, after.tape).sha256 == seen.sha256
    assert after.scaler == before.scaler


# Warm start


def test_with_a_warm_start_a_fold_begins_with_the_policy_of_the_fold_before(tmp_path, monkeypatch):
    path = write(tmp_path, "train_years: 2.5, test_months: 6, warm_start: true")
    directory, begun = new_walk(load_walk(path)), []

    def note_and_finish(config, trial, settings):
        begun.append((settings["fold"], config.training.pretrain and config.training.pretrain.run))
        trial.begin({}, config.seed)
        trial.end("finished")

    monkeypatch.setattr(walkforward, "train_trial", note_and_finish)
    walk = directory.walk()
    dates = prepare_market(walk.base).tape.dates
    folds = walk.folds(dates)
    jobs = [(fold.number, 3) for fold in folds]
    run_chain(jobs, str(directory.path), walk, folds, dates)
    assert begun == [(0, None), *((k, str(directory.fold(k - 1, 3).path)) for k in range(1, len(folds)))]
    run_chain(jobs, str(directory.path), walk, folds, dates)
    assert len(begun) == len(folds)  # nothing is trained twice


@pytest.mark.slow
def test_a_warm_start_trains_through_to_a_verdict(tmp_path, ray_session):
    """Weights of the fold before are loaded under another scaler and, with a rolling window, another first day."""
    block = "scheme: rolling, train_years: 2.5, test_months: 12, warm_start: true"
    result = run_walk(new_walk(load_walk(write(tmp_path, block))))
    assert len(result.folds) == 2


# Mistakes


@pytest.mark.parametrize(
    ("block", "overrides", "message"),
    [
        ("train_yeers: 2, test_months: 3", [], r"tiny.yaml: walkforward: unknown key train_yeers\. Did you mean train_years"),
        (f"{BLOCK}, configs_tried: 0", [], r"configs_tried = 0; expected at least 1"),
        ("train_years: 2, test_months: 3, seeds: [1, 1]", [], r"seeds = \[1, 1\]; expected different"),
        ("train_years: 2, test_months: 3, warm_start: true", ["training.pretrain={run: x}"], "both say where a fold starts"),
        ("train_years: 2, test_months: 3, warm_start: true", ["training={algorithm: tqc}"], "= tqc, which starts from scratch"),
    ],
)
def test_a_mistake_in_the_block_names_file_and_key(tmp_path, block, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_walk(write(tmp_path, block), overrides)


def test_a_file_without_the_block_is_sent_to_train_and_one_with_it_trains_too(tmp_path, small_yaml):
    with pytest.raises(ConfigError, match=r"has no walkforward block .* rlplatform train"):
        load_walk(small_yaml)
    assert load_config(write(tmp_path)).name == "tiny"


def test_mistakes_leave_no_directory(tmp_path):
    with pytest.raises(ConfigError, match="has no test after"):
        new_walk(load_walk(write(tmp_path), ["walkforward.train_years=20"]))
    assert not (tmp_path / "results").exists()


def test_a_fold_that_failed_is_named_with_its_error(tmp_path, monkeypatch):
    directory = new_walk(load_walk(write(tmp_path)))

    def fail(directory, walk, folds, dates):
        directory.fold(0, 3).begin({}, 3)
        directory.fold(0, 3).end("failed", "TrainingDivergedError: no number.")

    monkeypatch.setattr(walkforward, "_train_all", fail)
    with pytest.raises(WalkForwardFailedError, match=r"fold 0, seed 3: TrainingDivergedError: no number\."):
        run_walk(directory)
    assert directory.manifest()["status"] == "failed"


# In processes of their own


def command(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "rlplatform.cli", *map(str, arguments)],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_walk_goes_on_with_the_same_command_and_ends_like_one_that_was_never_stopped(walked, tmp_path):
    """SIGKILL of the driver and its workers while a later fold is under way; finished folds are not trained again."""
    path = write(tmp_path, BLOCK.replace("seeds: [3, 4], max_concurrent: 2", "seeds: [3]"))
    first, end = command("walkforward", path, cwd=tmp_path), time.monotonic() + 300
    while not any(tmp_path.glob("results/*/folds/001-seed3/trial.json")):
        assert first.poll() is None, first.stderr.read()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close(), first.stderr.close()
    directory = WalkForwardDirectory.newest_of(load_walk(path))
    finished = [trial for trial in directory.folds() if trial.record()["status"] == "finished"]
    times = {trial.name: (trial.path / "trial.json").stat().st_mtime_ns for trial in finished}
    assert [trial.name for trial in finished] == ["000-seed3"]
    time.sleep(3)  # workers that outlive their driver for a moment

    second = command("walkforward", path, "--resume", "--json", cwd=tmp_path)
    output, errors = second.communicate(timeout=400)
    assert second.returncode == 0, errors
    answer, whole = json.loads(output), walked[1].to_dict()
    assert answer["folds"] == [row for row in whole["folds"] if row["seed"] == 3]
    assert answer["seeds"]["3"] == whole["seeds"]["3"]
    assert times == {trial.name: (trial.path / "trial.json").stat().st_mtime_ns for trial in finished}
    assert len(directory.manifest()["resumed"]) == 1
