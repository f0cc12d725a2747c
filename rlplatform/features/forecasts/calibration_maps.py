"""The maps of meta-calibration: from past outcomes to a better reading of a forecaster's quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import sklearn

from rlplatform.features.forecasts.forecast import LEVELS, values_at
from rlplatform.features.forecasts.scoring import cdf

Array = np.ndarray

EDGE = 1e-6  # no map asks for a quantile further out
CLIP = 5.0  # errors in widths, some 12 standard deviations: one crash must not blow up all that follow


class CalibrationMap(Protocol):
    """Fitted on the scores of past forecasts; then maps quantiles to quantiles."""

    @staticmethod
    def scores(quantiles: Array, outcome: Array) -> Array:
        """What a fit learns from: (R, K) at `LEVELS` and (R,) outcomes → (R, …); NaN where either is."""

    @classmethod
    def fit(cls, scores: Array) -> CalibrationMap:
        """From (P, …) scores, none of them NaN."""

    def __call__(self, quantiles: Array) -> Array:
        """(R, K) at `LEVELS` → (R, K), sorted."""


@dataclass(frozen=True, eq=False)
class IsotonicMap:
    """Read the distribution at the probabilities that came true.

        u_s = F_s(y_s),    G = isotonic regression of rank(u_s) / (n + 1) on u_s,    q'_τ = F⁻¹(G⁻¹(τ))

    If 8 % of outcomes fell below the 5 % quantiles, the new 5 % quantile is the old one of some 3 %. Shape and scale of the
    forecaster stay; where its history is calibrated G is the identity. Source: Kuleshov, Fenner and Ermon (2018).

    Attributes:
        probabilities: (K,) G⁻¹(τ) for τ in `LEVELS`.
    """

    probabilities: Array
    name: ClassVar[str] = "isotonic"

    @staticmethod
    def scores(quantiles: Array, outcome: Array) -> Array:
        """(R,) PIT."""
        return cdf(quantiles, outcome)

    @classmethod
    def fit(cls, scores: Array) -> IsotonicMap:
        from sklearn.isotonic import IsotonicRegression  # takes half a second to import

        u = np.sort(scores)
        share = np.arange(1, len(u) + 1) / (len(u) + 1)
        with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
            fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(u, share)
        probabilities = np.interp(LEVELS, fitted.y_thresholds_, fitted.X_thresholds_)
        return cls(np.clip(probabilities, EDGE, 1 - EDGE))

    def __call__(self, quantiles: Array) -> Array:
        return np.sort(values_at(quantiles, self.probabilities), axis=-1)


@dataclass(frozen=True, eq=False)
class ConformalMap:
    """Shift every quantile by what outcomes lay above or below it, in units of the distribution's width.

        e_sτ = (y_s − q_sτ) / (q_s90 − q_s10) within ± 5,    q'_τ = q_τ + (q_90 − q_10) · e_(⌈τ(n + 1)⌉)τ, sorted

    For exchangeable scores P(y ≤ q'_τ) = τ whatever the forecaster says. One level at a time and on both sides: conformalised
    quantile regression of Romano, Patterson and Candès (2019), with the width as the scale.

    Attributes:
        offsets: (K,) [widths].
    """

    offsets: Array
    name: ClassVar[str] = "conformal"

    @staticmethod
    def scores(quantiles: Array, outcome: Array) -> Array:
        """(R, K) e."""
        width = _width(quantiles)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(width > 0, np.clip((outcome[:, None] - quantiles) / width, -CLIP, CLIP), np.nan)

    @classmethod
    def fit(cls, scores: Array) -> ConformalMap:
        ordered = np.sort(scores, axis=0)
        rank = np.clip(np.asarray(LEVELS) * (len(ordered) + 1), 1, len(ordered)) - 1
        low = np.floor(rank).astype(int)
        high, share, column = np.minimum(low + 1, len(ordered) - 1), rank - low, np.arange(len(LEVELS))
        return cls((1 - share) * ordered[low, column] + share * ordered[high, column])

    def __call__(self, quantiles: Array) -> Array:
        return np.sort(quantiles + _width(quantiles) * self.offsets, axis=-1)


def _width(quantiles: Array) -> Array:
    """(R, 1) q90 − q10."""
    return (quantiles[..., LEVELS.index(0.9)] - quantiles[..., LEVELS.index(0.1)])[..., None]


MAPS: dict[str, type[CalibrationMap]] = {kind.name: kind for kind in (IsotonicMap, ConformalMap)}
