import io

import pytest

from envs.errors import ConfigError
from rlplatform.evaluation.estimate_plot import EstimatePoint, plot_estimates


def points():
    return [
        EstimatePoint(
            policy=policy, estimator=name, value=truth + shift, low=truth + shift - 1, high=truth + shift + 1, truth=truth
        )
        for policy, truth in (("uniform", -2.0), ("greedy", 5.0), ("trained", 6.0))
        for name, shift in (("wis", 0.2), ("dr", 2.0), ("is", -2.0))
    ]


def texts(figure):
    figure.savefig(io.BytesIO(), format="png")
    return [text.get_text() for text in figure.texts] + [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_figure_counts_the_intervals_that_hold_the_truth_and_names_policies_and_axes():
    figure = plot_estimates(points())
    words = texts(figure)
    assert words[0] == "3 of 9 intervals hold the true value"
    assert {"uniform", "greedy", "trained"} <= set(words)
    axes = figure.axes[0]
    assert axes.get_xlabel().startswith("True value")
    assert axes.get_ylabel().startswith("Estimate")


def test_an_estimate_far_off_leaves_the_others_readable():
    far = EstimatePoint(policy="greedy", estimator="is", value=5e6, low=-1e3, high=1e7, truth=5.0)
    low, high = plot_estimates([*points(), far]).axes[0].get_ylim()
    assert -50 < low < high < 50


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no estimates to draw"):
        plot_estimates([])
