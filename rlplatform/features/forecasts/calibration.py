"""Meta-calibration: what past outcomes say about how a forecaster's quantiles ought to be read, kept only where it helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from envs.indicators import volatility_regime
from rlplatform.features.forecasts.calibration_maps import MAPS, CalibrationMap
from rlplatform.features.forecasts.config import CalibrationConfig
from rlplatform.features.forecasts.forecast import Forecast
from rlplatform.features.forecasts.scoring import crps, known_later, outcomes, rolling_mean

Array = np.ndarray

BP = 1e4


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """A forecaster's distributions, recalibrated where that has been worth it.

    Attributes:
        forecast: at every row; the forecaster's own words where `kept` is false.
        kept: (T, N, H) bool: the quantiles are recalibrated ones.
        crps_before, crps_after: (T, N, H) mean CRPS without and with recalibration of the trailing rows that decided
            [log return]; NaN where too few outcomes were known.
        reasons: (T, N, H) text: what decided.
    """

    forecast: Forecast
    kept: Array
    crps_before: Array
    crps_after: Array
    reasons: Array

    def columns(self) -> dict[str, Array]:
        """The statistics of `schema.CALIBRATION_STATISTICS`, (T, N, H) each."""
        return {
            "calibrated": self.kept.astype(np.float64),
            "crps_before_bp": BP * self.crps_before,
            "crps_after_bp": BP * self.crps_after,
            "calibration_reason": self.reasons,
        }

    def rows(self, rows: Array) -> Calibration:
        """Only these rows."""
        names = ("kept", "crps_before", "crps_after", "reasons")
        return replace(self, forecast=self.forecast.rows(rows), **{name: getattr(self, name)[rows] for name in names})


def calibrate(forecast: Forecast, log_returns: Array, config: CalibrationConfig) -> Calibration:
    """Recalibrate walk-forward: the rows between two refits use a map of outcomes that the first of them knew.

    Refits stand at rows r = 0, k, 2k, … For horizon h the forecast made at s has its outcome at s + h, so r fits on
    s ∈ (r − h − window, r − h]; of those, where `by_regime` says so and there are enough, on rows of the same volatility
    regime of the symbol (`volatility_regime` of its own returns), else on all. Then r looks back on the last `validation` known
    outcomes: CRPS of what was said against CRPS of what the maps of those days would have said. The map is used until the
    next refit only if that was lower (t statistic of at least `t_statistic`).

    Source: Kuleshov, Fenner and Ermon (2018) for isotonic, Romano, Patterson and Candès (2019) for conformal maps.

    Args:
        forecast: at every row; cells without a forecast stay so and teach nothing.
        log_returns: (T, N).
    """
    y, horizons = outcomes(log_returns, forecast.horizons), forecast.horizons
    candidate = _candidates(forecast, y, _regimes(log_returns, config), config)
    before, after = crps(forecast.quantiles, y), crps(candidate, y)
    both = np.isfinite(before) & np.isfinite(after)
    scores = [known_later(np.where(both, score, np.nan), horizons) for score in (before, after)]
    trial = _Trial.of(*scores, config, horizons)
    held = _held_since_refit(len(y), config.refit_bars)
    kept = trial.passed[held] & np.isfinite(candidate).all(-1)
    quantiles = np.where(kept[..., None], candidate, forecast.quantiles).astype(np.float32)
    return Calibration(
        forecast=replace(forecast, quantiles=quantiles),
        kept=kept,
        crps_before=trial.before[held],
        crps_after=trial.after[held],
        reasons=trial.reasons(config)[held],
    )


def lead_rows(config: CalibrationConfig, horizons: tuple[int, ...]) -> int:
    """Rows before a row that its recalibration depends on, the regimes' longer memory left out."""
    return config.window + config.validation + 2 * (config.refit_bars + max(horizons))


def _regimes(log_returns: Array, config: CalibrationConfig) -> Array:
    """(T, N) label of each symbol's own volatility regime; 0 everywhere where regimes are not told apart."""
    if not config.by_regime:
        return np.zeros(log_returns.shape, np.int64)
    return np.stack([volatility_regime(np.exp(column)) for column in log_returns.T], axis=1)


