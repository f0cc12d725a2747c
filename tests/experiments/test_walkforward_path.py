"""The joined path: weights go over the seam, the handover is paid, and each fold's policy reads its own scaler's numbers."""

import dataclasses
import itertools

import numpy as np
import pytest

from envs.errors import ConfigError
from rlplatform.evaluation.folds import Fold
from rlplatform.evaluation.track import Track
from rlplatform.experiments.config import load_config
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.walkforward_path import RelayPolicy, joined_tape, judge_walk, median_track


class Always:
    """Cash and one asset, always alike; counts the decisions of its episode in its state."""

    def __init__(self, invested):
        self.action, self.seen, self.states = np.array([[1.0 - invested, invested]]), [], []

    def initial_state(self, batch):
        return 0

    def act(self, obs, state, deterministic):
        self.seen.append(obs[0].copy())
        self.states.append(state)
        return self.action, state + 1, {}


@pytest.fixture(scope="module")
def market(small_yaml):
    config = load_config(small_yaml)
    return config, prepare_market(config)


def folds_of(tape, *rows):
    pairs = itertools.pairwise(rows)
    return [Fold(number=n, train=(0, a - 1), validation=None, test=(a, b)) for n, (a, b) in enumerate(pairs)]


def test_moving_from_all_cash_to_all_invested_at_the_seam_costs_two_basis_points(market):
    config, market = market
    cash, invested = Always(0.0), Always(1.0)
    folds = folds_of(market.tape, 700, 710, 720)
    result = judge_walk(config, [market.tape] * 2, folds, {3: [cash, invested]})
    track = result.verdict.policy
    assert track.weights[:10].sum() == 0
    assert track.wealth[10] == 1.0
    assert track.cost[10] == pytest.approx(2e-4, rel=1e-3)  # 2 bp of all wealth, at the last close of the first fold
    growth = np.prod(market.tape.gross[711:721, 0])
    assert track.wealth[-1] == pytest.approx((1 - track.cost[10]) * growth, rel=1e-12)
    assert [row["seam_turnover"] for row in result.folds] == pytest.approx([0.0, 1.0], rel=1e-3)
    assert result.folds[1]["total_return"] == pytest.approx(track.wealth[-1] - 1)


def test_a_policy_that_takes_over_from_its_equal_trades_nothing_at_the_seam(market):
    config, market = market
    result = judge_walk(config, [market.tape] * 2, folds_of(market.tape, 700, 710, 720), {3: [Always(1.0), Always(1.0)]})
    alone = backtest(config, market.tape, Always(1.0), *(str(market.tape.dates[row])[:10] for row in (700, 720)))
    assert result.verdict.policy.turnover[10] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_array_equal(result.verdict.policy.wealth, alone.wealth)


def test_each_fold_decides_on_its_own_days_with_a_fresh_state(market):
    config, market = market
    first, second = Always(0.0), Always(1.0)
    judge_walk(config, [market.tape] * 2, folds_of(market.tape, 700, 710, 725), {3: [first, second]})
    assert second.states[:3] == [0, 1, 2]
    assert len(first.seen) == 2 * 10  # the path of the seed, and once more for the verdict
    assert len(second.seen) == 2 * 15


def test_a_row_is_scaled_by_the_fold_that_decides_there(market):
    tape = market[1].tape
    other = dataclasses.replace(tape, features=tape.features + 5)
    joined = joined_tape([tape, other], folds_of(tape, 700, 710, 725))
    np.testing.assert_array_equal(joined.features[:710], tape.features[:710])
    np.testing.assert_array_equal(joined.features[710:], other.features[710:])
    np.testing.assert_array_equal(joined.gross, tape.gross)


@pytest.mark.parametrize("starts", [[0], [1, 2], [0, 0], [3, 0]])
def test_policies_take_over_one_after_the_other_from_the_first_decision_on(starts):
    with pytest.raises(ConfigError, match="expected one rising start each, from 0"):
        RelayPolicy([Always(0.0), Always(1.0)], starts)


def track_of(drift, ruined=False):
    returns = drift + 0.01 * np.tile([1.0, -1.0], 20)
    flat = np.zeros(40)
    dates = np.datetime64("2020-01-01") + np.arange(41)
    wealth = np.append(1.0, np.cumprod(1 + returns))
    return Track(
        name="X", dates=dates, wealth=wealth, symbols=("A",), weights=flat[:, None], turnover=flat, cost=flat,
        financing=flat, ruined=ruined,
    )  # fmt: skip


def test_the_seed_in_the_middle_is_judged_and_of_two_the_lower():
    tracks = {1: track_of(0.003), 2: track_of(0.001), 3: track_of(0.002)}
    assert median_track(tracks) == 3
    assert median_track(tracks | {4: track_of(-0.001)}) == 2
    assert median_track({1: track_of(0.003, ruined=True), 2: track_of(-0.002), 3: track_of(0.002)}) == 2


def test_seeds_are_a_distribution_and_settings_that_were_tried_lower_the_confidence(market):
    config, market = market
    policies = {seed: [Always(share), Always(share)] for seed, share in ((1, 0.2), (2, 1.0), (3, 0.5))}
    folds = folds_of(market.tape, 700, 800, 900)
    one = judge_walk(config, [market.tape] * 2, folds, policies)
    many = judge_walk(config, [market.tape] * 2, folds, policies, configs_tried=50)
    spread = one.spread["total_return"]
    assert spread.seeds == 3
    assert spread.median == pytest.approx(one.tracks[3].wealth[-1] - 1)
    assert many.evidence.deflated < one.evidence.deflated == one.evidence.probabilistic
    assert "after 50 tried settings" in many.sentence
    assert list(one.wealth().columns) == ["seed1", "seed2", "seed3"]
    assert len(one.folds) == 6
