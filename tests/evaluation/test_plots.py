import io

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlplatform.evaluation.allocation_plots import is_discrete, plot_actions, plot_weights
from rlplatform.evaluation.figure_style import _spread
from rlplatform.evaluation.plots import _log_ticks, count, plot_drawdown, plot_equity, plot_learning_curve
from tests.evaluation.conftest import dates, track_of

RNG = np.random.default_rng(0)
BASELINES = [track_of(0.01 * RNG.standard_normal(300), name) for name in ("ALL_SPY", "EQUAL_WEIGHT", "OTHER")]


def texts(figure):
    figure.savefig(io.BytesIO(), format="png")
    drawn = [text.get_text() for axes in figure.axes for text in axes.texts]
    return [text.get_text() for text in figure.texts] + drawn


def policy(**given):
    return track_of(0.01 * np.random.default_rng(1).standard_normal(300), "PPO", **given)


def lines(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 10]


def test_a_log_axis_has_two_to_nine_round_ticks_inside_it_however_far_wealth_went():
    assert _log_ticks(0.7, 3.1) == [0.8, 1, 1.5, 2, 3]
    assert_allclose(_log_ticks(1e-86, 8e11), [1e-80, 1e-60, 1e-40, 1e-20, 1], rtol=1e-9)
    for low in (0.03, 0.5, 1e-40, 1e-90):
        for ratio in (3.01, 12.0, 1e3, 1e7, 1e12, 1e25, 1e60, 1e97, 1e180):
            ticks = _log_ticks(low, low * ratio)
            assert 2 <= len(ticks) <= 9, (low, ratio)
            assert all(low * 0.97 <= tick <= low * ratio * 1.03 for tick in ticks)


def test_the_equity_figure_states_its_finding_and_labels_the_main_baselines_only():
    figure = plot_equity(policy(), BASELINES, ["ALL_SPY", "EQUAL_WEIGHT"])
    words = texts(figure)
    assert words[0] == f"PPO turned 1 into {policy().wealth[-1]:.2f}; ALL_SPY turned it into {BASELINES[0].wealth[-1]:.2f}"
    assert not any("OTHER" in word for word in words)
    assert "grey: 1 other baseline" in words
    assert len(lines(figure.axes[0])) == 4


def test_wealth_over_a_wide_range_is_drawn_on_a_log_scale():
    growing = track_of([0.01] * 300, "PPO")
    assert plot_equity(growing, BASELINES, ["ALL_SPY"]).axes[0].get_yscale() == "log"
    flat = track_of([0.0001] * 300, "PPO")
    assert plot_equity(flat, [track_of([0.0] * 300, "ALL_SPY")], ["ALL_SPY"]).axes[0].get_yscale() == "linear"


def test_earlier_tracks_join_at_one_where_the_test_starts_and_the_test_is_shaded():
    test = policy(dates=dates(301, "2021-01-01"))
    train = track_of([0.01] * 100, "PPO", dates=dates(101, "2020-01-01"))
    figure = plot_equity(test, [], [], earlier=[train])
    assert "test" in texts(figure)
    wealth = lines(figure.axes[0])[-1].get_ydata()
    assert len(wealth) == 402
    assert_allclose(wealth[[0, 100, 101]], [1.01**-100, 1.0, 1.0])
    assert "test" not in texts(plot_equity(test, [], []))


def test_a_ruined_policy_can_be_drawn():
    ruined = track_of([0.5, -1.0, 0.0], "PPO", ruined=True)
    texts(plot_equity(ruined, BASELINES, ["ALL_SPY"]))
    texts(plot_drawdown(ruined, BASELINES, ["ALL_SPY"]))


def test_a_policy_that_never_loses_has_a_drawdown_figure():
    assert "PPO fell at most 0.0 % below its peak" in texts(plot_drawdown(track_of([0.01] * 30, "PPO"), [], []))[0]


@pytest.mark.parametrize("assets", [1, 3, 8, 20])
def test_weights_of_any_number_of_assets_are_labelled_with_eight_colours_at_most(assets):
    weights = RNG.dirichlet(np.ones(assets + 1), 300)[:, 1:]
    figure = plot_weights(policy(weights=weights, symbols=[f"S{i}" for i in range(assets)]))
    labels = texts(figure)[2:]
    assert len(labels) == min(assets, 8) + 1  # and cash
    assert any("13 others" in label for label in labels) == (assets == 20)


def test_short_weights_reach_below_zero_and_show_no_cash():
    weights = np.tile([1.0, -0.8], (300, 1))
    figure = plot_weights(policy(weights=weights, symbols=("LONG", "SHORT")))
    assert figure.axes[0].get_ylim()[0] < -0.8
    assert texts(figure)[2:] == ["SHORT  −80 %", "LONG  100 %"]


def test_chosen_actions_are_drawn_most_frequent_first_with_their_share():
    chosen = np.array([2] * 150 + [0] * 100 + [1] * 50)
    figure = plot_actions(policy(actions=chosen), ["HOLD", "CASH", "SPY"])
    words = texts(figure)
    assert words[0] == "PPO chose SPY on 50 % of all bars and changed its mind 2 times in 300"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["SPY", "HOLD", "CASH"]
    assert words[2:] == ["50.0 %", "33.3 %", "16.7 %"]


def test_only_integer_choices_are_discrete():
    assert is_discrete(policy(actions=np.zeros(300, np.int64)))
    assert not is_discrete(policy(actions=np.zeros((300, 2))))
    assert not is_discrete(policy())


def test_the_learning_curve_marks_the_best_validation_sharpe():
    rows = [
        {"env_steps": 1_000 * i, "episode_return_mean": float(i), "validation_sharpe": [0.1, 0.9, 0.4][i - 1]}
        for i in (1, 2, 3)
    ]
    words = texts(plot_learning_curve(rows))
    assert words[0] == "Validation Sharpe was highest after 2k steps, at 0.90; it ended at 0.40"
    assert "best" in words


def test_a_learning_curve_without_validation_has_one_panel():
    rows = [{"env_steps": i, "episode_return_mean": float("nan") if i == 1 else i} for i in range(5)]
    figure = plot_learning_curve(rows)
    assert len(figure.axes) == 1
    assert texts(figure)[0] == "Episode return went from 0 to 4"


def test_labels_are_moved_apart_and_stay_in_order():
    placed = _spread(np.array([0.50, 0.50, 0.51, 0.90]), gap=0.1)
    assert_allclose(placed, [0.4033333, 0.5033333, 0.6033333, 0.9], rtol=1e-5)


def test_counts_are_short():
    assert [count(value) for value in (0, 950, 16_384, 1_250_000)] == ["0", "950", "16.4k", "1.25M"]
