import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ShapeError
from envs.ledger import path
from envs.terms import CostConfig, FinancingConfig
from rlplatform.evaluation.track import Track
from tests.evaluation.conftest import dates, track_of


def test_returns_are_wealth_after_over_wealth_before():
    assert_allclose(track_of([0.1, -0.5]).returns, [0.1, -0.5])


def test_drawdown_counts_the_starting_wealth_as_a_peak():
    assert_allclose(track_of([-0.1, 0.2, -0.25]).drawdown, [0, -0.1, 0, -0.25], atol=1e-15)


def test_a_ruined_account_neither_gains_nor_loses_afterwards():
    track = Track(
        name="ruined",
        dates=dates(4),
        wealth=[1, 0.5, 0, 0],
        symbols=("A",),
        weights=np.ones((3, 1)),
        turnover=np.zeros(3),
        cost=np.zeros(3),
        financing=np.zeros(3),
        ruined=True,
    )
    assert_allclose(track.returns, [-0.5, -1.0, 0.0])


def test_ledger_steps_of_one_account_become_a_track_whose_financing_includes_borrow_fees():
    targets = np.array([[[2.0, -1.0]], [[1.0, -0.5]]])
    financing = FinancingConfig(rate_annual=0.252, borrow_fee_annual=0.0252)
    steps = path(targets, np.array([[1.1, 1.0], [1.0, 1.0]]), CostConfig(proportional_bps=0), financing)
    track = Track.from_ledger_steps("pair", dates(3), ("A", "B"), steps)
    # 3 × gross finances 2 at 0.001 a bar; 1 short pays 0.0001. Then 0.5 × 0.001 and 0.5 × 0.0001.
    assert_allclose(track.financing, [0.0021, 0.00055])
    assert_allclose(track.wealth, [1.0, 1.2 - 0.0021, (1.2 - 0.0021) * (1 - 0.00055)])
    assert track.weights.shape == (2, 2)
    assert not track.ruined


def test_axes_that_disagree_are_refused_with_both_shapes():
    with pytest.raises(ShapeError, match=r"'policy': turnover has shape \(2,\); expected \(3,\)"):
        track_of([0.0, 0.0, 0.0], turnover=np.zeros(2))
    with pytest.raises(ShapeError, match="actions has 1 rows; expected 3"):
        track_of([0.0, 0.0, 0.0], actions=np.zeros(1, int))


def test_period_is_the_first_and_last_close():
    assert track_of([0.0]).period == ("2020-01-01", "2020-01-02")


def test_guards_are_told_as_shares_a_mean_scale_and_a_sum_of_penalties():
    guards = {"guard_turnover_rate": [1, 0, 0, 1], "guard_scale": [0.5, 1.0, 1.0, 0.9], "guard_penalty": [0.01, 0, 0, 0.03]}
    track = track_of([0.0] * 4, guards=guards)
    assert track.guard_summary == pytest.approx({"guard_turnover_rate": 0.5, "guard_scale": 0.85, "guard_penalty": 0.04})
    assert track_of([0.0]).guard_summary == {}
    with pytest.raises(ShapeError, match="guard_scale has 1 rows; expected 2"):
        track_of([0.0, 0.0], guards={"guard_scale": [1.0]})
