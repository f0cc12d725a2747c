"""Meta-calibration by hand-checked numbers, then what it may know and when it is used."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from envs.errors import ConfigError
from rlplatform.features import FeatureBuilder
from rlplatform.features.forecasts.calibration import calibrate
from rlplatform.features.forecasts.calibration_maps import MAPS, ConformalMap, IsotonicMap
from rlplatform.features.forecasts.calibration_score import calibrated_at, compare_calibration, rows_with_lead
from rlplatform.features.forecasts.config import CalibrationConfig
from rlplatform.features.forecasts.forecast import LEVELS
from rlplatform.features.forecasts.panel import forecast_panel, statistics_name
from rlplatform.features.forecasts.schema import CALIBRATION_STATISTICS, STATISTICS
from rlplatform.features.forecasts.scoring import crps, outcomes
from rlplatform.features.lookahead import assert_causal
from tests.features.conftest import short_windows
from tests.features.forecasts.conftest import forecast_of, prices_with, returns_with_clusters, small

NINE = np.array(LEVELS)
NORMAL = 0.01 * norm.ppf(NINE)
QUICK = {"window": 120, "min_rows": 60, "refit_bars": 20, "validation": 80, "min_validation": 40, "t_statistic": 1.0}
every_method = pytest.mark.parametrize("method", sorted(MAPS))


def quick(method: str = "isotonic", **changes) -> CalibrationConfig:
    return CalibrationConfig(method=method, **(QUICK | changes))


def constant(quantiles, rows: int, horizons: int = 2):
    """(K,) → a Forecast of one symbol at every row; further bars are √h times as wide."""
    widths = np.sqrt(np.arange(1, horizons + 1))[:, None]
    return forecast_of(np.broadcast_to(quantiles * widths, (rows, 1, horizons, len(LEVELS))).copy())


def normal_returns(rows: int, seed: int = 0, scale: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (rows, 1))


# The maps


def test_where_a_share_of_sqrt_p_fell_below_the_p_quantile_the_new_quantile_is_the_old_one_of_its_square():
    u = (np.arange(1, 1000) / 1000) ** 2  # rank / (n + 1) = √u
    assert_allclose(IsotonicMap.fit(u).probabilities, NINE**2, atol=1e-4)
    read = IsotonicMap.fit(u)(NORMAL[None])[0]
    assert_allclose(read[LEVELS.index(0.5)], 0.01 * norm.ppf(0.25), rtol=1e-3)


def test_equal_pits_share_the_mean_of_their_ranks():
    fitted = IsotonicMap.fit(np.array([0.8, 0.2, 0.2, 0.8]))  # G(0.2) = 0.3, G(0.8) = 0.7
    assert_allclose(fitted.probabilities[LEVELS.index(0.5)], 0.5)
    assert_allclose(fitted.probabilities[LEVELS.index(0.4)], 0.35)
    assert_allclose(fitted.probabilities[[0, -1]], [0.2, 0.8])


def test_outcomes_one_width_above_every_quantile_move_all_of_them_up_by_a_width():
    width = NORMAL[LEVELS.index(0.9)] - NORMAL[LEVELS.index(0.1)]
    e = ConformalMap.scores(np.tile(NORMAL, (30, 1)), np.full(30, NORMAL[4] + width))
    assert_allclose(e[:, 4], 1.0)
    assert_allclose(ConformalMap.fit(np.ones((30, len(LEVELS))))(NORMAL[None])[0], NORMAL + width)


def test_of_99_errors_the_fifth_smallest_moves_the_5_percent_quantile():
    e = np.tile(np.random.default_rng(0).permutation(np.arange(1, 100))[:, None] / 100, len(LEVELS))
    assert_allclose(ConformalMap.fit(e).offsets, NINE, atol=1e-12)  # rank τ (n + 1) of 1, …, 99 is 100 τ


@every_method
def test_a_price_that_stands_still_teaches_and_learns_nothing(method):
    flat = np.zeros((40, len(LEVELS)))
    scores = MAPS[method].scores(flat, np.zeros(40))
    assert method == "isotonic" or np.isnan(scores).all()
    fitted = MAPS[method].fit(MAPS[method].scores(np.tile(NORMAL, (40, 1)), normal_returns(40)[:, 0]))
    assert_allclose(fitted(flat), 0.0)


@every_method
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 100))
def test_maps_give_sorted_quantiles_and_know_no_unit(method, seed, scale):
    rng, kind = np.random.default_rng(seed), MAPS[method]
    past, y = np.sort(rng.normal(0, 0.02, (60, len(LEVELS))), axis=1), rng.normal(0, 0.02, 60)
    once, again = (kind.fit(kind.scores(k * past, k * y))(k * past) for k in (1.0, scale))
    assert (np.diff(once, axis=-1) >= 0).all()
    assert_allclose(again, scale * once, rtol=1e-7, atol=1e-9)


@every_method
def test_after_a_fit_the_past_itself_is_calibrated(method):
    quantiles, y = np.tile(0.4 * NORMAL, (999, 1)), normal_returns(999)[:, 0]
    mapped = MAPS[method].fit(MAPS[method].scores(quantiles, y))(quantiles)
    below = (y[:, None] < mapped).mean(0)
    assert_allclose(below, NINE, atol=0.02 if method == "isotonic" else 0.002)  # isotonic reads beyond q01 by the tail's law


# When it is used


@every_method
def test_a_forecaster_half_as_wide_as_the_truth_is_widened_once_that_has_proved_worth_it(method):
    returns, config = normal_returns(500), quick(method)
    half = constant(0.5 * NORMAL, 500)
    made = calibrate(half, returns, config)
    first = 100  # row 60 knows 60 outcomes and makes a map; 40 outcomes of the rows from there on are known at row 100
    assert not made.kept[:first].any()
    assert made.kept[:, 0, 1].argmax() == 140  # two bars ahead: 59 outcomes at row 60, 39 at row 120
    assert made.kept[first:, 0, 0].mean() > 0.9
    assert_array_equal(made.forecast.quantiles[:first], half.quantiles[:first])
    width = np.diff(made.forecast.quantiles[:, 0, 0][made.kept[:, 0, 0]][:, [2, -3]])
    assert_allclose(width.mean() / np.diff(NORMAL[[2, -3]]), 1.0, atol=0.15)
    y = outcomes(returns, (1, 2))
    after, before = (crps(each.quantiles, y)[first:490, 0, 0].mean() for each in (made.forecast, half))
    assert after < 0.96 * before
    assert (np.diff(made.forecast.quantiles, axis=-1) >= 0).all()


def test_the_decision_is_stored_with_both_crps_and_stands_until_the_next_refit():
    made = calibrate(constant(0.5 * NORMAL, 300), normal_returns(300), quick())
    columns = made.columns()
    assert set(columns) == {statistic.name for statistic in CALIBRATION_STATISTICS}
    assert made.reasons[99, 0, 0] == "unproven (20 < 40 outcomes)"
    before, after = (float(columns[name][200, 0, 0]) for name in ("crps_before_bp", "crps_after_bp"))
    assert before > after > 50
    assert made.reasons[200, 0, 0].startswith(f"isotonic kept: CRPS {before:.2f} → {after:.2f} bp over 80 outcomes (t +")
    assert len(set(made.reasons[200:220, 0, 0])) == 1
    assert np.isnan(columns["crps_before_bp"][99, 0, 0])


def test_a_forecaster_that_is_right_is_seldom_recalibrated_and_then_loses_little():
    returns = normal_returns(1500, seed=4)
    right = constant(NORMAL, 1500)
    made = calibrate(right, returns, quick())
    assert made.kept[:, 0, 0].mean() < 0.35
    assert any(text.startswith("isotonic left out: CRPS") for text in made.reasons[::20, 0, 0])
    score = compare_calibration("right", right, made, outcomes(returns, (1, 2)), "isotonic")[0]
    assert score.kept_percent == pytest.approx(100 * made.kept[:-1, 0, 0].mean(), abs=0.05)
    assert -1.0 < score.gain_percent < 0.3
    assert score.cells()["kept"].endswith(" %")


@every_method
def test_only_outcomes_known_at_the_refit_count(method):
    """The forecasts stay; returns after row 300, a refit, change. Forecasts made at 298 for three bars end after it."""
    returns, half = normal_returns(400), constant(0.5 * NORMAL, 400, horizons=3)
    shocked = returns.copy()
    shocked[301:] = 5 * shocked[301:] + 0.02
    one, other = (calibrate(half, each, quick(method)) for each in (returns, shocked))
    for name in ("kept", "crps_before", "crps_after", "reasons"):
        assert_array_equal(getattr(one, name)[:320], getattr(other, name)[:320])
    assert_array_equal(one.forecast.quantiles[:320], other.forecast.quantiles[:320])
    assert (one.forecast.quantiles[320:] != other.forecast.quantiles[320:]).any(), "else the check would see nothing"


def test_the_last_outcome_that_the_refit_knows_does_count():
    returns, half = normal_returns(400), constant(0.5 * NORMAL, 400)
    shocked = returns.copy()
    shocked[300] = 0.2
    one, other = (calibrate(half, each, quick("conformal")) for each in (returns, shocked))
    assert_array_equal(one.forecast.quantiles[:300], other.forecast.quantiles[:300])
    assert (one.forecast.quantiles[300:320] != other.forecast.quantiles[300:320]).any()


def test_each_volatility_regime_has_a_map_of_its_own_where_it_has_outcomes_enough(monkeypatch):
    rows = 800
    stormy = (np.arange(rows) // 50) % 2 == 1
    returns = normal_returns(rows) * np.where(stormy, 3.0, 1.0)[:, None]
    monkeypatch.setattr("rlplatform.features.forecasts.calibration.volatility_regime", lambda gross: stormy.astype(int))
    forecast = constant(2 * NORMAL, rows, horizons=1)  # too wide in calm, too narrow in storms
    config = quick("conformal", window=300, by_regime=True)
    kept = calibrate(forecast, returns, config)
    width = np.diff(kept.forecast.quantiles[:, 0, 0][:, [2, -3]])[:, 0] / np.diff(NORMAL[[2, -3]])
    used = kept.kept[:, 0, 0]
    assert_allclose(width[used & stormy].mean(), 3.0, rtol=0.2)
    assert_allclose(width[used & ~stormy].mean(), 1.0, rtol=0.2)
    pooled = calibrate(forecast, returns, dataclasses.replace(config, by_regime=False))
    scarce = calibrate(forecast, returns, dataclasses.replace(config, min_rows=200))  # no regime has 200 of 300
    same = calibrate(forecast, returns, dataclasses.replace(config, min_rows=200, by_regime=False))
    assert_array_equal(scarce.forecast.quantiles, same.forecast.quantiles)
    assert (pooled.forecast.quantiles != kept.forecast.quantiles).any()


def test_a_cell_without_a_forecast_stays_so_and_teaches_nothing():
    quantiles = np.broadcast_to(0.5 * NORMAL, (400, 1, 2, len(LEVELS))).copy()
    quantiles[:150], quantiles[300:310] = np.nan, np.nan
    made = calibrate(forecast_of(quantiles), normal_returns(400), quick())
    assert not made.forecast.known[:150].any()
    assert not made.kept[300:310].any()
    assert not made.kept[:260].any()  # 60 outcomes at row 220, 40 more at row 260
    assert made.kept[290:300].all()
    assert made.reasons[160, 0, 0] == "unproven (0 < 40 outcomes)"


def test_recalibration_of_some_rows_needs_no_more_than_the_lead_before_them():
    returns, config = normal_returns(700), quick()
    half, rows = constant(0.5 * NORMAL, 700), np.arange(500, 600)
    lead = rows_with_lead(rows, config, (1, 2))
    assert lead[0] > 0
    part = calibrated_at(rows, half.rows(lead), lead, returns, config)
    whole = calibrate(half, returns, config).rows(rows)
    assert_allclose(part.forecast.quantiles, whole.forecast.quantiles, rtol=1e-6)
    assert (part.reasons == whole.reasons).all()
    assert_array_equal(rows_with_lead(rows, CalibrationConfig(), (1, 2)), rows)


# In the panel


@pytest.fixture(scope="module")
def market():
    return prices_with(returns_with_clusters(5, rows=330))


def config_in(folder, columns=("std", "calibrated"), **changes):
    return small(backend="bootstrap", store=str(folder / "store"), columns=columns, **changes)


SHORT = {"window": 100, "min_rows": 50, "refit_bars": 10, "validation": 40, "min_validation": 20, "t_statistic": 0.0}


@pytest.mark.parametrize(("method", "by_regime"), [("isotonic", True), ("conformal", False)])
def test_no_column_moves_when_later_prices_change(tmp_path, market, method, by_regime):
    config = config_in(tmp_path, calibration=CalibrationConfig(method=method, by_regime=by_regime, **SHORT))
    kept = forecast_panel(market, config).statistics["calibrated"]
    assert 0 < kept[200:].mean() < 1, "else the check below would see one that does nothing"
    assert_causal(
        FeatureBuilder(short_windows(forecasts=config)).build, market, [231, 262], np.random.default_rng(0), tolerance=0.0
    )


def test_a_day_more_changes_no_earlier_row(tmp_path, market):
    config = config_in(tmp_path, calibration=CalibrationConfig(method="isotonic", **SHORT))
    whole = forecast_panel(market, config).statistics
    shorter = prices_with(returns_with_clusters(5, rows=330)[:329])
    for name, values in forecast_panel(shorter, config).statistics.items():
        assert_array_equal(values, whole[name][:329], err_msg=name)


def test_columns_of_calibration_are_stored_only_where_it_is_asked_for_and_the_statistics_are_of_what_is_said(tmp_path, market):
    plain = forecast_panel(market, config_in(tmp_path, columns=("std",)))
    made = forecast_panel(market, config_in(tmp_path, calibration=CalibrationConfig(method="conformal", **SHORT)))
    names = [statistic.name for statistic in STATISTICS]
    assert list(plain.statistics) == names
    assert list(made.statistics) == [*names, *(statistic.name for statistic in CALIBRATION_STATISTICS)]
    kept = made.statistics["calibrated"] > 0
    assert kept.any()
    assert (made.statistics["std"] != plain.statistics["std"])[kept].all()
    assert_array_equal(made.statistics["std"][~kept], plain.statistics["std"][~kept])
    assert_array_equal(made.feature_columns()["forecast_calibrated_3"], made.statistics["calibrated"][..., 1])


def test_the_folder_of_statistics_follows_the_settings_of_calibration_and_is_the_old_one_without(tmp_path):
    settings_of = [{}, {"method": "isotonic"}, {"method": "conformal"}, {"method": "isotonic", "t_statistic": 2.0}]
    names = [statistics_name(config_in(tmp_path, ("std",), calibration=CalibrationConfig(**each))) for each in settings_of]
    assert len(set(names)) == len(names)
    assert statistics_name(config_in(tmp_path, ("std",), calibration=CalibrationConfig(window=900))) == names[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "isotone"}, "Did you mean isotonic"),
        ({"window": 100}, r"calibration\.window = 100; expected a whole number, at least 250"),
        ({"min_rows": 10}, r"calibration\.min_rows = 10; expected a whole number, at least 50"),
        ({"validation": 30}, r"calibration\.validation = 30; expected a whole number, at least 125"),
        ({"t_statistic": -1.0}, r"calibration\.t_statistic = -1\.0; expected at least 0"),
    ],
)
def test_settings_that_cannot_be_are_one_line(change, message):
    with pytest.raises(ConfigError, match=message):
        CalibrationConfig(**change)


def test_a_column_of_calibration_without_calibration_is_refused():
    with pytest.raises(ConfigError, match=r"columns names calibrated, but calibration\.method is none"):
        small(columns=("std", "calibrated"))
