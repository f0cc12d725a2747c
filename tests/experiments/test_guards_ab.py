"""The same policy with and without guards, figure by figure."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from envs.guards import GuardsConfig, RegimeGuardConfig
from rlplatform.cli import app
from rlplatform.experiments.config import load_config
from rlplatform.experiments.guards_ab import PRESET, Figures, compare
from rlplatform.experiments.market import prepare_market
from tests.evaluation.conftest import track_of


class AllIn:
    """Everything into the only asset, for ever."""

    def initial_state(self, batch):
        return None

    def act(self, obs, state, deterministic):
        return np.tile(np.array([0.0, 1.0], np.float32), (len(obs), 1)), state, {}


@pytest.fixture(scope="module")
def market(small_yaml):
    config = load_config(small_yaml)
    return config, prepare_market(config).tape


def test_figures_of_a_stretch_start_anew_at_its_first_close():
    track = track_of([0.10, -0.20, 0.05], turnover=np.array([1.0, 0.2, 0.4]))
    found = Figures.of(track, 1, 3)
    assert_allclose([found.turnover_per_bar, found.drawdown, found.total_return], [0.3, -0.2, 0.8 * 1.05 - 1])


def test_guards_that_never_hold_change_nothing(market):
    idle = RegimeGuardConfig(drawdown_limit=0.99, trailing_return_limit=-0.99, turnover_limit=9.0)
    comparison = compare(*market, AllIn(), GuardsConfig(regime=idle))
    assert_allclose(comparison.guarded.wealth, comparison.without.wealth, rtol=0)
    assert comparison.telemetry["guard_scale"] == 1.0
    assert comparison.telemetry["guard_drawdown_rate"] == 0.0
    assert all(row[name] == 0 for row in comparison.rows() for name in row if name.endswith("_change"))


def test_a_drawdown_guard_leaves_sixty_percent_of_an_all_in_book_while_it_is_down(market):
    guard = RegimeGuardConfig(turnover_limit=9.0)
    comparison = compare(*market, AllIn(), GuardsConfig(regime=guard))
    guarded = comparison.guarded
    down = guarded.drawdown[:-1] <= -0.036
    assert 0 < down.mean() < 1
    assert_allclose(guarded.weights[:, 0], np.where(down, 0.6, 1.0))
    assert_allclose(comparison.telemetry["guard_drawdown_rate"], down.mean())
    assert_allclose(comparison.telemetry["guard_scale"], 1 - 0.4 * down.mean())


def test_windows_follow_each_other_and_their_means_are_the_rows(market):
    comparison = compare(*market, AllIn())
    assert comparison.preset
    assert comparison.guards == dataclasses.asdict(PRESET)
    assert len(comparison.windows) == len(comparison.without) // 42
    assert all(a.end == b.start for a, b in zip(comparison.windows, comparison.windows[1:], strict=False))
    rows = {row["part"]: row for row in comparison.rows()}
    assert rows["whole period"]["windows"] == 1
    for part, stressed in (("calm windows", False), ("stressed windows", True)):
        members = [w for w in comparison.windows if w.stressed is stressed]
        assert rows.get(part, {"windows": 0})["windows"] == len(members)
        if members:
            mean = np.mean([w.guarded.drawdown - w.without.drawdown for w in members])
            assert_allclose(rows[part]["drawdown_change"], mean, atol=1e-5)


def test_guards_of_the_config_are_used_and_both_paths_share_their_days(small_yaml):
    config = load_config(small_yaml, ["env.guards={regime: {drawdown_scale: 0.0}}"])
    comparison = compare(config, prepare_market(config).tape, AllIn())
    assert not comparison.preset
    assert comparison.guards["regime"]["drawdown_scale"] == 0.0
    np.testing.assert_array_equal(comparison.guarded.dates, comparison.without.dates)
    assert comparison.without.weights.min() == 1.0


def test_the_command_compares_a_trained_run_over_its_test_period(trained):
    done = CliRunner().invoke(app, ["guards", "ab", str(trained.path), "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["period"] == ["2003-07-01", "2004-06-30"]
    whole = answer["summary"][0]
    assert_allclose(whole["total_return"], trained.verdict.metrics["PPO_GRU"].total_return, atol=1e-5)
    text = CliRunner().invoke(app, ["guards", "ab", str(trained.path)])
    assert "Mean exposure left" in text.stdout
