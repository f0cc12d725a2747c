"""FeatureBuilder: prices → FeatureCube."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from envs.errors import ConfigError, ShapeError
from envs.indicators import ewma_volatility
from rlplatform.features.config import FeatureConfig
from rlplatform.features.context.panel import ContextPanel, SeriesAtHand, context_panel
from rlplatform.features.cube import FeatureCube
from rlplatform.features.forecasts.panel import forecast_panel
from rlplatform.features.technical import ASSET_FEATURES, MARKET_FEATURES, Bars, TechnicalFeature

if TYPE_CHECKING:
    from rlplatform.data.prices import Prices

Array = np.ndarray

GAUSSIAN_CVAR_5 = 2.062713  # φ(z₀.₀₅) / 0.05: mean loss in the worst 5 % of a standard normal
GAUSSIAN_Q90_Q10 = 2.563103  # 2 z₀.₉: width between the 10 % and 90 % quantiles


class FeatureBuilder:
    """Builds every feature of the catalogue that `config` asks for. Causal: row t of the cube uses prices of rows ≤ t.

    Features are ratios of prices only, so the level of a back-adjusted price, which later dividends change, never shows.

    Args:
        config: which features, over which windows.
        asset_features, market_features: the catalogue's entries; give longer tables to add features of your own.
    """

    def __init__(
        self,
        config: FeatureConfig,
        asset_features: tuple[TechnicalFeature, ...] = ASSET_FEATURES,
        market_features: tuple[TechnicalFeature, ...] = MARKET_FEATURES,
    ) -> None:
        self.config = config
        self.asset_features = asset_features
        self.market_features = market_features

    def build(
        self, prices: Prices, context: Mapping[str, Array] | None = None, series: SeriesAtHand | None = None
    ) -> FeatureCube:
        """All features at every close; none is dropped for warm-up (`config.warm_up` rows rest on fewer bars).

        Args:
            prices: T closes of N symbols.
            context: further market-wide columns by name, (T,) each, already aligned: row t is known at the close of t
                (for instance `{"vix": ...}`).
            series: in place of those that `config.context` names: vintages to be joined, or what the bars knew already.

        Raises:
            ConfigError: an extra column takes the name of a built one.
            ShapeError: an extra column is not (T,).
            MarketDataError: a feature or extra column that is not finite.
        """
        gross = np.asarray(prices.gross(), dtype=np.float64, order="C")
        bars = Bars(gross=gross, market=gross.mean(1), volume=prices.volume)
        feature_names, features = self._assets(bars)
        context_names, market = self._market(bars, context or {})
        if self.config.forecasts is None:
            cvar, uncertainty = gaussian_forecasts(gross, self.config.ewma_decay)
        else:
            panel = forecast_panel(prices, self.config.forecasts)
            feature_names, features = _with_columns(feature_names, features, panel.feature_columns())
            cvar, uncertainty = panel.cvar.astype(np.float32), panel.uncertainty.astype(np.float32)
        unknown = None
        if self.config.context is not None:
            around = context_panel(prices, self.config, series)
            feature_names, features = _with_columns(feature_names, features, around.asset)
            context_names, market, unknown = _with_context(context_names, market, around)
        _check_unique((*feature_names, *context_names))
        return FeatureCube(
            timestamps=prices.dates,
            symbols=tuple(prices.symbols),
            feature_names=feature_names,
            features=features,
            gross=gross,
            context_names=context_names,
            context=market,
            forecast_cvar=cvar,
            forecast_uncertainty=uncertainty,
            config=self.config,
            context_unknown=unknown,
        )

    def _assets(self, bars: Bars) -> tuple[tuple[str, ...], Array]:
        entries = [entry for entry in self.asset_features if entry.group != "volume" or bars.volume is not None]
        columns = [(name, entry, window) for entry in entries for name, window in entry.columns(self.config)]
        features = np.empty((*bars.gross.shape, len(columns)), np.float32)
        for i, (_, entry, window) in enumerate(columns):
            features[..., i] = entry.function(bars, window, self.config)
        return tuple(name for name, _, _ in columns), features

    def _market(self, bars: Bars, extra: Mapping[str, Array]) -> tuple[tuple[str, ...], Array]:
        columns = [
            (name, entry.function(bars, window, self.config))
            for entry in self.market_features
            for name, window in entry.columns(self.config)
        ]
        rows = len(bars.gross)
        for name, values in extra.items():
            if np.shape(values) != (rows,):
                raise ShapeError(f"context[{name!r}] has shape {np.shape(values)}; expected ({rows},), one value per close.")
        columns += extra.items()
        table = np.empty((rows, len(columns)), np.float32)
        for i, (_, values) in enumerate(columns):
            table[:, i] = values
        return tuple(name for name, _ in columns), table


def gaussian_forecasts(gross: Array, decay: float) -> tuple[Array, Array]:
    """Next bar's CVaR 5 % and q90 − q10, if returns were normal with mean 0 and RiskMetrics volatility σ.

        cvar = min(2.0627 σ, 1),    uncertainty = 2.5631 σ

    An honest causal stand-in where `features.forecasts` is not given; tails of real returns are fatter, so cvar is a low guess.
    Capped at 1: a price cannot lose more than itself. Source: J.P. Morgan/Reuters (1996) for σ.

    Args:
        gross: (T, N).
        decay: of σ², per bar.

    Returns:
        (T, N) float32 each [fraction of price, ≥ 0].
    """
    volatility = ewma_volatility(gross, decay)
    cvar = np.minimum(GAUSSIAN_CVAR_5 * volatility, 1.0)
    return cvar.astype(np.float32), (GAUSSIAN_Q90_Q10 * volatility).astype(np.float32)


def _with_columns(names: tuple[str, ...], features: Array, columns: Mapping[str, Array]) -> tuple[tuple[str, ...], Array]:
    """The features and behind them further columns (T, N)."""
    further = np.stack(list(columns.values()), axis=-1) if columns else np.empty((*features.shape[:2], 0))
    return (*names, *columns), np.concatenate([features, further.astype(np.float32)], axis=-1)


def _with_context(names: tuple[str, ...], market: Array, panel: ContextPanel) -> tuple[tuple[str, ...], Array, Array]:
    """Names and table of the market-wide columns with the panel's behind them, 0 where unknown, and which cells those are."""
    further = np.stack(list(panel.market.values()), axis=-1) if panel.market else np.empty((len(market), 0))
    unknown = np.concatenate([np.zeros(market.shape, bool), np.isnan(further)], axis=1)
    table = np.concatenate([market, np.nan_to_num(further, nan=0.0).astype(np.float32)], axis=1)
    return (*names, *panel.market), table, unknown


def _check_unique(names: tuple[str, ...]) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"features: two columns are named {repeated[0]!r}; names must be unique. Rename one.")
