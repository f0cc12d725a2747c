"""Forecasts inside the FeatureCube."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from rlplatform.features import FeatureBuilder
from rlplatform.features.forecasts.panel import forecast_panel
from rlplatform.features.lookahead import assert_causal
from tests.features.conftest import short_windows
from tests.features.forecasts.conftest import prices_with, returns_with_clusters, small


def config_in(folder, **changes):
    columns = ("std", "pit_mean", "agreement", "fallback", "gate")
    return short_windows(forecasts=small(store=str(folder / "store"), columns=columns, **changes))


@pytest.fixture(scope="module")
def market():
    return prices_with(returns_with_clusters(5, rows=260))


def test_forecasts_are_columns_of_the_cube_and_its_cvar_and_uncertainty(tmp_path, market):
    config = config_in(tmp_path)
    cube = FeatureBuilder(config).build(market)
    panel = forecast_panel(market, config.forecasts)
    assert cube.feature_names[-10:] == tuple(
        f"forecast_{name}_{h}" for name in ("std", "pit_mean", "agreement", "fallback", "gate") for h in (1, 3)
    )
    assert_allclose(cube.column("forecast_std_3"), panel.statistics["std"][..., 1].astype(np.float32))
    assert_allclose(cube.forecast_cvar, -panel.statistics["cvar_05"][..., 0], rtol=1e-6)
    assert_allclose(cube.forecast_uncertainty, panel.statistics["spread"][..., 0], rtol=1e-6)
    assert_allclose(cube.column("forecast_pit_mean_1")[0], 0.5)  # no outcome is known yet
    assert not (tmp_path / "store").exists(), "only `features build` writes"


def test_early_rows_fall_back_to_a_normal_distribution_and_say_so(tmp_path, market):
    cube = FeatureBuilder(config_in(tmp_path)).build(market)
    assert (cube.column("forecast_fallback_1")[:60] == 1).all()
    assert (cube.column("forecast_gate_1")[:60] == 0).all()
    assert (cube.column("forecast_fallback_1")[101:] == 0).all()


def test_shares_and_flags_keep_their_scale_while_widths_are_scaled(tmp_path, market):
    cube = FeatureBuilder(config_in(tmp_path)).build(market)
    scaled = cube.scaled(cube.fit_scaler("2018-12-31"))
    for name in ("forecast_gate_1", "forecast_fallback_3", "forecast_agreement_1", "forecast_pit_mean_3"):
        assert_array_equal(scaled.column(name), cube.column(name))
    assert not np.allclose(scaled.column("forecast_std_1"), cube.column("forecast_std_1"))


@pytest.mark.parametrize("backend", ["core", "auto"])
def test_no_forecast_column_moves_when_later_prices_change(tmp_path, market, backend):
    builder = FeatureBuilder(config_in(tmp_path, backend=backend))
    assert_causal(builder.build, market, [140, 201], np.random.default_rng(0), tolerance=0.0)
