"""Technical features: the two tables of what is computed from prices. A new feature is one new entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from envs import indicators as ind
from rlplatform.features.config import FeatureConfig

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Bars:
    """What a technical feature may look at.

    Attributes:
        gross: (T, N) `P_t / P_{t-1}`.
        market: (T,) the equal-weight mean of `gross`: a market rebalanced at every close.
        volume: (T, N), or None where the source has none.
    """

    gross: Array
    market: Array
    volume: Array | None = None


@dataclass(frozen=True, kw_only=True)
class TechnicalFeature:
    """One entry of the catalogue; it becomes one column for each window.

    Attributes:
        name: column name; `_21` is added for a window of 21 bars.
        group: of `FeatureConfig.groups`.
        unit: of the value.
        description: one line, the formula.
        function: (bars, window, config) → (T, N), or (T,) for the market. Causal: row t uses rows ≤ t.
        windows: field of FeatureConfig with its windows; None for a feature that has none (window 0 is passed).
    """

    name: str
    group: str
    unit: str
    description: str
    function: Callable[[Bars, int, FeatureConfig], Array]
    windows: str | None = None

    def columns(self, config: FeatureConfig) -> Iterator[tuple[str, int]]:
        """(column name, window) of each column that `config` asks for."""
        if self.group not in config.groups:
            return
        if self.windows is None:
            yield self.name, 0
            return
        for window in getattr(config, self.windows):
            yield f"{self.name}_{window}", window


def _volume_zscore(bars: Bars, window: int, config: FeatureConfig) -> Array:
    return ind.zscore(np.log1p(bars.volume), window)


def _relative_strength(bars: Bars, window: int, config: FeatureConfig) -> Array:
    momentum = ind.momentum(bars.gross, window)
    return momentum - momentum.mean(1, keepdims=True)


def _spread_zscore(bars: Bars, window: int, config: FeatureConfig) -> Array:
    log_price = np.cumsum(ind.log_returns(bars.gross), axis=0)
    return ind.zscore(log_price - log_price.mean(1, keepdims=True), window)


def _regime_is(label: int) -> Callable[[Bars, int, FeatureConfig], Array]:
    def flag(bars: Bars, window: int, config: FeatureConfig) -> Array:
        regime = ind.volatility_regime(
            bars.market, config.regime_window, min_history=config.regime_history, bars_per_year=config.bars_per_year
        )
        return (regime == label).astype(np.float64)

    return flag


def _volatility_proxy(bars: Bars, window: int, config: FeatureConfig) -> Array:
    return 100.0 * np.sqrt(config.bars_per_year) * ind.ewma_volatility(bars.market, config.ewma_decay)


ASSET_FEATURES = (
    TechnicalFeature(
        name="log_return",
        group="returns",
        windows="return_windows",
        unit="natural log",
        description="log(P_t / P_{t-window})",
        function=lambda bars, window, config: ind.momentum(bars.gross, window),
    ),
    TechnicalFeature(
        name="volatility",
        group="volatility",
        windows="volatility_windows",
        unit="fraction a year",
        description="standard deviation of log returns × sqrt(bars_per_year)",
        function=lambda bars, window, config: ind.realised_volatility(bars.gross, window, config.bars_per_year),
    ),
    TechnicalFeature(
        name="skewness",
        group="skewness",
        windows="skewness_windows",
        unit="−",
        description="third standardised moment of log returns",
        function=lambda bars, window, config: ind.skewness(bars.gross, window),
    ),
    TechnicalFeature(
        name="drawdown",
        group="drawdown",
        windows="drawdown_windows",
        unit="fraction, ≤ 0",
        description="P_t / highest close of the window − 1",
        function=lambda bars, window, config: ind.drawdown(bars.gross, window),
    ),
    TechnicalFeature(
        name="drawdown_velocity",
        group="drawdown",
        windows="drawdown_windows",
        unit="fraction per bar",
        description="(drawdown_t − drawdown_{t-lag}) / lag, lag = drawdown_lag",
        function=lambda bars, window, config: ind.drawdown_velocity(bars.gross, window, config.drawdown_lag),
    ),
    TechnicalFeature(
        name="average_distance",
        group="trend",
        windows="average_windows",
        unit="fraction",
        description="P_t / mean close of the window − 1",
        function=lambda bars, window, config: ind.moving_average_distance(bars.gross, window),
    ),
    TechnicalFeature(
        name="rsi",
        group="trend",
        windows="rsi_windows",
        unit="share in [0, 1]",
        description="Wilder's relative strength index of log returns",
        function=lambda bars, window, config: ind.rsi(bars.gross, window),
    ),
    TechnicalFeature(
        name="volume_zscore",
        group="volume",
        windows="volume_windows",
        unit="standard deviations",
        description="z-score of log(1 + volume); only where prices have volume",
        function=_volume_zscore,
    ),
    TechnicalFeature(
        name="correlation",
        group="cross_section",
        windows="correlation_windows",
        unit="in [−1, 1]",
        description="of log returns, with the mean of the other assets'; 0 for one asset",
        function=lambda bars, window, config: ind.average_correlation(bars.gross, window),
    ),
    TechnicalFeature(
        name="relative_strength",
        group="cross_section",
        windows="strength_windows",
        unit="natural log",
        description="log(P_t / P_{t-window}) − its mean over the assets",
        function=_relative_strength,
    ),
    TechnicalFeature(
        name="spread_zscore",
        group="cross_section",
        windows="spread_windows",
        unit="standard deviations",
        description="z-score of log price − its mean over the assets; for two assets, of their log spread",
        function=_spread_zscore,
    ),
)

MARKET_FEATURES = (
    *(
        TechnicalFeature(
            name=f"regime_{name}",
            group="market",
            unit="0 or 1",
            description=f"volatility regime of the equal-weight market is {name}",
            function=_regime_is(label),
        )
        for label, name in enumerate(ind.REGIME_NAMES)
    ),
    TechnicalFeature(
        name="average_correlation",
        group="market",
        windows="correlation_windows",
        unit="in [−1, 1]",
        description="mean over the assets of their correlation with the others",
        function=lambda bars, window, config: ind.average_correlation(bars.gross, window).mean(1),
    ),
    TechnicalFeature(
        name="market_return",
        group="market",
        windows="return_windows",
        unit="natural log",
        description="log return of the equal-weight market over the window",
        function=lambda bars, window, config: ind.momentum(bars.market, window),
    ),
    TechnicalFeature(
        name="market_volatility",
        group="market",
        windows="volatility_windows",
        unit="fraction a year",
        description="realised volatility of the equal-weight market",
        function=lambda bars, window, config: ind.realised_volatility(bars.market, window, config.bars_per_year),
    ),
    TechnicalFeature(
        name="market_drawdown",
        group="market",
        windows="drawdown_windows",
        unit="fraction, ≤ 0",
        description="drawdown of the equal-weight market from its highest close of the window",
        function=lambda bars, window, config: ind.drawdown(bars.market, window),
    ),
    TechnicalFeature(
        name="volatility_proxy",
        group="market",
        unit="percent a year",
        description="100 × sqrt(bars_per_year) × RiskMetrics volatility of the market: stands in for VIX",
        function=_volatility_proxy,
    ),
)


def catalogue(config: FeatureConfig) -> list[dict[str, str]]:
    """One row {name, scope, group, unit, description} for each column, in the cube's order; for printing.

    With prices that have no volume, the cube leaves out the rows of group "volume".
    """
    return [
        {"name": name, "scope": scope, "group": entry.group, "unit": entry.unit, "description": entry.description}
        for scope, table in (("asset", ASSET_FEATURES), ("market", MARKET_FEATURES))
        for entry in table
        for name, _ in entry.columns(config)
    ]
