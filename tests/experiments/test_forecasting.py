"""`rlplatform forecast train|evaluate`: a forecaster of one's own, judged beside the others."""

from __future__ import annotations

import json

import pytest

from envs.errors import ConfigError
from rlplatform.experiments.config import load_config
from rlplatform.experiments.forecasting import ForecasterDirectory, evaluate, load_forecasting, train

SETTINGS = """\
name: own_forecaster
data: {{source: synthetic, market: pair, bars: 700}}
features:
  forecasts:
    horizons: [1, 3]
    draws: 200
    bootstrap: {{window: 100, min_history: 60}}
    garch: {{window: 200, min_history: 100, refit_bars: 100}}
    chronos: {{context: 64, min_history: 32}}
forecast:
  train:
    {{d_model: 16, num_layers: 1, num_heads: 2, d_ff: 32, context: 32, patch: 8, horizon: 3, min_past: 24, steps: {steps}}}
  backends: {backends}
split: {{train: [2000-01-03, 2001-06-30], test: [2001-07-02, 2002-06-30]}}
env: {{id: Portfolio-v0}}
results_dir: {results}
"""


@pytest.fixture
def settings(tmp_path):
    def write(backends: str = "[gaussian, bootstrap, core, chronos]", steps: int = 30):
        path = tmp_path / "own_forecaster.yaml"
        path.write_text(SETTINGS.format(backends=backends, steps=steps, results=tmp_path / "results"), encoding="utf-8")
        return path

    return write


def test_the_block_is_no_part_of_a_training(settings):
    assert load_config(settings()).name == "own_forecaster"


@pytest.mark.parametrize(
    ("backends", "message"),
    [("[garch]", "expected bootstrap among them"), ("[bootstrap, chonos]", "Did you mean chronos"), ("7", "expected a list")],
)
def test_a_block_that_cannot_be_is_one_line(settings, backends, message):
    with pytest.raises(ConfigError, match=message):
        load_forecasting(settings(backends))


def test_a_file_without_the_block_says_where_one_is(small_yaml):
    with pytest.raises(ConfigError, match=r"has no forecast block .*forecast_features\.yaml"):
        load_forecasting(small_yaml)


def test_without_a_chronos_the_others_are_judged_by_themselves_on_the_test_days(settings):
    result = evaluate(load_forecasting(settings("[iid, gaussian, bootstrap, core]")))
    assert [(s.backend, s.horizon) for s in result.scores][:5] == [
        ("iid", 1),
        ("gaussian", 1),
        ("bootstrap", 1),
        ("core", 1),
        ("iid", 3),
    ]
    assert len({s.cells for s in result.scores if s.horizon == 1}) == 1
    assert result.period[0] == "2001-07-02"
    assert result.sentence.startswith("Lowest CRPS at one bar: ")
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_with_calibration_each_is_judged_without_and_with_it_and_how_often_it_was_kept_is_told(settings):
    quick = "{method: conformal, window: 100, min_rows: 50, validation: 60, min_validation: 30, t_statistic: 0.0}"
    result = evaluate(load_forecasting(settings("[gaussian, bootstrap]"), [f"features.forecasts.calibration={quick}"]))
    names = ["gaussian", "bootstrap", "gaussian+conformal", "bootstrap+conformal"]
    assert [(s.backend, s.horizon) for s in result.scores] == [(name, h) for h in (1, 3) for name in names]
    assert len({s.cells for s in result.scores if s.horizon == 1}) == 1
    plain = evaluate(load_forecasting(settings("[gaussian, bootstrap]")))
    assert [s for s in result.scores if "+" not in s.backend] == list(plain.scores)
    assert [(c.backend, c.horizon, c.method) for c in result.calibration][:2] == [
        ("gaussian", 1, "conformal"),
        ("gaussian", 3, "conformal"),
    ]
    assert any(0 < c.kept_percent < 100 for c in result.calibration)
    by_name = {s.backend: s.crps_bp for s in result.scores if s.horizon == 1}
    gain = 100 * (1 - by_name["gaussian+conformal"] / by_name["gaussian"])
    assert result.calibration[0].gain_percent == pytest.approx(gain, abs=0.01)
    assert all(0.4 < s.below_50 < 0.6 and s.below_05 < 0.15 and s.below_95 > 0.85 for s in result.scores)
    assert result.to_dict()["calibration"][0]["method"] == "conformal"
    assert "calibration" not in plain.to_dict()


def test_without_a_trained_one_the_message_says_how_to_get_one(settings):
    with pytest.raises(ConfigError, match=r"has no forecaster of own_forecaster\. Train one \(rlplatform forecast train\)"):
        evaluate(load_forecasting(settings()))


@pytest.mark.slow
def test_a_forecaster_is_trained_saved_and_judged_on_later_days(settings, tmp_path):
    pytest.importorskip("chronos")
    forecasting = load_forecasting(settings())
    directory, trained = train(forecasting)
    manifest = directory.manifest()
    assert (manifest["status"], manifest["train_end"], manifest["parameters"]) == ("finished", "2001-06-30", trained.parameters)
    assert ForecasterDirectory.newest(forecasting.experiment).path == directory.path
    result = evaluate(forecasting)
    assert "chronos: " in result.sentence
    assert json.loads((directory.path / "evaluation.json").read_text())["period"][0] == "2001-07-02"
    early = load_forecasting(settings(), ["split.train=[2000-01-03, 2001-01-31]", "split.test=[2001-02-01, 2001-05-31]"])
    with pytest.raises(ConfigError, match="has learnt from days up to 2001-06-30"):
        evaluate(early, directory.path)


@pytest.mark.slow
def test_a_training_that_fails_leaves_no_model_and_says_so_in_its_manifest(settings, monkeypatch):
    pytest.importorskip("chronos")
    monkeypatch.setattr("rlplatform.features.forecasts.chronos_training.math.isfinite", lambda value: False)
    with pytest.raises(Exception, match="not finite numbers; nothing is saved"):
        train(load_forecasting(settings(steps=2)))
    directory = next((settings().parent / "results").iterdir())
    assert ForecasterDirectory(directory).manifest()["status"] == "failed"
    assert not (directory / "model").exists()
