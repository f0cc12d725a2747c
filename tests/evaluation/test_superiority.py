import math

import numpy as np
import pytest

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.superiority import beaten_baselines, better_than_benchmark
from tests.evaluation.conftest import track_of

FAST = BootstrapConfig(resamples=300)


def market_and_others(count, bars=750, edge=0.0, seed=0):
    """A market and `count` tracks on it; the first has an edge a bar."""
    rng = np.random.default_rng(seed)
    market = 0.0003 + 0.01 * rng.standard_normal(bars)
    others = market[:, None] + 0.004 * rng.standard_normal((bars, count))
    others[:, 0] += edge
    return track_of(market, "market"), [track_of(column, f"policy {k}") for k, column in enumerate(others.T)]


def test_a_real_edge_among_many_is_found_and_named():
    market, policies = market_and_others(20, edge=0.001)
    found = better_than_benchmark(policies, market, FAST)
    assert found.p_value < 0.01
    assert found.superior == ("policy 0",)
    assert len(found.compared) == 20


def test_the_best_of_many_without_edge_is_rarely_called_superior():
    found = [
        better_than_benchmark(policies, market, BootstrapConfig(resamples=200))
        for market, policies in (market_and_others(20, bars=300, seed=s) for s in range(20))
    ]
    assert np.mean([bool(f.superior) for f in found]) <= 0.15  # 5 % expected; each alone would be 64 %
    assert np.mean([f.p_value < 0.05 for f in found]) <= 0.15


def test_only_the_baselines_that_are_beaten_are_named():
    rng = np.random.default_rng(1)
    market = 0.01 * rng.standard_normal(1_000)
    policy = track_of(market + 0.001, "policy")
    twin = track_of(market + 0.001 + 0.0005 * rng.standard_normal(1_000), "twin")
    found = beaten_baselines(policy, [track_of(market + 0.003 * rng.standard_normal(1_000), "worse"), twin], FAST)
    assert found.superior == ("worse",)
    assert found.compared == ("worse", "twin")


def test_all_may_be_superior_also_in_a_second_step():
    """One clear edge and one that is seen only once the first is out of the way; arch's own StepM fails here."""
    rng = np.random.default_rng(0)
    market = 0.01 * rng.standard_normal(1_000)
    wild, weak = 0.01 * rng.standard_normal(1_000), 0.003 * rng.standard_normal(1_000)
    clear = track_of(market + 0.003 + wild - wild.mean(), "clear")
    faint = track_of(market + 1.8 * 0.003 / math.sqrt(1_000) + weak - weak.mean(), "faint")
    found = better_than_benchmark([clear, faint], track_of(market, "market"), BootstrapConfig(resamples=1_000, confidence=0.95))
    assert found.superior == ("clear", "faint")


def test_a_twin_of_the_benchmark_leaves_nothing_to_test():
    market, _ = market_and_others(1)
    found = better_than_benchmark([track_of(market.returns, "twin")], market, FAST)
    assert math.isnan(found.p_value)
    assert found.superior == ()
    assert found.to_dict()["p_value"] is None


def test_the_same_seed_gives_the_same_answer():
    market, policies = market_and_others(5)
    assert better_than_benchmark(policies, market, FAST) == better_than_benchmark(policies, market, FAST)


def test_what_cannot_be_compared_is_refused():
    market, policies = market_and_others(2)
    with pytest.raises(ShapeError, match=r"short covers .* judge all on the same dates"):
        better_than_benchmark([*policies, track_of(np.zeros(30), "short")], market)
    with pytest.raises(ConfigError, match="lost was ruined"):
        better_than_benchmark([track_of(np.full(750, -0.01), "lost", ruined=True)], market)
    with pytest.raises(ConfigError, match="give at least one track"):
        better_than_benchmark([], market)
    with pytest.raises(ConfigError, match="needs at least 20"):
        better_than_benchmark([track_of([0.01] * 5, "few")], track_of([0.0] * 5, "CASH"))
