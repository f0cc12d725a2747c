"""The offline benchmark: its arithmetic from rates that a reader can divide by hand, and both contenders once, tiny."""

import json

import pytest
from typer.testing import CliRunner

from rlplatform.bench import benchmark, offline_speed, process
from rlplatform.bench.contenders import WORK
from rlplatform.bench.offline_speed import FIRST_UPDATE, LEARNING, offline_ratios
from rlplatform.bench.task import BenchTask
from rlplatform.cli import app

TINY = BenchTask(minibatch_size=64, num_epochs=2, seconds=0.0)
SIZES = {"episodes": 4, "length": 32}


def measured(rate, first):
    return {LEARNING: {"steps_per_s": rate}, FIRST_UPDATE: first}


def test_the_ratio_is_of_rates_and_of_seconds_to_the_first_update():
    rounds = [{"offline_ours": measured(3e5, 0.5), "offline_stock": measured(1e4, 10.0)}]
    assert offline_ratios(rounds) == {"offline_vs_rllib_default": 30.0, "offline_first_update": 20.0}


def test_a_contender_that_failed_has_no_ratio():
    rounds = [{"offline_ours": measured(3e5, 0.5), "offline_stock": {"error": "killed"}}]
    assert offline_ratios(rounds) == {"offline_vs_rllib_default": None, "offline_first_update": None}


def test_the_command_shows_both_contenders_and_an_error(tmp_path, monkeypatch):
    answers = {"offline_ours": measured(3e5, 0.5), "offline_stock": {"error": "killed"}}
    monkeypatch.setattr(process, "run_alone", lambda work, task, settings=None: answers[work])
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "offline", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["ratios"]["offline_vs_rllib_default"] is None
    assert {row["name"]: row["error"] for row in result["offline"]} == {"offline_ours": "", "offline_stock": "killed"}
    text = (tmp_path / "results" / "bench" / "latest.md").read_text()
    assert "| MARWIL, ours (arrays in memory) | 300k | 0.5 s |  |" in text
    assert set(benchmark.RATIOS) >= {"offline_vs_rllib_default", "offline_first_update"}


@pytest.mark.parametrize("name", ["offline_ours", pytest.param("offline_stock", marks=pytest.mark.slow)])
def test_both_learn_a_little(ray_session, monkeypatch, name):
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: None)  # the tests' own session serves
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    result = WORK[name](TINY, **SIZES)
    assert result[LEARNING]["steps"] == 128
    assert result[FIRST_UPDATE] > 0
    model = offline_speed.OBS_SIZE * 128 + 128 + 128 * 128 + 128 + (128 + 1) * (offline_speed.NUM_ACTIONS + 1)
    assert result["parameters"] == model
