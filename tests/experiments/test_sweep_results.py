"""Results: what trials on disk come to, without training any."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rlplatform.cli_sweep import _print_results
from rlplatform.experiments.search import load_sweep
from rlplatform.experiments.sweep_directory import FAILED, FINISHED, SweepDirectory, TrialDirectory
from rlplatform.experiments.sweep_results import SweepResults, ranked, short_names
from rlplatform.files import write_json

SEARCH = """\
search:
  parameters:
    env.reward.turnover: {grid: [0.0, 0.3]}
    training.entropy_coeff: {grid: [0.0, [[0, 0.01], [2000, 0.0]]]}
  seeds: [0, 1]
"""


def row(trial, settings, score, status=FINISHED):
    return {"trial": trial, "settings": settings, "status": status, "validation_sharpe": score}


def full(rows):
    from rlplatform.experiments.search import METRICS

    return [dict.fromkeys(METRICS) | each for each in rows]


def test_settings_are_ranked_by_the_mean_of_their_seeds_never_by_the_best_seed():
    rows = full([row("0", {"x": 1}, 3.0), row("1", {"x": 1}, -1.0), row("2", {"x": 2}, 1.4), row("3", {"x": 2}, 1.6)])
    first, second = ranked(rows, "validation_sharpe", "max")
    assert (first.settings, first.mean, first.rank) == ({"x": 2}, 1.5, 1)
    assert first.spread == pytest.approx(math.sqrt(0.02))  # two seeds 0.1 either side of their mean: √(2 · 0.1² / 1)
    assert (second.mean, second.rank, second.scores) == (1.0, 2, (3.0, -1.0))
    assert ranked(rows, "validation_sharpe", "min")[0].settings == {"x": 1}


def test_a_setting_that_lost_a_seed_comes_after_those_that_did_not():
    rows = [
        row("0", {"x": 1}, 9.0),
        row("1", {"x": 1}, None, FAILED),
        row("2", {"x": 2}, 1.0),
        row("3", {"x": 3}, None, FAILED),
    ]
    places = ranked(full(rows), "validation_sharpe", "max")
    assert [(place.settings["x"], place.rank, place.complete) for place in places] == [
        (2, 1, True),
        (1, 2, False),
        (3, None, False),
    ]
    assert math.isnan(places[2].mean)


def test_keys_are_shortened_as_far_as_they_stay_apart():
    assert short_names(("env.reward.turnover", "training.gamma")) == {
        "env.reward.turnover": "turnover",
        "training.gamma": "gamma",
    }
    assert list(short_names(("a.rate", "b.rate")).values()) == ["a.rate", "b.rate"]


@pytest.fixture
def directory(small_yaml, tmp_path):
    """A sweep of 2 × 2 settings with two seeds; the last trial failed, the one before is running. Nothing was trained."""
    path = tmp_path / "sweep.yaml"
    path.write_text(small_yaml.read_text().replace(str(small_yaml.parent / "results"), str(tmp_path)) + SEARCH)
    sweep = load_sweep(path)
    directory = SweepDirectory.create(sweep)
    settings = [each for each in sweep.search.draws() for _ in sweep.seeds]
    for number, each in enumerate(settings):
        trial = directory.trial(f"{number:04d}")
        trial.begin(each, seed=number % 2)
        if number < 7:
            write_validation(trial, sharpe=float(number // 2) + (0.2 if number % 2 else 0.0), seed=number)
            trial.end(FINISHED)
    directory.trial("0006").begin(settings[6], 0)
    directory.trial("0007").end(FAILED, "TrainingDivergedError: policy_loss is not finite")
    return directory


def write_validation(trial: TrialDirectory, sharpe: float, seed: int) -> None:
    names = ("total_return", "cagr", "volatility", "sharpe", "sharpe_se", "sortino", "max_drawdown", "calmar", "cvar_5")
    names += ("turnover_per_day", "cost_paid", "cost_paid_money", "financing_paid", "hit_rate")
    metrics = {f"validation_{name}": 0.1 for name in names} | {"validation_sharpe": sharpe, "validation_calmar": None}
    dates = [str(day)[:10] for day in pd.bdate_range("2003-01-01", periods=30)]
    returns = np.random.default_rng(seed).normal(0, 0.01, 30).tolist()
    content = {"iteration": 4, "metrics": metrics, "dates": dates, "returns": returns}
    write_json(trial.path / "validation.json", content)


def test_the_table_has_one_row_a_trial_and_survives_parquet_and_csv(directory):
    SweepResults.of(directory).write(directory)
    table = pd.read_parquet(directory.path / "results.parquet")
    assert table["trial"].tolist() == [f"{n:04d}" for n in range(8)]
    assert table["status"].value_counts().to_dict() == {"finished": 6, "running": 1, "failed": 1}
    assert table["env.reward.turnover"].tolist() == [0.0] * 4 + [0.3] * 4
    assert table["training.entropy_coeff"].tolist()[2] == "[[0, 0.01], [2000, 0.0]]"  # a schedule is text
    assert table["error"].dropna().tolist() == ["TrainingDivergedError: policy_loss is not finite"]
    assert len(pd.read_csv(directory.path / "results.csv")) == 8


def test_daily_returns_of_every_trial_are_one_matrix(directory):
    SweepResults.of(directory).write(directory)
    returns = pd.read_parquet(directory.path / "trial_returns.parquet")
    assert returns.shape == (30, 7)
    assert str(returns.index[0])[:10] == "2003-01-01"
    np.testing.assert_allclose(returns["0003"], np.random.default_rng(3).normal(0, 0.01, 30), rtol=1e-15)


def test_the_winner_is_the_median_seed_of_the_best_complete_setting(directory):
    results = SweepResults.of(directory)
    best = results.settings[0]
    assert (best.trials, best.scores) == (("0004", "0005"), (2.0, 2.2))
    assert results.median_trial == "0004"  # of two the lower one
    assert results.settings[-1].rank is None  # one seed runs, one failed


def test_plots_appear_with_the_second_setting_and_nothing_hidden_is_left(directory):
    SweepResults.of(directory).write(directory)
    assert sorted(path.name for path in (directory.path / "plots").iterdir()) == [
        "frontier.png",
        "parallel_coordinates.png",
        "parameter_effects.png",
    ]
    assert not list(directory.path.rglob(".*"))


def test_json_has_no_nan_and_says_mean_and_spread(directory):
    answer = json.loads(json.dumps(SweepResults.of(directory).to_dict(), allow_nan=False))
    assert answer["settings"][0]["mean"] == pytest.approx(2.1)
    assert answer["settings"][0]["spread"] == pytest.approx(0.1414, abs=1e-4)
    assert answer["settings"][-1]["mean"] is None
    assert answer["trials"] == {"running": 1, "finished": 6, "failed": 1}


def test_the_terminal_table_shows_mean_spread_and_how_many_seeds_count(directory):
    from rich.console import Console

    console = Console(width=110, record=True)
    console.print(SweepResults.of(directory).to_rich())
    text = console.export_text()
    assert "2.10 ± 0.14" in text
    assert "2/2" in text
    assert "0/2" in text


def test_the_probability_of_overfitting_is_printed_with_how_to_read_it(directory, capsys):
    found = SweepResults.of(directory)
    assert found.overfitting_lines() == []
    figures = {"probability": 0.43, "chosen": 1.204, "kept": None, "trials": 8, "splits": 12870}
    (line,) = replace(found, manifest={"overfitting": figures}).overfitting_lines()
    assert line.startswith(
        "probability of overfitting 43 %: in so many of 12,870 ways to halve the validation days, the best of"
    )
    assert line.endswith("Sharpe 1.20 where chosen, – on the other half.")
    unknown = {"probability": None, "left_out": "two trials have no returns."}
    assert replace(found, manifest={"overfitting": unknown}).overfitting_lines() == [
        "probability of overfitting: not known. two trials have no returns."
    ]
    directory.update_manifest(overfitting=figures)
    _print_results(directory, SweepResults.of(directory), as_json=False)
    assert line in capsys.readouterr().out


def test_a_sweep_without_trials_has_an_empty_table(directory, small_yaml):
    import shutil

    shutil.rmtree(directory.path / "trials")
    results = SweepResults.of(directory)
    results.write(directory)
    assert results.median_trial is None
    assert results.to_dict()["settings"] == []
