"""FeatureScaler: mean and standard deviation learnt from training rows, applied to all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from envs.errors import ConfigError, ShapeError
from envs.indicators import REGIME_NAMES
from rlplatform.features.context.schema import is_raw as is_raw_context
from rlplatform.features.forecasts.schema import is_raw

Array = np.ndarray

UNSCALED = frozenset(f"regime_{name}" for name in REGIME_NAMES)  # one-hot columns keep their 0 and 1
NO_SPREAD = 1e-9  # standard deviation below which a column counts as constant, and is only centred


@dataclass(frozen=True, kw_only=True)
class FeatureScaler:
    """x → clip((x − mean) / std, ±clip), column by column. Plain numbers: `to_dict` is JSON-able as it stands.

    Asset features have one mean and std for all assets together, so that differences between assets stay visible and a
    policy can be carried to other symbols. Values beyond ± clip are clipped once in the fit as well, so that one wild
    training row does not flatten all others.

    Attributes:
        feature_names, feature_mean, feature_std: F asset features.
        context_names, context_mean, context_std: C market-wide columns; columns that keep their scale have mean 0 and std 1.
        clip: in standard deviations.
        fitted_from, fitted_to: dates of the first and last row used, for the record.
    """

    feature_names: tuple[str, ...]
    feature_mean: tuple[float, ...]
    feature_std: tuple[float, ...]
    context_names: tuple[str, ...]
    context_mean: tuple[float, ...]
    context_std: tuple[float, ...]
    clip: float
    fitted_from: str
    fitted_to: str

    def scale_features(self, features: Array) -> Array:
        """(T, N, F) float32 → the same, scaled."""
        return self._scale(features, self.feature_names, self.feature_mean, self.feature_std)

    def scale_context(self, context: Array) -> Array:
        """(T, C) float32 → the same, scaled."""
        return self._scale(context, self.context_names, self.context_mean, self.context_std)

    def _scale(self, x: Array, names: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
        if x.shape[-1] != len(names):
            raise ShapeError(f"FeatureScaler was fitted on {len(names)} columns and is given {x.shape[-1]}.")
        scaled = np.empty(x.shape, np.float32)
        for column, name in enumerate(names):
            value = x[..., column]
            if not keeps_scale(name):
                value = np.clip((value.astype(np.float64) - mean[column]) / std[column], -self.clip, self.clip)
            scaled[..., column] = value
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings only."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureScaler:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a key is missing or unknown.
        """
        expected, found = set(cls.__dataclass_fields__), set(data)
        if expected != found:
            raise ConfigError(
                f"FeatureScaler: missing keys {sorted(expected - found)}, unknown keys {sorted(found - expected)}. "
                "Was it written by another version? Fit it again."
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


def keeps_scale(name: str) -> bool:
    """Whether the column of that name is left as it is: one-hot columns, and flags, shares and probabilities."""
    return name in UNSCALED or is_raw(name) or is_raw_context(name)


def column_scales(
    x: Array, names: tuple[str, ...], clip: float, unknown: Array | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each last-axis column of training rows, after clipping each at mean ± clip × std once.

    Args:
        unknown: cells that are left out, shaped like x; each column has others.
    """
    mean, std = [], []
    for column, name in enumerate(names):
        value = x[..., column].astype(np.float64)
        if unknown is not None:
            value = value[~unknown[..., column]]
        centre, spread = value.mean(), value.std()
        value = np.clip(value, centre - clip * spread, centre + clip * spread)
        constant = value.std() < NO_SPREAD * (1.0 + abs(value.mean()))
        mean.append(0.0 if keeps_scale(name) else float(value.mean()))
        std.append(1.0 if keeps_scale(name) or constant else float(value.std()))
    return tuple(mean), tuple(std)
