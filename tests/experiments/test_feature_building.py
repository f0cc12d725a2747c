"""`rlplatform features build`: what is missing is made, by this process or by actors, and a training reads it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from envs.errors import ConfigError
from rlplatform.cli import app
from rlplatform.experiments import feature_building
from rlplatform.experiments.config import load_config
from rlplatform.experiments.feature_building import build_features
from rlplatform.experiments.market import prepare_market
from rlplatform.features.forecasts.store import FeatureStore

SETTINGS = """\
name: with_forecasts
data: {{source: synthetic, market: pair, bars: 420}}
features:
  groups: [returns]
  forecasts:
    backend: core
    horizons: [1, 3]
    columns: [std, gate]
    draws: 200
    store: {store}
    bootstrap: {{window: 100, min_history: 60}}
    garch: {{window: 200, min_history: 100, refit_bars: 100}}
split: {{train: [2000-06-01, 2001-01-31], test: [2001-02-01, 2001-07-31]}}
env: {{id: Portfolio-v0}}
"""


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "with_forecasts.yaml"
    path.write_text(SETTINGS.format(store=tmp_path / "store"), encoding="utf-8")
    return path


def test_a_build_makes_every_forecast_once_and_a_training_finds_all_of_them(settings, tmp_path, monkeypatch):
    config = load_config(settings)
    seen = []
    build = build_features(config, workers=0, on_progress=lambda done, total: seen.append((done, total)))
    assert [(row["backend"], row["computed"], row["in_store"]) for row in build.backends] == [
        ("bootstrap", 840, 0),
        ("garch", 840, 0),
    ]
    assert seen[-1] == (1680, 1680)
    assert build.statistics_files == 4
    again = build_features(config, workers=0)
    assert (again.computed, again.statistics_files) == (0, 0)
    assert all(row["made_because"] == "–" for row in again.backends)

    def refuse(*_):
        raise AssertionError("a forecast was computed although it is in the store")

    monkeypatch.setattr("rlplatform.features.forecasts.garch.GarchBackend.forecast", refuse)
    tape = prepare_market(config).tape
    assert tape.feature_names[-4:] == ("forecast_std_1", "forecast_std_3", "forecast_gate_1", "forecast_gate_3")
    assert (tape.forecast_uncertainty > 0).all()


@pytest.mark.slow
def test_actors_make_the_same_files_as_one_process(settings, tmp_path, ray_session):
    here, there = ("features.forecasts.store=" + str(tmp_path / name) for name in ("here", "there"))
    build_features(load_config(settings, [here]), workers=0)
    build = build_features(load_config(settings, [there]), workers=2)
    assert build.workers == 2
    files = {
        name: sorted((p.relative_to(tmp_path / name), p.read_bytes()) for p in (tmp_path / name).rglob("*.parquet"))
        for name in ("here", "there")
    }
    assert files["here"] == files["there"]
    assert len(files["here"]) == 8 + 4


def test_a_build_that_is_broken_off_goes_on_where_it_was(settings, monkeypatch):
    config, complete, calls = load_config(settings), FeatureStore.complete, []

    def breaks_off(self, *given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        complete(self, *given)

    monkeypatch.setattr(FeatureStore, "complete", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        build_features(config, workers=0)
    monkeypatch.setattr(FeatureStore, "complete", complete)
    rest = build_features(config, workers=0)
    assert sum(row["shards"] for row in rest.backends) == 8 - 3


def test_a_file_without_forecasts_has_nothing_to_build(small_yaml):
    with pytest.raises(ConfigError, match=r"features\.forecasts is missing, so there is nothing to build"):
        build_features(load_config(small_yaml))


def test_the_command_prints_what_it_did_as_json_and_refuses_a_misspelt_setting(settings, monkeypatch):
    monkeypatch.setattr(feature_building, "SMALL", 10**9)
    done = CliRunner().invoke(app, ["features", "build", str(settings), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout[done.stdout.index("{") :])
    assert (result["computed"], result["workers"]) == (1680, 0)
    wrong = CliRunner().invoke(app, ["features", "build", str(settings), "features.forecasts.backend=cor"])
    assert isinstance(wrong.exception, ConfigError)
    assert "features.forecasts.backend = 'cor'" in str(wrong.exception)


def test_the_columns_are_listed_with_units():
    done = CliRunner().invoke(app, ["features", "columns", "--json"])
    columns = {row["name"]: row for row in json.loads(done.stdout)["columns"]}
    assert columns["cvar_05"]["unit"] == "fraction of price"
    assert columns["gate"]["keeps_scale"]
    assert not columns["reason"]["feature"]
