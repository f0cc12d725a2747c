"""What recalibration is worth on later days: how often it was used, and what it did to CRPS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlplatform.features.forecasts.calibration import Calibration, calibrate, lead_rows
from rlplatform.features.forecasts.comparison import newey_west_t
from rlplatform.features.forecasts.config import CalibrationConfig
from rlplatform.features.forecasts.forecast import LEVELS, Forecast, no_reasons
from rlplatform.features.forecasts.scoring import crps

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class CalibrationScore:
    """What recalibration did to one forecaster at one horizon, over the cells that were compared.

    Attributes:
        backend, horizon: whose, and how many bars ahead.
        method: of recalibration.
        kept_percent: of the cells, in how many it was used.
        gain_percent: how much lower the CRPS is than without it [% of that]; cells where it was left out count as they are.
        dm_t: of that gain by days, as in `ForecastScore`; NaN where it was never used.
    """

    backend: str
    horizon: int
    method: str
    kept_percent: float
    gain_percent: float
    dm_t: float

    def cells(self) -> dict[str, str]:
        """For print."""
        return {
            "backend": self.backend,
            "bars": str(self.horizon),
            "method": self.method,
            "kept": f"{self.kept_percent:.1f} %",
            "gain %": f"{self.gain_percent:+.3f}",
            "DM t": f"{self.dm_t:+.1f}" if math.isfinite(self.dm_t) else "–",
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }


def compare_calibration(name: str, before: Forecast, after: Calibration, outcome: Array, method: str) -> list[CalibrationScore]:
    """A forecaster without and with recalibration, horizon by horizon.

    Args:
        before, after: at the same R rows.
        outcome: (R, N, H) log returns to come.
    """
    scores = []
    for i, horizon in enumerate(before.horizons):
        y = outcome[..., i]
        base, own = (crps(each.quantiles[:, :, i], y) for each in (before, after.forecast))
        cells = np.isfinite(base) & np.isfinite(own)
        gain = np.where(cells, base - own, np.nan)
        scores.append(
            CalibrationScore(
                backend=name,
                horizon=horizon,
                method=method,
                kept_percent=round(100 * float(after.kept[..., i][cells].mean()), 1),
                gain_percent=round(100 * float(gain[cells].mean() / base[cells].mean()), 3),
                dm_t=round(newey_west_t(np.nanmean(gain[cells.any(1)], axis=1), horizon - 1), 2),
            )
        )
    return scores


def rows_with_lead(rows: Array, config: CalibrationConfig, horizons: tuple[int, ...]) -> Array:
    """`rows` (R,), which follow each other, and before them those that their recalibration is made from."""
    lead = 0 if config.method == "none" else lead_rows(config, horizons)
    return np.arange(max(0, rows[0] - lead), rows[-1] + 1)


def calibrated_at(rows: Array, forecast: Forecast, lead: Array, log_returns: Array, config: CalibrationConfig) -> Calibration:
    """Recalibration at `rows` of a forecast that was made at the rows `lead` of `rows_with_lead`."""
    empty = no_reasons(np.arange(len(log_returns)), log_returns.shape[1])
    quantiles = np.full((*empty.shape, len(forecast.horizons), len(LEVELS)), np.nan, np.float32)
    quantiles[lead] = forecast.quantiles
    everywhere = Forecast.by("", forecast.horizons, quantiles, np.where(np.isfinite(quantiles).all((2, 3)), "", "–"))
    for name in ("reasons", "sources", "fallback"):
        getattr(everywhere, name)[lead] = getattr(forecast, name)
    return calibrate(everywhere, log_returns, config).rows(rows)
