import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.significance import BootstrapConfig, block_length, compare, compare_all
from tests.evaluation.conftest import track_of

FAST = BootstrapConfig(resamples=300)


def pair(edge, seed=0, bars=1_000, own=0.003):
    """Two tracks on one market; the policy adds `edge` a bar and noise of its own."""
    rng = np.random.default_rng(seed)
    market = 0.0003 + 0.012 * rng.standard_normal(bars)
    return track_of(market + edge + own * rng.standard_normal(bars)), track_of(market, "market")


def test_a_planted_edge_is_recognised():
    edge = compare(*pair(edge=0.0005), FAST)
    assert edge.claims_edge
    assert edge.verdict == "beats"
    assert edge.sharpe_low > 0
    assert_allclose(edge.growth, 252 * 0.0005, rtol=0.4)


def test_a_planted_loss_is_recognised():
    edge = compare(*pair(edge=-0.0005), FAST)
    assert edge.verdict == "loses to"
    assert not edge.claims_edge


def test_pairing_removes_the_market_that_both_share():
    policy, market = pair(edge=0.0, own=0.001)
    edge = compare(policy, market, FAST)
    own, shared = 0.001 * math.sqrt(252 / 4), 0.012 * math.sqrt(252 / 4)  # standard errors over four years, nearly
    assert 2 * own < edge.growth_high - edge.growth_low < 6 * own < shared


def test_without_an_edge_the_interval_covers_zero_about_nineteen_times_in_twenty():
    edges = [compare(*pair(edge=0.0, seed=seed, bars=250), BootstrapConfig(resamples=200)) for seed in range(200)]
    covered = np.mean([edge.growth_low <= 0 <= edge.growth_high for edge in edges])
    assert 0.89 <= covered <= 0.985
    assert np.mean([edge.claims_edge for edge in edges]) <= 0.07  # one side


def test_the_growth_figure_is_the_annual_difference_of_log_wealth():
    policy, market = pair(edge=0.0002, bars=504)
    expected = math.log(policy.wealth[-1] / market.wealth[-1]) / 2
    assert_allclose(compare(policy, market, FAST).growth, expected)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    tracks = pair(edge=0.0002)
    assert compare(*tracks, FAST) == compare(*tracks, FAST)
    assert compare(*tracks, FAST) != compare(*tracks, BootstrapConfig(resamples=300, seed=1))


def test_blocks_are_long_where_differences_persist():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(2_000)
    persistent = np.zeros(2_000)
    for t in range(1, 2_000):
        persistent[t] = 0.9 * persistent[t - 1] + noise[t]
    assert block_length(noise) < 5 < 15 < block_length(persistent)


def test_twins_have_no_edge():
    edge = compare(track_of([0.01, -0.01] * 50), track_of([0.01, -0.01] * 50, "twin"))
    assert (edge.growth_low, edge.growth_high, edge.claims_edge) == (0.0, 0.0, False)
    assert edge.verdict == "no edge shown"


def test_cash_has_no_sharpe_to_compare_but_has_growth():
    policy, _ = pair(edge=0.0)
    edge = compare(policy, track_of(np.zeros(1_000), "CASH"), FAST)
    assert math.isfinite(edge.growth_low)
    assert math.isnan(edge.sharpe)
    json.dumps(edge.to_dict(), allow_nan=False)


def test_a_ruined_policy_claims_nothing():
    market = pair(edge=0.0)[1]
    ruined = track_of([-0.5, -0.99], "ruined", ruined=True)
    edge = compare(ruined, market)
    assert math.isnan(edge.growth_low)
    assert edge.verdict == "no edge shown"


def test_too_few_bars_allow_no_interval():
    edge = compare(track_of([0.01] * 5), track_of([0.0] * 5, "CASH"))
    assert not edge.claims_edge
    assert edge.to_dict()["growth_low"] is None


def test_tracks_on_other_dates_are_refused():
    with pytest.raises(
        ShapeError, match=r"policy covers 2020-01-01 to .* \(1000 bars\) and short .* judge both on the same dates"
    ):
        compare(pair(0.0)[0], track_of(np.zeros(999), "short"))


def test_each_baseline_is_compared_by_itself():
    policy, market = pair(edge=0.0)
    assert [edge.baseline for edge in compare_all(policy, [market, track_of(np.zeros(1_000), "CASH")], FAST)] == [
        "market",
        "CASH",
    ]


def test_confidence_in_percent_is_refused():
    with pytest.raises(ConfigError, match=r"bootstrap.confidence = 95; .* 95 % is 0.95"):
        BootstrapConfig(confidence=95)
