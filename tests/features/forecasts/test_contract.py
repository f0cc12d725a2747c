"""What every forecaster keeps to, whoever it is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from envs.errors import ConfigError, MarketDataError
from rlplatform.features.forecasts import ForecastConfig, make_backend
from rlplatform.features.forecasts.config import ChronosConfig, TotoConfig
from rlplatform.features.forecasts.forecast import LEVELS, Draws, key_of
from rlplatform.features.forecasts.registry import leaf
from tests.features.forecasts.conftest import ROWS, ToyModel, days, returns_with_clusters, small

TOY = {"horizons": (1, 3), "draws": Draws(paths=200, steps=3, seed=0)}
BACKENDS = {
    "gaussian": lambda: leaf("gaussian", small()),
    **{name: (lambda name=name: make_backend(small(backend=name))) for name in ("bootstrap", "iid", "garch", "core", "auto")},
    "learned": lambda: ToyModel(**TOY, config=ChronosConfig(path="toy", context=40, min_history=30)),
    "learned, raw": lambda: ToyModel(**TOY, config=ChronosConfig(path="toy", context=40, min_history=30, transform="none")),
}
SOME = np.array([150, 151, 219, 230, 301, ROWS - 1])
every_backend = pytest.mark.parametrize("name", BACKENDS)


def obey(backend, returns: np.ndarray, tolerance: float = 0.0) -> None:
    """The contract; the learned models' own test calls it too."""
    answer = backend.forecast(days(), returns, SOME)
    assert answer.quantiles.shape == (len(SOME), 2, 2, len(LEVELS))
    assert answer.known.all()
    assert (np.diff(answer.quantiles, axis=-1) >= 0).all()
    assert (answer.sources != "").all()
    again = backend.forecast(days(), returns, SOME)
    assert_array_equal(again.quantiles, answer.quantiles)

    alone = backend.forecast(days(302), returns[:302], SOME[4:5])
    np.testing.assert_allclose(alone.quantiles[0], answer.quantiles[4], rtol=tolerance, atol=tolerance)

    shocked = returns.copy()
    shocked[231:] = 3 * shocked[231:] + 0.01
    later = backend.forecast(days(), shocked, SOME)
    np.testing.assert_allclose(later.quantiles[:4], answer.quantiles[:4], rtol=tolerance, atol=tolerance)
    assert (later.reasons[:4] == answer.reasons[:4]).all()
    assert (later.quantiles[4:] != answer.quantiles[4:]).any(), "else the check above would pass for one that sees nothing"


@every_backend
def test_a_backend_gives_sorted_quantiles_that_neither_chance_nor_other_rows_nor_the_future_moves(name, returns):
    obey(BACKENDS[name](), returns)


@every_backend
def test_too_short_a_history_is_nan_with_a_reason_and_no_error(name, returns):
    answer = BACKENDS[name]().forecast(days(), returns, np.array([0, 15, 29]))
    if name == "gaussian":
        assert answer.known.all()
        return
    assert not answer.known.any()
    assert np.isnan(answer.quantiles).all()
    assert all("history of" in text for text in answer.reasons.ravel())
    assert answer.fallback.all()


@every_backend
def test_a_return_that_is_not_finite_is_refused_with_its_day(name, returns):
    broken = returns.copy()
    broken[200, 1] = np.inf
    with pytest.raises(MarketDataError, match="2018-12-18, column 1"):
        BACKENDS[name]().forecast(days(), broken, np.array([300]))


@every_backend
def test_the_key_is_the_same_for_the_same_settings(name):
    assert key_of(BACKENDS[name]()) == key_of(BACKENDS[name]())


def test_the_key_follows_every_setting_that_moves_the_figures():
    settings = [
        {},
        {"seed": 1},
        {"draws": 300},
        {"horizons": (1, 4)},
        {"ewma_decay": 0.9},
        {"bootstrap": ForecastConfig().bootstrap},
    ]
    keys = [key_of(make_backend(small(backend="bootstrap", **changed))) for changed in settings]
    assert len(set(keys)) == len(keys)
    assert key_of(make_backend(small(backend="bootstrap", cost_bps=50.0))) == keys[0]


@pytest.mark.parametrize("name", ["bootstrap", "iid", "garch"])
def test_returns_twice_as_wide_give_quantiles_twice_as_wide(name):
    returns = returns_with_clusters(3, symbols=1)
    rows = np.array([250, 400])
    once, twice = (make_backend(small(backend=name)).forecast(days(), k * returns, rows).quantiles for k in (1, 2))
    np.testing.assert_allclose(twice, 2 * once, rtol=2e-2 if name == "garch" else 2e-4, atol=1e-3 if name == "garch" else 1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "chronos"}, r"chronos\.path is missing; expected the folder of a model"),
        ({"backend": "toto"}, r"toto\.path is missing"),
        ({"backend": "toto", "toto": TotoConfig(path="x")}, "needs the package 'toto', which is not installed. pip install"),
    ],
)
def test_a_model_that_is_not_there_is_one_line_that_says_what_to_do(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_backend(small(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "cronos"}, "Did you mean chronos"),
        ({"horizons": (5, 1)}, "begin with 1"),
        ({"horizons": (5,)}, "begin with 1"),
        ({"columns": ("sdt",)}, "Did you mean std"),
        ({"columns": ("std", "std")}, "names a column twice"),
        ({"columns": ("reason",)}, "expected one of mean, std"),
        ({"draws": 5}, "draws = 5; expected a whole number, at least 100"),
        ({"cost_bps": -1}, "in basis points"),
        ({"calibration_window": 5}, "at least 20"),
    ],
)
def test_a_setting_outside_its_meaning_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        small(**settings)
