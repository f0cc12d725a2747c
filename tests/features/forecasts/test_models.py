"""Chronos and Toto: trained, saved, loaded, held to the contract."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError, MarketDataError
from rlplatform.features.forecasts import make_backend
from rlplatform.features.forecasts.chronos_training import ForecasterTrainingConfig, train_forecaster, training_series
from rlplatform.features.forecasts.config import ChronosConfig, TotoConfig
from rlplatform.features.forecasts.forecast import LEVELS, key_of
from tests.features.forecasts.conftest import days, returns_with_clusters, small
from tests.features.forecasts.test_contract import SOME, obey

TINY = ForecasterTrainingConfig(
    d_model=16, num_layers=1, num_heads=2, d_ff=32, context=64, patch=8, horizon=3, min_past=32, steps=40, batch_size=16
)
TRAIN_END = "2018-10-01"  # row 122 of 420


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("chronos", reason="chronos-forecasting is not installed; pip install 'rlplatform[forecast]'")
    path = tmp_path_factory.mktemp("model") / "tiny"
    return train_forecaster(days(), returns_with_clusters(0), TRAIN_END, path, TINY)


def chronos_at(path, **changes):
    settings = {"context": 64, "min_history": 32} | changes
    return small(backend="chronos", chronos=ChronosConfig(path=str(path), **settings))


@pytest.mark.slow
def test_a_small_chronos_learns_is_saved_and_keeps_the_contract_when_loaded(trained):
    assert trained.parameters < 2_000_000
    assert trained.losses[-1][1] < trained.losses[0][1]
    backend = make_backend(chronos_at(trained.path))
    obey(backend, returns_with_clusters(0), tolerance=1e-6)
    before = backend.forecast(days(), returns_with_clusters(0), np.array([100, 121, 122]))
    assert before.known[:, 0].tolist() == [False, False, True]
    assert before.reasons[0, 0] == "has learnt from days up to 2018-10-01"


@pytest.mark.slow
def test_it_loads_by_the_packages_own_from_pretrained(trained):
    from chronos import BaseChronosPipeline

    pipeline = BaseChronosPipeline.from_pretrained(trained.path)
    assert type(pipeline).__name__ == "Chronos2Pipeline"
    assert sum(p.numel() for p in pipeline.model.parameters()) == trained.parameters


@pytest.mark.slow
def test_other_weights_are_another_key_and_auto_says_what_it_took(trained, tmp_path):
    key = key_of(make_backend(chronos_at(trained.path)))
    other = train_forecaster(days(), returns_with_clusters(0), TRAIN_END, tmp_path / "other", replace(TINY, seed=1, steps=2))
    assert key_of(make_backend(chronos_at(other.path))) != key
    config = replace(chronos_at(trained.path), backend="auto")
    chosen = make_backend(config).forecast(days(), returns_with_clusters(0), np.array([200, 400]))
    assert chosen.known.all()
    assert all("chronos" in text for text in chosen.reasons[1])


@pytest.mark.slow
def test_a_bolt_model_answers_beyond_the_levels_it_knows_and_keeps_the_contract(tmp_path):
    pytest.importorskip("chronos")
    import torch
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    config = T5Config(
        d_model=16, d_kv=8, num_heads=2, d_ff=32, num_layers=1, num_decoder_layers=1, vocab_size=2, decoder_start_token_id=0
    )
    config.architectures = ["ChronosBoltModelForForecasting"]
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": 64,
        "prediction_length": 8,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "quantiles": [k / 10 for k in range(1, 10)],
        "use_reg_token": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ChronosBoltModelForForecasting(config).save_pretrained(tmp_path / "bolt")
    backend = make_backend(chronos_at(tmp_path / "bolt", transform="none"))
    obey(backend, returns_with_clusters(0), tolerance=1e-6)
    quantiles = backend.forecast(days(), returns_with_clusters(0), SOME).quantiles[0, 0, 0]
    assert quantiles[LEVELS.index(0.01)] < quantiles[LEVELS.index(0.1)]


@pytest.mark.slow
def test_a_folder_without_a_model_and_horizons_it_never_learnt_are_one_line(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no Chronos model"):
        make_backend(chronos_at(tmp_path / "empty")).forecast(days(), returns_with_clusters(0), SOME)
    with pytest.raises(ConfigError, match=r"reach 5 bars; .* has learnt 3"):
        make_backend(replace(chronos_at(trained.path), horizons=(1, 5)))


def test_what_is_learnt_from_ends_with_the_training_days(returns):
    shocked = returns.copy()
    shocked[123:] *= 5
    one, two = (training_series(days(), r, TRAIN_END, TINY, 0.94) for r in (returns, shocked))
    assert len(one[0]) == 123 - 21
    for a, b in zip(one, two, strict=True):
        assert_allclose(a, b, rtol=0)


def test_too_few_days_to_learn_from_and_one_infinite_return_are_refused(returns):
    with pytest.raises(MarketDataError, match="19 rows up to 2018-06-19"):
        training_series(days(), returns, "2018-06-19", TINY, 0.94)
    broken = returns.copy()
    broken[50, 0] = np.inf
    with pytest.raises(MarketDataError, match="must be finite"):
        training_series(days(), broken, TRAIN_END, TINY, 0.94)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"d_model": 15}, "cannot be shared out to 2 heads"),
        ({"context": 60}, "no multiple of patch"),
        ({"horizon": 9}, "at most patch = 8"),
        ({"min_past": 65}, "in \\[1, context = 64\\]"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_a_training_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changed)


FAKE_TOTO = {
    "toto/__init__.py": "",
    "toto/data/__init__.py": "",
    "toto/data/util/__init__.py": "",
    "toto/data/util/dataset.py": """
