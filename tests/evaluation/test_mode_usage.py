"""Which mode a policy acted in, counted by hand."""

import json

import numpy as np
import pytest

from envs.errors import ShapeError
from rlplatform.evaluation import report
from rlplatform.evaluation.backtest import run_policy
from rlplatform.evaluation.html_report import render_html
from rlplatform.evaluation.html_report_findings import Findings
from rlplatform.evaluation.mode_usage import mode_usage, plot_modes
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.verdict import judge
from tests.evaluation.conftest import track_of

MODES = ("probe", "passive", "aggressive")
GATE = [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]]


def gated(bars=4, **given):
    """Four bars: one probing, three aggressive."""
    repeat = bars // 4
    return track_of(
        np.tile([0.01, 0.02, -0.01, 0.05], repeat),
        "PPO_HIERARCHICAL",
        weights=np.tile([[0.2], [1.0], [0.5], [0.9]], (repeat, 1)),
        turnover=np.tile([0.2, 0.8, 0.5, 0.2], repeat),
        gate=np.tile(GATE, (repeat, 1)),
        mode_names=MODES,
        **given,
    )


def test_usage_by_hand():
    probe, passive, aggressive = mode_usage(gated())
    assert (probe.share, passive.share, aggressive.share) == (0.25, 0.0, 0.75)
    assert probe.probability == pytest.approx(0.25)
    assert aggressive.mean_return == pytest.approx(0.02)
    assert aggressive.turnover == pytest.approx(0.5)
    assert aggressive.exposure == pytest.approx(0.8)
    assert probe.exposure == pytest.approx(0.2)
    assert passive.to_dict()["mean_return"] is None
    assert passive.row()["Mean return"] == "–"


def test_a_policy_without_a_gate_has_no_modes():
    assert mode_usage(track_of([0.01, 0.02])) == ()


def test_the_report_tells_modes_in_text_json_and_picture_and_the_page_does_too(tmp_path):
    policy = gated(120)
    baselines = [track_of(policy.returns - 0.001, "EQUAL_WEIGHT"), track_of(np.zeros(120), "CASH")]
    verdict = judge(policy, baselines, bootstrap=BootstrapConfig(resamples=100))
    text = report.write_report(tmp_path, verdict).read_text()
    assert "## Which mode it acted in" in text
    assert "| aggressive | 75.0 % | 55.0 % | +2.000 % | 50.0 % | 80.0 % |" in text
    assert "![Modes over time](modes.png)" in text
    assert json.loads((tmp_path / "report.json").read_text())["modes"][0]["share"] == 0.25
    page = render_html(Findings(run="run", verdict=verdict))
    assert "Which mode it acted in" in page
    assert "was aggressive on 75 % of bars" in page
    flat = judge(track_of(policy.returns, "PPO_GRU"), baselines, bootstrap=BootstrapConfig(resamples=100))
    assert "Which mode" not in report.render_markdown(flat, ["equity.png", "drawdown.png"])


def test_the_strip_has_a_row_for_each_mode():
    axes = plot_modes(gated(120)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(MODES)


def test_a_backtest_keeps_what_the_gate_thought():
    class Bars:
        unwrapped = property(lambda self: self)

        def reset(self, seed=None):
            self.left = 3
            return np.zeros(1), self.told()

        def told(self):
            day = np.datetime64("2020-01-06") - np.timedelta64(self.left, "D")
            return {"date": day, "wealth": 1.0, "weights": [0.0], "turnover": 0.0, "cost": 0.0, "financing": 0.0}

        def step(self, action):
            self.left -= 1
            return np.zeros(1), 0.0, False, self.left == 0, self.told()

    class Gated:
        mode_names = ("probe", "aggressive")

        def initial_state(self, batch):
            return None

        def act(self, obs, state, deterministic):
            return np.zeros((1, 1)), state, {"gate": np.array([[0.25, 0.75]])}

    track = run_policy("gated", Bars(), Gated(), symbols=["A"])
    assert track.mode_names == ("probe", "aggressive")
    np.testing.assert_array_equal(track.gate, [[0.25, 0.75]] * 3)


def test_a_gate_of_another_number_of_modes_is_refused():
    with pytest.raises(ShapeError, match=r"gate has shape \(4, 3\); expected \(4, 2\), a column a mode"):
        track_of(np.zeros(4), gate=np.array(GATE), mode_names=("probe", "aggressive"))
