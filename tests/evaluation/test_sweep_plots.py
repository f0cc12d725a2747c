import io

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rlplatform.evaluation.sweep_plots import (
    _explained,
    _Scale,
    metric_words,
    plot_parallel_coordinates,
    plot_parameter_effects,
)

RNG = np.random.default_rng(0)
METRIC = "validation_sharpe"


def texts(figure):
    figure.savefig(io.BytesIO(), format="png")
    words = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        words += [axes.get_xlabel(), *(text.get_text() for text in axes.texts)]
        words += [tick.get_text() for tick in axes.get_xticklabels()]
    return words


def test_few_values_stand_evenly_and_many_on_their_own_scale():
    few = _Scale.of("penalty", [0.0, 0.1, 10.0, 0.1])
    assert (few.discrete, [text for _, text in few.ticks]) == (True, ["0", "0.1", "10"])
    assert_allclose(few.heights, [0, 0.5, 1, 0.5])
    many = _Scale.of("rate", np.logspace(-4, -2, 9).tolist())
    assert (many.discrete, many.log) == (False, True)
    assert_allclose(many.heights, np.linspace(0, 1, 9))
    assert not _Scale.of("share", np.linspace(0.5, 1.0, 9).tolist()).log
    assert _Scale.of("one", [3, 3]).heights.tolist() == [0.5, 0.5]


def test_numbers_that_read_alike_keep_their_own_places():
    assert_allclose(_Scale.of("rate", [1.00001, 1.00002, 1.00003]).heights, [0, 0.5, 1])


def test_values_that_are_no_numbers_have_a_place_each():
    scale = _Scale.of("shutdown", [None, {"loss_limit": 0.05}, None, True])
    assert [text for _, text in scale.ticks] == ["none", "{loss_limit: 0.05}", "yes"]
    assert_allclose(scale.heights, [0, 0.5, 0, 1])


def test_a_schedule_is_written_as_where_it_goes():
    assert [text for _, text in _Scale.of("rate", [0.5, [[0, 0.01], [300, 0.0]]]).ticks] == ["0.5", "0.01 → 0"]


def test_a_parameter_that_decides_everything_explains_everything_and_one_that_does_not_nothing():
    decides, idle = _Scale.of("a", [0, 1, 0, 1]), _Scale.of("b", [0, 0, 1, 1])
    scores = np.array([1.0, 3.0, 1.0, 3.0])
    assert _explained(decides, scores) == pytest.approx(1)
    assert _explained(idle, scores) == pytest.approx(0)
    assert _explained(decides, np.ones(4)) == 0.0
    half = np.array([1.0, 3.0, 3.0, 5.0])  # total 8 about 3; means by a are 2 and 4, so 4 of 8 are left
    assert _explained(decides, half) == pytest.approx(0.5)


def test_a_curved_effect_of_a_range_counts_too():
    values = np.linspace(0, 1, 20)
    assert _explained(_Scale.of("x", values.tolist()), -((values - 0.5) ** 2)) == pytest.approx(1)


def sweep(n=12):
    settings = [
        {
            "env.reward.turnover": [0.0, 0.1, 0.3][i % 3],
            "training.learning_rate": float(rate),
            "training.schedule": ["a", "b"][i % 2],
        }
        for i, rate in enumerate(10 ** RNG.uniform(-4, -2, n))
    ]
    return settings, [0.2 * (i % 3) + 0.01 * (i % 2) for i in range(n)]


def test_the_parallel_figure_names_the_best_setting_and_every_axis():
    settings, scores = sweep()
    figure = plot_parallel_coordinates(settings, scores, METRIC)
    words = texts(figure)
    assert words[0].startswith("Best of 12 settings: turnover 0.3")
    assert words[1] == "Validation Sharpe, mean over seeds: 0.41 there, 0 to 0.41 in all"
    assert {"turnover", "learning_rate", "schedule", "Validation Sharpe"} <= set(words)
    assert len(figure.axes[0].patches) == 12
    widths = [patch.get_linewidth() for patch in figure.axes[0].patches]
    assert widths[-1] == max(widths) > widths[0]  # the best is drawn last and boldest


def test_where_less_is_better_the_lowest_is_best():
    settings, scores = sweep()
    words = texts(plot_parallel_coordinates(settings, scores, "validation_turnover_per_day", "min"))
    assert words[0].startswith("Best of 12 settings: turnover 0,")


def test_the_effects_figure_puts_the_strongest_first():
    settings, scores = sweep()
    figure = plot_parameter_effects(settings, scores, METRIC)
    assert texts(figure)[0].startswith("turnover explains 100 % of the spread of validation Sharpe")
    assert figure.axes[0].get_xlabel() == "turnover"
    assert len(figure.axes) == 3


@pytest.mark.parametrize("n", [2, 3, 40])
@pytest.mark.parametrize("same", [False, True])
def test_any_number_of_trials_can_be_drawn_also_when_all_score_alike(n, same):
    settings, scores = sweep(n)
    scores = [1.0] * n if same else scores
    texts(plot_parallel_coordinates(settings, scores, METRIC))
    texts(plot_parameter_effects(settings, scores, METRIC))


def test_keys_that_end_alike_are_told_apart():
    settings = [{"a.rate": 1, "b.rate": 2}, {"a.rate": 2, "b.rate": 1}]
    assert {"a.rate", "b.rate"} <= set(texts(plot_parallel_coordinates(settings, [0.0, 1.0], METRIC)))


def test_metrics_are_written_as_words():
    assert metric_words("validation_max_drawdown") == "Validation max drawdown"