from dataclasses import dataclass
from typing import Any
@dataclass
class MaskedTimeseries:
    series: Any
    padding_mask: Any
    id_mask: Any
    timestamp_seconds: Any
    time_interval_seconds: Any
""",
    "toto/model/__init__.py": "",
    "toto/model/toto.py": """
class Toto:
    @classmethod
    def load_from_checkpoint(cls, path):
        made = cls()
        made.model = path
        return made
    def eval(self):
        return self
""",
    "toto/inference/__init__.py": "",
    "toto/inference/forecaster.py": """
import torch
class TotoForecaster:
    def __init__(self, model):
        self.model = model
    def forecast(self, inputs, prediction_length, num_samples, samples_per_batch):
        assert inputs.series.shape == inputs.padding_mask.shape == inputs.id_mask.shape
        scale = inputs.series.std(-1)[..., None, None]  # (B, 1, 1, 1)
        noise = torch.randn(len(inputs.series), 1, prediction_length, num_samples)
        answer = type("Forecast", (), {})()
        answer.samples = scale * noise
        return answer
""",
}


def test_toto_is_asked_as_its_package_wants_and_its_samples_become_quantiles(tmp_path, monkeypatch, returns):
    """Against a stand-in with toto-ts 0.2's interface; the package itself cannot be installed beside ours."""
    for name, text in FAKE_TOTO.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "toto"]:
        monkeypatch.delitem(sys.modules, name)
    backend = make_backend(small(backend="toto", toto=TotoConfig(path=str(tmp_path), context=64, min_history=32)))
    answer = backend.forecast(days(), returns, SOME)
    assert answer.known.all()
    assert (np.diff(answer.quantiles, axis=-1) >= 0).all()
    assert_allclose(backend.forecast(days(), returns, SOME).quantiles, answer.quantiles, rtol=0)
    for name in [name for name in sys.modules if name.split(".")[0] == "toto"]:
        del sys.modules[name]  # not by monkeypatch, which would put it back


def test_the_later_of_the_folders_and_the_configs_training_end_counts(tmp_path):
    from rlplatform.features.forecasts.registry import leaf

    (tmp_path / "forecaster.json").write_text(json.dumps({"train_end": "2015-12-31", "transform": "none"}), encoding="utf-8")
    later = leaf("chronos", chronos_at(tmp_path, train_end="2016-06-30"))
    assert (later.train_end, later.transform) == ("2016-06-30", "none")
    assert leaf("chronos", chronos_at(tmp_path, train_end="2010-01-01")).train_end == "2015-12-31"
