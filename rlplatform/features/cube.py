"""FeatureCube: features, returns and forecasts of N assets at T closes, ready for an environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from envs.errors import ConfigError, MarketDataError, ShapeError
from envs.tape import MarketTape, content_sha256
from rlplatform.data.prices import rows_between, show_date
from rlplatform.features.config import FeatureConfig
from rlplatform.features.scaler import FeatureScaler, column_scales

Array = np.ndarray

LEAST_KNOWN = 21  # training rows on which a context column must be known, a month


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureCube:
    """What a policy may know, row by row: row t holds what is known at the close of t. Read-only.

    Attributes:
        timestamps: (T,) datetime64[ns] closes.
        symbols: N names.
        feature_names: F names.
        features: (T, N, F) float32.
        gross: (T, N) float64 `P_t / P_{t-1}` with dividends; row 0 is 1. Kept as given, so no digit is lost on the way
            to the ledger; `realized_returns` is gross − 1.
        context_names: C names.
        context: (T, C) float32, market-wide.
        forecast_cvar: (T, N) float32, predicted loss in the worst 5 % of next bars [fraction of price, ≥ 0].
        forecast_uncertainty: (T, N) float32, predicted q90 − q10 of the next bar's return [fraction of price, ≥ 0].
        config: what the builder was told.
        scaler: what has scaled `features` and `context`; None while they are in their own units.
        context_unknown: (T, C) bool, cells of `context` that stand for a value not known; they hold 0, when scaled too, and
            the scaler does not look at them. None where all are known.

    Raises:
        MarketDataError: a value that is not finite; the message names feature, symbol and date.
        ShapeError: arrays whose axes disagree.
    """

    timestamps: Array
    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    features: Array
    gross: Array
    context_names: tuple[str, ...]
    context: Array
    forecast_cvar: Array
    forecast_uncertainty: Array
    config: FeatureConfig
    scaler: FeatureScaler | None = None
    context_unknown: Array | None = None

    def __post_init__(self) -> None:
        t, n, f, c = len(self.timestamps), len(self.symbols), len(self.feature_names), len(self.context_names)
        per_asset = ("gross", "forecast_cvar", "forecast_uncertainty")
        expected = {"features": (t, n, f), "context": (t, c), "timestamps": (t,)} | dict.fromkeys(per_asset, (t, n))
        if self.context_unknown is not None:
            expected["context_unknown"] = (t, c)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ShapeError(f"FeatureCube.{name} has shape {getattr(self, name).shape}; expected {shape}.")
            array = getattr(self, name).view()
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        self._check_finite()

    def _check_finite(self) -> None:
        columns = {name: self.features[..., i] for i, name in enumerate(self.feature_names)}
        columns |= {name: self.context[:, i : i + 1] for i, name in enumerate(self.context_names)}
        columns |= {name: getattr(self, name) for name in ("gross", "forecast_cvar", "forecast_uncertainty")}
        for name, values in columns.items():
            if not np.isfinite(values).all():
                row, asset = np.argwhere(~np.isfinite(values))[0]
                where = show_date(self.timestamps[row]) + (
                    f", {self.symbols[asset]!r}" if name not in self.context_names else ""
                )
                raise MarketDataError(
                    f"{name}[{where}] is {values[row, asset]}; features must be finite from the first row "
                    f"({(~np.isfinite(values)).sum()} such cell(s)). Fill it, or let its window expand at the start."
                )

    def __len__(self) -> int:
        return len(self.timestamps)

    def __repr__(self) -> str:
        span = f"{show_date(self.timestamps[0])} to {show_date(self.timestamps[-1])}"
        state = "scaled" if self.scaler else "unscaled"
        return (
            f"FeatureCube({len(self)} rows, {span}, {len(self.symbols)} assets × {len(self.feature_names)} features, {state})"
        )

    @property
    def realized_returns(self) -> Array:
        """(T, N) `P_t / P_{t-1} − 1`, known at the close of t [fraction]."""
        return self.gross - 1.0

    def column(self, name: str) -> Array:
        """One feature (T, N) or context column (T,) by name."""
        if name in self.feature_names:
            return self.features[..., self.feature_names.index(name)]
        if name in self.context_names:
            return self.context[:, self.context_names.index(name)]
        raise ConfigError(f"FeatureCube has no {name!r}; it has {', '.join((*self.feature_names, *self.context_names))}.")

    def fit_scaler(
        self, train_end: str, train_start: str | None = None, left_out: Sequence[tuple[str, str]] = ()
    ) -> FeatureScaler:
        """Mean and std of every column over the rows inside [train_start, train_end]; no later row is looked at.

        Args:
            train_end: last training day, included.
            train_start: first training day; the first row if not given. Give it to leave out the features' warm-up.
            left_out: first and last day of stretches inside that are not looked at either.

        Raises:
            ConfigError: this cube is scaled already, or fewer than two rows lie inside.
        """
        if self.scaler is not None:
            raise ConfigError("fit_scaler: this FeatureCube is scaled already. Fit on the one that the builder returned.")
        inside = rows_between(self.timestamps, train_start, train_end)
        for first, last in left_out:
            inside &= ~rows_between(self.timestamps, first, last)
        if inside.sum() < 2:
            raise ConfigError(
                f"fit_scaler: [{train_start}, {train_end}] holds {inside.sum()} of the rows "
                f"from {show_date(self.timestamps[0])} to {show_date(self.timestamps[-1])}; at least 2 are needed. "
                "Choose dates inside."
            )
        clip, unknown = self.config.clip, None if self.context_unknown is None else self.context_unknown[inside]
        self._refuse_never_known(inside)
        feature_mean, feature_std = column_scales(self.features[inside], self.feature_names, clip)
        context_mean, context_std = column_scales(self.context[inside], self.context_names, clip, unknown)
        return FeatureScaler(
            feature_names=self.feature_names,
            feature_mean=feature_mean,
            feature_std=feature_std,
            context_names=self.context_names,
            context_mean=context_mean,
            context_std=context_std,
            clip=clip,
            fitted_from=show_date(self.timestamps[inside][0]),
            fitted_to=show_date(self.timestamps[inside][-1]),
        )

    def _refuse_never_known(self, inside: Array) -> None:
        """A column that is not known while a policy learns cannot be scaled, nor used later."""
        if self.context_unknown is None:
            return
        least = min(LEAST_KNOWN, inside.sum())
        for column, name in enumerate(self.context_names):
            known = ~self.context_unknown[:, column]
            if (known & inside).sum() >= least:
                continue
            first = f"it is known from {show_date(self.timestamps[known][0])} on" if known.any() else "it is never known"
            raise MarketDataError(
                f"{name} is known on {(known & inside).sum()} training rows, {least} are needed; {first}. Train on later "
                f"rows, leave the column out, or look at the dates and max_age_days of its series."
            )

    def scaled(self, scaler: FeatureScaler) -> FeatureCube:
        """The cube with `features` and `context` scaled; returns and forecasts keep their units.

        Raises:
            ConfigError: this cube is scaled already, or the scaler was fitted on other columns.
        """
        if self.scaler is not None:
            raise ConfigError("scaled: this FeatureCube is scaled already. Scale the one that the builder returned.")
        for kind in ("feature_names", "context_names"):
            ours, theirs = getattr(self, kind), getattr(scaler, kind)
            if ours != theirs:
                lacking, extra = [n for n in theirs if n not in ours], [n for n in ours if n not in theirs]
                raise ConfigError(
                    f"scaled: the scaler was fitted on other {kind}: the cube lacks {lacking} and adds {extra}. "
                    "Build it with the training run's FeatureConfig, from prices with the same fields."
                )
        features, context = scaler.scale_features(self.features), scaler.scale_context(self.context)
        if self.context_unknown is not None:
            context = np.where(self.context_unknown, np.float32(0.0), context)
        return replace(self, features=features, context=context, scaler=scaler)

    def to_tape(self) -> MarketTape:
        """The market as an environment sees it: the same rows, none dropped."""
        same = ("symbols", "gross", "features", "feature_names", "context", "context_names")
        forecasts = ("forecast_cvar", "forecast_uncertainty")
        return MarketTape(dates=self.timestamps, **{name: getattr(self, name) for name in (*same, *forecasts)})

    @cached_property
    def sha256(self) -> str:
        """Hash of every value and name in the cube; goes into a run's manifest."""
        return content_sha256(self)
