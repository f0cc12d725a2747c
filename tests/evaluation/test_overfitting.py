"""A case small enough to do by hand, the paper's test cases, and what the issue asks to be shown."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.deflated import Trials, judge_sharpe
from rlplatform.evaluation.metrics import sharpe_ratio
from rlplatform.evaluation.overfitting import backtest_overfitting


def random_trials(bars=1_000, trials=200, seed=0, planted=None):
    """Daily returns without any edge; `planted` gives the last trial an annual Sharpe ratio."""
    returns = 0.01 * np.random.default_rng(seed).standard_normal((bars, trials))
    if planted is not None:
        returns[:, -1] += 0.01 * planted / math.sqrt(252)
    return returns


def test_two_trials_in_two_blocks_by_hand():
    """Up is best in the first block and worst in the second, Down the other way round: every choice fails."""
    up, down = [0.02, 0.01, -0.02, -0.01], [-0.02, -0.01, 0.02, 0.01]
    found = backtest_overfitting(np.column_stack([up, down]), blocks=2)
    assert found.splits == 2
    assert found.probability == 1.0
    assert found.loss_probability == 1.0
    assert_allclose(found.logits, math.log((1 / 3) / (2 / 3)))  # rank 1 of 2: ω = 1/3
    assert_allclose(found.chosen, sharpe_ratio(np.array([0.02, 0.01])))
    assert_allclose(found.kept, -found.chosen)


def test_a_trial_that_is_best_everywhere_is_kept():
    good, bad = [0.02, 0.01, 0.02, 0.01], [-0.02, -0.01, 0.01, -0.01]
    found = backtest_overfitting(np.column_stack([bad, good]), blocks=2)
    assert (found.probability, found.loss_probability) == (0.0, 0.0)
    assert_allclose(found.logits, math.log(2.0))  # rank 2 of 2: ω = 2/3


def test_block_sums_give_the_ratios_of_the_bars_themselves():
    returns = random_trials(bars=64, trials=3) + 0.02
    found = backtest_overfitting(returns, blocks=4)
    chosen, kept = [], []
    for first in range(4):
        for second in range(first + 1, 4):
            inside = np.isin(np.arange(64) // 16, (first, second))
            ratios = [sharpe_ratio(column[inside]) for column in returns.T]
            best = int(np.argmax(ratios))
            chosen.append(ratios[best])
            kept.append(sharpe_ratio(returns[~inside, best]))
    assert_allclose((found.chosen, found.kept), (np.mean(chosen), np.mean(kept)))


def test_trials_centred_to_the_same_mean_overfit_almost_surely():
    """Bailey et al. (2015), test case 1: what is won in one half is lost in the other."""
    returns = random_trials(trials=100)
    assert backtest_overfitting(returns - returns.mean(0)).probability > 0.95


def test_the_better_the_one_good_trial_the_lower_the_probability():
    """Bailey et al. (2015), test cases 2 to 4: one trial among many has a Sharpe ratio of 1, 2, 3."""
    found = [
        np.mean([backtest_overfitting(random_trials(1_000, 50, seed, planted), blocks=10).probability for seed in range(12)])
        for planted in (1.0, 2.0, 3.0)
    ]
    assert 0.25 < found[0] < 0.5
    assert 0.05 < found[1] < 0.2
    assert found[2] < 0.06


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_two_hundred_random_policies_is_no_edge_once_all_are_counted(seed):
    """Chosen in sample it looks like an edge; as one of 200 it is none."""
    returns = random_trials(seed=seed)
    best = returns[:, int(np.argmax([sharpe_ratio(column) for column in returns.T]))]
    assert judge_sharpe(best).p_value < 0.05
    assert judge_sharpe(best, Trials.of_returns(returns)).p_value > 0.05


def test_choosing_the_best_of_two_hundred_random_policies_overfits():
    """One history's PBO varies between 0.2 and 0.9 around the 0.5 of drawing lots, so twenty are looked at."""
    found = [backtest_overfitting(random_trials(seed=seed), blocks=10).probability for seed in range(20)]
    assert 0.4 < np.mean(found) < 0.6
    assert np.median(found) > 0.4


def test_a_planted_edge_among_two_hundred_trials_is_recognised():
    """An annual Sharpe ratio of 3 over five years."""
    overfit = []
    for seed in range(6):
        returns = random_trials(bars=1_250, seed=seed, planted=3.0)
        assert int(np.argmax([sharpe_ratio(column) for column in returns.T])) == 199
        found = judge_sharpe(returns[:, 199], Trials.of_returns(returns))
        assert found.p_value < 0.05
        assert found.convincing
        overfit.append(backtest_overfitting(returns, blocks=10).probability)
    assert np.mean(overfit) < 0.1


def test_ties_and_trials_without_volatility_do_not_break_ranks():
    returns = random_trials(bars=100, trials=4)
    returns[:, 0], returns[:, 1] = 0.0, returns[:, 2]
    found = backtest_overfitting(returns, blocks=4)
    assert np.isfinite(found.logits).all()
    assert 0 <= found.probability <= 1


@pytest.mark.parametrize("blocks", [3, 0, 22])
def test_odd_or_too_many_blocks_are_refused(blocks):
    with pytest.raises(ConfigError, match=f"blocks = {blocks}; expected an even number from 2 to 20"):
        backtest_overfitting(random_trials(trials=3), blocks=blocks)


def test_a_missing_return_is_refused_with_its_place():
    returns = random_trials(bars=100, trials=3)
    returns[7, 1] = np.nan
    with pytest.raises(ConfigError, match=r"returns\[7, 1\] is nan .* every trial needs every bar"):
        backtest_overfitting(returns)
    with pytest.raises(ConfigError, match="20 bars in 16 blocks"):
        backtest_overfitting(random_trials(bars=20, trials=3))
    with pytest.raises(ShapeError, match="trials ≥ 2"):
        backtest_overfitting(returns[:, :1])
