"""Runs against each other: the same days, the same costs, and a clear line for what cannot be compared."""

import json
from dataclasses import replace

import numpy as np
import pytest

from envs.constraints import ConstraintsConfig
from envs.errors import ConfigError
from envs.liquidity import LiquidityConfig
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.experiments.comparing import _Entrant, _notes, common_period, compare_runs
from rlplatform.experiments.config import load_config
from rlplatform.experiments.run_directory import RunDirectory
from tests.experiments.untrained import untrained_run

FAST = BootstrapConfig(resamples=200)


@pytest.fixture(scope="module")
def runs(small_yaml, tmp_path_factory):
    """Two seeds of one setting, and one that paid other costs and was tested on fewer days."""
    results = tmp_path_factory.mktemp("results")
    dear = ("name=dear", "env.costs.proportional_bps=20", "split.test=[2003-10-01, 2004-12-31]")
    return [
        untrained_run(small_yaml, results, "name=one", seed=1).path,
        untrained_run(small_yaml, results, "name=two", seed=2).path,
        untrained_run(small_yaml, results, *dear, seed=3).path,
    ]


def test_all_are_judged_on_the_days_they_share_and_pay_what_the_first_pays(runs):
    found = compare_runs(runs, FAST)
    assert found.benchmark.period == ("2003-10-01", "2004-06-30")
    for contender in found.contenders:
        np.testing.assert_array_equal(contender.track.dates, found.benchmark.dates)
        bought = contender.track.turnover > 0
        np.testing.assert_allclose(contender.track.cost[bought] / contender.track.turnover[bought], 2e-4, rtol=1e-2)
    assert any("dear-" in note and "other costs" in note for note in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_costs_are_those_of_whichever_run_comes_first(runs):
    track = compare_runs([runs[2], runs[0]], FAST).contenders[1].track
    bought = track.turnover > 0
    np.testing.assert_allclose(track.cost[bought] / track.turnover[bought], 20e-4, rtol=1e-2)


def test_the_figures_are_those_of_the_runs_own_judgement_where_nothing_differs(runs):
    found = compare_runs(runs[:2], FAST)
    for path, contender in zip(runs, found.contenders, strict=False):
        own = RunDirectory.open(path).manifest()["test"]
        np.testing.assert_allclose(found.table.metrics[contender.name].sharpe, own["sharpe"], rtol=1e-12)


def test_two_seeds_of_one_setting_are_a_distribution(runs):
    found = compare_runs(runs, FAST)
    assert [spread.seeds for spread in found.seeds.values()] == [2]
    assert {e.trials for e in found.evidence.values()} == {2}  # two settings are compared


def test_a_run_without_a_policy_is_refused_with_what_to_do(runs, small_yaml, tmp_path):
    from rlplatform.experiments.config import load_config

    empty = RunDirectory.create(load_config(small_yaml, [f"results_dir={tmp_path}"]))
    with pytest.raises(ConfigError, match=r"has no trained policy yet. .* --resume"):
        compare_runs([runs[0], empty.path])


def test_one_run_the_same_run_twice_and_no_run_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="needs at least two"):
        compare_runs(runs[:1])
    with pytest.raises(ConfigError, match="is given twice"):
        compare_runs([runs[0], runs[0]])
    with pytest.raises(ConfigError, match=r"is not a run: it has no config.yaml"):
        compare_runs([runs[0], tmp_path])


def test_test_periods_that_do_not_meet_are_refused():
    periods = {"early": ("2003-01-01", "2003-12-31"), "late": ("2004-01-01", "2004-12-31")}
    with pytest.raises(ConfigError, match="late is tested from 2004-01-01 and early until 2003-12-31: no day in common"):
        common_period(periods)
    assert common_period({"a": ("2003-01-01", "2004-12-31"), "b": ("2004-01-01", "2005-12-31")}) == ("2004-01-01", "2004-12-31")


def test_a_liquidity_limit_that_only_one_run_has_is_said(runs, small_yaml):
    free = load_config(small_yaml)
    limit = ConstraintsConfig(liquidity=LiquidityConfig(capital=1e6))
    limited = replace(free, env=replace(free.env, constraints=limit))
    entrants = [_Entrant(run=runs[0], config=config, name=name) for config, name in ((free, "A"), (limited, "B"), (free, "C"))]
    assert [note for note in _notes(entrants) if "liquidity" in note] == [
        "B keeps its own env.constraints.liquidity, which is not that of A."
    ]
