"""Combinatorial walk-forwards: paths are sewn of splits that did not learn from them, and all of them are told."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from envs.errors import ConfigError
from rlplatform.evaluation.folds import FoldsConfig, combinatorial_folds, combinatorial_paths
from rlplatform.experiments import walkforward
from rlplatform.experiments.config import load_config
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.visible_rows import training_rows
from rlplatform.experiments.walkforward import new_walk, run_chain, run_walk
from rlplatform.experiments.walkforward_combinatorial import judge_paths
from rlplatform.experiments.walkforward_directory import load_walk
from tests.experiments.test_walkforward import write
from tests.experiments.test_walkforward_path import Always

BLOCK = "scheme: combinatorial, num_folds: 3, num_test_folds: 2, purge_bars: 5, embargo_bars: 20, seeds: [3, 4]"


@pytest.fixture(scope="module")
def market(small_yaml):
    config = load_config(small_yaml)
    return config, prepare_market(config)


def test_a_path_is_sewn_of_the_splits_that_tested_its_parts_and_pays_for_the_handover(market):
    """Three blocks of 20 decisions, two tested in each split: split 0 and 1 hold nothing but cash, split 2 all."""
    config, market = market
    tape = market.tape
    chosen = FoldsConfig(scheme="combinatorial", num_folds=3, num_test_folds=2)
    folds = [fold.shifted(700) for fold in combinatorial_folds(61, chosen)]
    paths = combinatorial_paths(folds)
    assert [[(fold.number, fold.test) for fold in path] for path in paths] == [
        [(0, (700, 720)), (0, (720, 740)), (1, (740, 760))],
        [(1, (700, 720)), (2, (720, 740)), (2, (740, 760))],
    ]
    cash, invested = [Always(0.0), Always(0.0), Always(1.0)], [Always(1.0)] * 3
    result = judge_paths(config, [tape] * 3, paths, {1: cash, 2: invested})
    assert result.paths[1, 0].weights.sum() == 0
    half = result.paths[1, 1]
    assert half.weights[:20].sum() == 0
    assert half.cost[20] == pytest.approx(2e-4, rel=1e-3)
    assert half.wealth[-1] == pytest.approx((1 - half.cost[20]) * np.prod(tape.gross[721:761, 0]), rel=1e-12)
    np.testing.assert_array_equal(result.paths[2, 0].wealth, result.paths[2, 1].wealth)
    assert result.paths[2, 0].weights.sum() == 60


def test_all_paths_are_a_distribution_and_the_median_is_judged(market):
    config, market = market
    chosen = FoldsConfig(scheme="combinatorial", num_folds=3, num_test_folds=2)
    folds = [fold.shifted(700) for fold in combinatorial_folds(241, chosen)]
    policies = {seed: [Always(share)] * 3 for seed, share in ((1, 0.3), (2, 1.0))} | {
        3: [Always(0.6), Always(0.1), Always(0.9)]
    }
    result = judge_paths(config, [market.tape] * 3, combinatorial_paths(folds), policies, configs_tried=9)
    sharpes = sorted(metrics.sharpe for metrics in result.path_metrics.values())
    assert len(sharpes) == 6
    assert result.verdict.metrics[result.verdict.policy.name].sharpe == sharpes[2]  # of two in the middle the lower
    assert (result.spread["sharpe"].lowest, result.spread["sharpe"].highest) == (sharpes[0], sharpes[-1])
    assert result.shares["above_zero"] == np.mean(np.array(sharpes) > 0)
    assert result.evidence.trials == 9
    assert set(result.tracks) == {1, 2, 3}
    assert "6 paths (2 of each of 3 seeds): Sharpe" in result.sentence
    told = json.loads(json.dumps(result.to_dict()))
    assert [(row["seed"], row["path"]) for row in told["paths"]] == list(itertools.product((1, 2, 3), (0, 1)))
    assert list(result.wealth().columns) == [f"seed{seed}_path{path}" for seed in (1, 2, 3) for path in (0, 1)]
    assert [row["path"] for row in result.rows()] == ["0", "1"]
    for seed, track in result.tracks.items():
        own = [row["total_return"] for row in result.folds_of_tracks if row["seed"] == seed]
        assert len(own) == 3
        assert np.prod(1 + np.array(own)) == pytest.approx(track.wealth[-1], rel=1e-12)


def test_each_split_is_told_what_to_leave_out_and_sees_none_of_it(tmp_path):
    walk = load_walk(write(tmp_path, BLOCK))
    tape = prepare_market(walk.base).tape
    folds = walk.folds(tape.dates)
    assert len(folds) == 3
    days = tape.dates.astype("datetime64[D]")
    for fold in folds:
        config = walk.config_for(fold, tape.dates, 3)
        seen = training_rows(config, tape)
        rows = np.searchsorted(tape.dates, seen.dates)
        walked = rows[days[rows] >= np.datetime64(config.split.train[0])]
        assert sorted(walked) == sorted(row for first, last in fold.train for row in range(first, last + 1))
        for first, last in fold.tests:
            assert not np.any((walked >= first - 5) & (walked <= last - 1 + 5 + 20))
    assert str(config.split.train[0]) == "2000-06-01"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (f"{BLOCK}, warm_start: true", "combinatorial splits have no order"),
        (BLOCK.replace("num_folds: 3,", ""), "expects num_folds and num_test_folds"),
    ],
)
def test_a_mistake_in_the_block_says_what_was_expected(tmp_path, block, message):
    with pytest.raises(ConfigError, match=message):
        load_walk(write(tmp_path, block))


@pytest.mark.slow
def test_it_trains_every_split_and_tells_every_path(tmp_path, ray_session, monkeypatch):
    def train_here(directory, walk, folds, dates):
        jobs = [(fold.number, seed) for fold in folds for seed in walk.seeds]
        run_chain(jobs, str(directory.path), walk, folds, dates)

    monkeypatch.setattr(walkforward, "_train_all", train_here)
    directory = new_walk(load_walk(write(tmp_path, BLOCK)))
    result = run_walk(directory)
    assert len(result.paths) == 4
    table = pd.read_csv(directory.path / "folds.csv")
    assert sorted(set(zip(table["seed"], table["path"], strict=True))) == [(3, 0), (3, 1), (4, 0), (4, 1)]
    for key, own in table.groupby(["seed", "path"]):
        assert np.prod(1 + own["total_return"]) == pytest.approx(result.paths[key].wealth[-1], rel=1e-12)
    content = json.loads((directory.path / "walkforward.json").read_text())
    assert content["spread"]["sharpe"]["seeds"] == 4
    assert "not what could have been traded at the time" in (directory.report / "report.md").read_text()
    assert directory.manifest()["tests"].keys() == {"3", "4"}
