import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.evaluation.gate import GateConfig, action_entropy, check, find_benchmark, weight_deviation
from tests.evaluation.conftest import track_of

NOISE = np.random.default_rng(0).standard_normal(500)
NOISE = (NOISE - NOISE.mean()) / NOISE.std(ddof=1)


def with_sharpe(sharpe, name="policy", **given):
    """A track whose annualised Sharpe ratio is exactly `sharpe`."""
    return track_of(0.01 * (NOISE + sharpe / np.sqrt(252)), name, **given)


def lively(sharpe, **given):
    actions = np.arange(500) % 3
    return with_sharpe(sharpe, **({"actions": actions} | given))


BASELINES = [
    with_sharpe(0.8, "ALL_SPY"),
    with_sharpe(0.4, "EQUAL_WEIGHT"),
    with_sharpe(-0.2, "C"),
    track_of(np.zeros(500), "CASH"),
]


def results(policy, config=None):
    return {line.name: line for line in check(policy, BASELINES, config).checks}


def test_a_good_policy_passes_every_line():
    report = check(lively(0.6), BASELINES)
    assert report.passed
    assert [line.split()[0] for line in report.lines()] == ["pass"] * 5


def test_a_sharpe_below_zero_fails():
    assert not results(lively(-0.1))["sharpe"].passed
    assert results(lively(0.1))["sharpe"].passed


def test_the_benchmark_may_be_better_by_half_a_point():
    assert results(lively(0.31))["sharpe_near_benchmark"].passed
    line = results(lively(0.29))["sharpe_near_benchmark"]
    assert not line.passed
    assert_allclose(line.threshold, 0.3)
    assert "ALL_SPY has 0.80" in line.detail


def test_turnover_above_half_the_wealth_a_day_fails():
    assert results(lively(0.5, turnover=np.full(500, 0.5)))["turnover_per_day"].passed
    assert not results(lively(0.5, turnover=np.full(500, 0.51)))["turnover_per_day"].passed


def test_half_of_the_baselines_with_a_sharpe_must_be_beaten():
    assert_allclose(results(lively(0.6))["share_of_baselines_beaten"].figure, 2 / 3)  # CASH has none
    assert not results(lively(0.3))["share_of_baselines_beaten"].passed


def test_one_action_for_ever_given_with_certainty_has_collapsed():
    stuck = lively(0.6, actions=np.zeros(500, int), entropy=np.full(500, 1e-4))
    assert not results(stuck)["not_collapsed"].passed
    assert not check(stuck, BASELINES).passed


def test_one_action_for_ever_of_an_undecided_policy_has_not_collapsed():
    undecided = lively(0.6, actions=np.zeros(500, int), entropy=np.full(500, 1.5))
    line = results(undecided)["not_collapsed"]
    assert line.passed
    assert "1 distinct actions, entropy of choices 0.00, of the policy 1.50" in line.detail


def test_a_continuous_policy_has_collapsed_where_its_weights_never_move():
    weights = np.tile([0.3, 0.7], (500, 1))
    assert not results(with_sharpe(0.6, weights=weights, symbols=("A", "B")))["not_collapsed"].passed
    weights[::2] = 0.7, 0.3
    line = results(with_sharpe(0.6, weights=weights, symbols=("A", "B")))["not_collapsed"]
    assert line.passed
    assert_allclose(line.figure, 0.4)


def test_a_policy_in_cash_has_no_sharpe_and_fails():
    assert not results(track_of(np.zeros(500), actions=np.arange(500) % 2))["sharpe"].passed


def test_entropy_of_two_equal_choices_is_log_two():
    assert_allclose(action_entropy(np.array([0, 5, 0, 5])), np.log(2))
    assert action_entropy(np.array([3, 3])) == 0.0


def test_weight_deviation_is_the_mean_distance_from_the_mean_weights():
    assert_allclose(weight_deviation(np.array([[1.0, 0.0], [0.0, 1.0]])), 1.0)


def test_the_benchmark_is_spy_or_equal_weight_or_the_one_named():
    assert find_benchmark(["CASH", "EQUAL_WEIGHT", "ALL_SPY"]) == "ALL_SPY"
    assert find_benchmark(["CASH", "EQUAL_WEIGHT"]) == "EQUAL_WEIGHT"
    assert find_benchmark(["CASH", "ALL_QQQ"], "ALL_QQQ") == "ALL_QQQ"
    with pytest.raises(ConfigError, match=r"gate.benchmark: ALL_DIA is not among the baselines: CASH"):
        find_benchmark(["CASH"], "ALL_DIA")


def test_the_report_goes_into_json_even_where_figures_are_undefined():
    report = check(track_of(np.zeros(500)), BASELINES).to_dict()
    json.dumps(report, allow_nan=False)
    assert report["checks"][0]["figure"] is None
    assert not report["passed"]


def test_thresholds_outside_their_meaning_are_refused():
    with pytest.raises(ConfigError, match=r"gate.min_share_beaten = 50"):
        GateConfig(min_share_beaten=50)
    with pytest.raises(ConfigError, match=r"gate.sharpe_margin = -1"):
        GateConfig(sharpe_margin=-1)
