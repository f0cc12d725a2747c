import json

import numpy as np
import pytest

from envs.errors import ConfigError
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.verdict import judge
from tests.evaluation.conftest import track_of

FAST = BootstrapConfig(resamples=200)
RNG = np.random.default_rng(0)
MARKET = 0.0005 + 0.01 * RNG.standard_normal(800)
OWN = 0.002 * RNG.standard_normal(800)
BASELINES = [track_of(MARKET, "ALL_SPY"), track_of(0.9 * MARKET + OWN[::-1], "EQUAL_WEIGHT"), track_of(np.zeros(800), "CASH")]


def verdict(edge, **given):
    policy = track_of(MARKET + OWN - OWN.mean() + edge, "PPO", actions=np.arange(800) % 4)
    return judge(policy, BASELINES, bootstrap=FAST, **given)


def test_the_sentence_says_beats_where_the_interval_excludes_zero():
    sentence = verdict(0.001).sentence
    assert sentence.startswith("Out of sample, 2020-01-01 to 2023-01-25, PPO: beats ALL_SPY")
    assert "95 % interval" in sentence


def test_the_sentence_says_where_the_days_stand_to_what_training_saw():
    assert verdict(0.0, sample="In sample").sentence.startswith("In sample, 2020-01-01")


def test_the_sentence_says_no_edge_shown_where_the_interval_includes_zero():
    assert "PPO: no edge shown over ALL_SPY" in verdict(0.0).sentence


def test_the_sentence_says_loses_to_where_the_interval_lies_below_zero():
    assert "loses to ALL_SPY" in verdict(-0.001).sentence


def test_the_best_baseline_is_named_as_chosen_in_hindsight():
    found = verdict(0.0)
    assert f"{found.best_baseline}, the best baseline in hindsight," in found.sentence


def test_a_ruined_policy_is_called_ruined():
    ruined = track_of([-0.5, -0.99], "PPO", ruined=True)
    found = judge(ruined, BASELINES, bootstrap=FAST)
    assert found.sentence == "Out of sample, 2020-01-01 to 2020-01-03, PPO was ruined; no edge shown against any baseline."
    assert not found.gate.passed


def test_main_baselines_are_the_benchmark_equal_weight_cash_and_the_best():
    assert set(verdict(0.0).main_names) == {"ALL_SPY", "EQUAL_WEIGHT", "CASH"}
    assert verdict(0.0).main_names[0] == "ALL_SPY"
    assert verdict(0.0, main_names=["CASH"]).main_names == ("CASH",)


def test_everything_but_the_paths_goes_into_json():
    content = json.loads(json.dumps(verdict(0.0, notes=["5 bp"]).to_dict(), allow_nan=False))
    assert {"verdict", "policies", "edges", "gate", "start", "end", "notes"} <= set(content)
    assert len(content["policies"]) == 4
    assert {"claims_edge", "growth_low", "growth_high"} <= set(content["edges"][0])


def test_two_tracks_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="Two tracks are called CASH"):
        judge(track_of(MARKET, "CASH"), BASELINES, bootstrap=FAST)


def test_an_unknown_main_baseline_is_refused():
    with pytest.raises(ConfigError, match="main_names: ALL_DIA not among the baselines: ALL_SPY, EQUAL_WEIGHT, CASH"):
        verdict(0.0, main_names=["ALL_DIA"])