def _held_since_refit(rows: int, refit_bars: int) -> Array:
    """(T,) the last refit at or before each row."""
    everywhere = np.arange(rows)
    return everywhere - everywhere % refit_bars


def _candidates(forecast: Forecast, y: Array, regimes: Array, config: CalibrationConfig) -> Array:
    """(T, N, H, K) what the maps make of the forecasts; NaN where there are too few outcomes for a map."""
    quantiles = forecast.quantiles.astype(np.float64)
    make, candidate = MAPS[config.method], np.full(quantiles.shape, np.nan)
    for i, h in enumerate(forecast.horizons):
        for n in range(y.shape[1]):
            own, scores = quantiles[:, n, i], make.scores(quantiles[:, n, i], y[:, n, i])
            for rows, past in _blocks(scores, regimes[:, n], h, config):
                fitted: CalibrationMap = make.fit(scores[past])
                candidate[rows, n, i] = fitted(own[rows])
    return candidate


def _blocks(scores: Array, regimes: Array, h: int, config: CalibrationConfig) -> Iterator[tuple[Array, Array]]:
    """(rows that share a map, rows whose outcomes it is made from), refit by refit."""
    known = np.isfinite(scores).reshape(len(scores), -1).all(1)
    for refit in range(0, len(scores), config.refit_bars):
        first, end = max(0, refit - h - config.window + 1), refit - h + 1
        past = first + np.flatnonzero(known[first : max(end, 0)])
        if len(past) < config.min_rows:
            continue
        rows = np.arange(refit, min(refit + config.refit_bars, len(scores)))
        for regime in np.unique(regimes[rows]):
            alike = past[regimes[past] == regime]
            yield rows[regimes[rows] == regime], alike if len(alike) >= config.min_rows else past


@dataclass(frozen=True, eq=False, kw_only=True)
class _Trial:
    """How recalibration has done by the outcomes known at each row, all (T, N, H)."""

    before: Array
    after: Array
    rows: Array
    t: Array
    passed: Array

    @classmethod
    def of(cls, before: Array, after: Array, config: CalibrationConfig, horizons: tuple[int, ...]) -> _Trial:
        """From the CRPS of past forecasts, each at the row where its outcome is known; NaN where there was no map."""
        gain = before - after
        mean, rows = rolling_mean(gain, config.validation)
        square, _ = rolling_mean(gain**2, config.validation)
        with np.errstate(invalid="ignore", divide="ignore"):
            # Outcomes of h bars overlap: about one in h is new.
            error = np.sqrt(np.maximum(square - mean**2, 0.0) * np.asarray(horizons) / rows)
            t = np.where(error > 0, mean / error, 0.0)
        enough = rows >= config.min_validation
        means = [np.where(enough, rolling_mean(score, config.validation)[0], np.nan) for score in (before, after)]
        return cls(before=means[0], after=means[1], rows=rows, t=t, passed=enough & (mean > 0) & (t >= config.t_statistic))

    def reasons(self, config: CalibrationConfig) -> Array:
        """Texts at the refits; "" between them."""
        texts = np.full(self.rows.shape, "", dtype=object)
        for cell in np.ndindex(texts[:: config.refit_bars].shape):
            at = (cell[0] * config.refit_bars, *cell[1:])
            texts[at] = self._reason(at, config)
        return texts

    def _reason(self, cell: tuple, config: CalibrationConfig) -> str:
        if self.rows[cell] < config.min_validation:
            return f"unproven ({self.rows[cell]} < {config.min_validation} outcomes)"
        verdict = "kept" if self.passed[cell] else "left out"
        figures = f"CRPS {BP * self.before[cell]:.2f} → {BP * self.after[cell]:.2f} bp"
        return f"{config.method} {verdict}: {figures} over {self.rows[cell]} outcomes (t {self.t[cell]:+.1f})"
