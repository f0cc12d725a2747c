"""The frontier of a sweep: which points and which curve, without training any."""

import io

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from rlplatform.evaluation.frontier_plot import FrontierPoint, plot_frontier
from rlplatform.experiments.config import load_config
from rlplatform.experiments.search import load_sweep
from rlplatform.experiments.sweep_frontier import known_frontier, sweep_frontier
from rlplatform.experiments.sweep_results import SettingResult
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "tune_configs"


def results(values, key="training.cvar_weight"):
    """Settings with two seeds each; the better the growth, the worse the tail."""
    settings, rows = [], []
    for i, value in enumerate(values):
        names = (f"{2 * i}", f"{2 * i + 1}")
        settings.append(SettingResult(settings={key: value}, trials=names, scores=(1.0, 1.0), rank=i + 1))
        rows += [(name, -0.01 + 0.002 * i, 0.5 - 0.1 * i + 0.02 * seed) for seed, name in enumerate(names)]
    return tuple(settings), pd.DataFrame(rows, columns=["trial", "validation_cvar_5", "validation_cagr"])


def words(figure):
    figure.savefig(io.BytesIO(), format="png")
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts)]


@pytest.fixture(scope="module")
def base():
    return load_config(CONFIGS / "tail_risk.yaml")


def test_the_sweep_file_and_the_planted_config_are_whole(base):
    sweep = load_sweep(CONFIGS / "tail_risk.yaml")
    assert [each["training.cvar_weight"] for each in sweep.search.draws()] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert load_config(CONFIGS / "planted_fat_tail.yaml").model == base.model


def test_the_line_follows_the_parameter_whatever_the_ranks(base):
    settings, trials = results([1.0, 0.0, 0.5])
    figure = sweep_frontier(settings, trials, base)
    curve, line, *_ = figure.axes[0].get_lines()
    assert_allclose(line.get_xdata(), [-0.008, -0.006, -0.01])  # weights 0, ½, 1
    assert_allclose(line.get_ydata(), [0.41, 0.31, 0.51])
    assert len(curve.get_xdata()) == 41
    assert words(figure)[0] == "From −1.00 % to −0.60 % on the worst 5 % of the days, from 51.0 % to 31.0 % a year"
    assert {"0", "0.5", "1", "best weights by the law"} <= set(words(figure))


def test_settings_that_are_no_numbers_stand_without_a_line_and_real_prices_without_a_curve(base):
    settings, trials = results(["gru", "mlp"], "model.kind")
    on_prices = load_config(CONFIGS / "turnover_penalty.yaml")
    figure = sweep_frontier(settings, trials, on_prices)
    assert len(figure.axes[0].get_lines()) == 4  # rings and dot of each
    assert {"gru", "mlp"} <= set(words(figure))


def test_no_frontier_without_both_figures_or_with_one_setting(base):
    settings, trials = results([0.0, 1.0])
    assert sweep_frontier(settings[:1], trials, base) is None
    assert sweep_frontier(settings, trials.assign(validation_cagr=None), base) is None


def test_the_known_frontier_runs_from_all_growth_to_the_best_tail(base):
    known = np.array(known_frontier(base))
    carry = base.data.load().close[15_653:17_740, 0]  # the validation days, CARRY alone
    gain = np.sort(carry[1:] / carry[:-1] - 1)
    assert_allclose(known[0], [gain[: -(-len(gain) // 20)].mean(), (carry[-1] / carry[0]) ** (252 / len(gain)) - 1], rtol=1e-6)
    assert known[-1, 0] == pytest.approx(known[:, 0].max(), abs=2e-5)
    assert (np.diff(known[:, 1]) <= 1e-3).all()
    assert known_frontier(load_config(CONFIGS / "planted_momentum.yaml")) == ()


def test_labels_of_points_in_one_place_do_not_cover_each_other():
    same = [FrontierPoint(label=name, worst=(0.01,), growth=(0.2,)) for name in "abc"]
    far = FrontierPoint(label="d", worst=(0.02,), growth=(0.1,))
    axes = plot_frontier([*same, far]).axes[0]
    assert len({text.xyann for text in axes.texts[:3]}) == 3
