import json

import numpy as np
import pytest

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.comparison import Contender, compare_policies, said_p
from rlplatform.evaluation.deflated import Trials
from rlplatform.evaluation.significance import BootstrapConfig
from tests.evaluation.conftest import track_of

FAST = BootstrapConfig(resamples=300)


def field(edges, bars=1_000, seed=0):
    """A market and one track for each edge a bar, named a, b, c, …"""
    rng = np.random.default_rng(seed)
    market = 0.0003 + 0.01 * rng.standard_normal(bars)
    tracks = [
        track_of(market + edge + 0.003 * rng.standard_normal(bars), name) for name, edge in zip("abcdef", edges, strict=False)
    ]
    return tracks, track_of(market, "market")


def test_a_planted_edge_wins_and_is_named_first():
    (a, b), market = field([0.0, 0.002])
    found = compare_policies([Contender(track=a), Contender(track=b)], market, FAST)
    assert found.ranking == ["b", "a"]
    assert "b beats a" in found.sentence
    assert "deflated Sharpe ratio above zero: b" in found.sentence
    assert found.superiority.superior == ("b",)


def test_two_of_the_same_skill_are_not_told_apart():
    (a, b), market = field([0.0, 0.0])
    found = compare_policies([Contender(track=a), Contender(track=b)], market, FAST)
    assert "is not shown to be better than" in found.sentence


def test_every_pair_is_compared_once_with_the_higher_sharpe_first():
    tracks, market = field([0.0, 0.001, 0.0005])
    found = compare_policies([Contender(track=t) for t in tracks], market, FAST)
    assert [(name, edge.baseline) for name, edge in found.edges] == [("b", "c"), ("b", "a"), ("c", "a")]
    assert len(found.pair_rows()) == len(found.evidence_rows()) == 3
    json.dumps(found.to_dict(), allow_nan=False)


def test_each_ratio_is_deflated_by_its_sweep_or_by_the_settings_compared():
    tracks, market = field([0.001, 0.001, 0.001])
    contenders = [Contender(track=tracks[0], trials=Trials(count=50)), *(Contender(track=t) for t in tracks[1:])]
    found = compare_policies(contenders, market, FAST)
    assert {name: e.trials for name, e in found.evidence.items()} == {"a": 50, "b": 3, "c": 3}


def test_seeds_of_one_setting_are_a_distribution_and_count_as_one_setting():
    tracks, market = field([0.0, 0.0005, 0.001])
    found = compare_policies([Contender(track=t, setting="same") for t in tracks], market, FAST)
    spread = found.seeds["a, b, c"]
    assert spread.seeds == 3
    assert spread.lowest < spread.median < spread.highest
    assert "two seeds of one setting, so the difference is the seed's" in found.sentence
    assert {e.trials for e in found.evidence.values()} == {1}


def test_a_ruined_policy_comes_last_and_proves_nothing():
    (a, _), market = field([0.001, 0.0])
    lost = track_of(np.append(np.full(10, -0.3), np.zeros(990)), "lost", ruined=True)
    found = compare_policies([Contender(track=a), Contender(track=lost)], market, FAST)
    assert found.ranking[-1] == "lost"
    assert found.superiority is None


def test_what_cannot_be_compared_is_refused():
    (a, b), market = field([0.0, 0.0])
    with pytest.raises(ConfigError, match="needs at least two"):
        compare_policies([Contender(track=a)], market)
    with pytest.raises(ConfigError, match="Two tracks are called a"):
        compare_policies([Contender(track=a), Contender(track=a)], market)
    with pytest.raises(ShapeError, match="judge both on the same dates"):
        compare_policies([Contender(track=a), Contender(track=track_of(np.zeros(50), "short"))], market, FAST)
    with pytest.raises(ConfigError, match="holds 5 bars; a comparison needs at least 20"):
        compare_policies([Contender(track=a), Contender(track=b)], track_of([0.0] * 5, "market"))


def test_a_p_value_in_a_sentence_has_one_relation_only():
    assert [said_p(p) for p in (0.0251, 0.0004, float("nan"))] == ["p = 0.025", "p < 0.001", "p = –"]
