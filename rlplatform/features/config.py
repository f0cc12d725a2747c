"""FeatureConfig: which features are built, over which windows."""

from __future__ import annotations

from dataclasses import dataclass, fields

from envs.errors import ConfigError
from rlplatform.features.context.config import ContextConfig
from rlplatform.features.forecasts.config import ForecastConfig

GROUPS = ("returns", "volatility", "skewness", "drawdown", "trend", "volume", "cross_section", "market")


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Which features a `FeatureBuilder` builds. Every window is a number of bars.

    Attributes:
        groups: groups to build, out of `GROUPS`; "market" is the market-wide context.
        return_windows: horizons of log returns, of assets and of the market.
        volatility_windows: of realised volatility, of assets and of the market.
        skewness_windows: of the skewness of returns.
        drawdown_windows: bars among which the highest close is looked for.
        drawdown_lag: bars over which the drawdown's velocity is taken.
        average_windows: of the moving averages that the price is held against.
        rsi_windows: of Wilder's averages.
        volume_windows: of the volume z-score.
        correlation_windows: of the correlation with the other assets.
        strength_windows: of relative strength against the cross-section.
        spread_windows: of the z-score of the log spread to the cross-section.
        regime_window: of the volatility that labels the market calm, choppy or crisis.
        regime_history: bars before that volatility is ranked in its own past.
        ewma_decay: of the RiskMetrics volatility behind the stand-in forecasts and the volatility proxy.
        bars_per_year: annualises volatilities.
        clip: scaled features are clipped to ± this many standard deviations.
        forecasts: distributions of the next bars as features, and as the tape's `forecast_cvar` and `forecast_uncertainty`;
            without it those two are what a normal distribution with EWMA volatility says.
        context: columns of what surrounds the assets: macro series joined by time of publication, sectors, clusters, risk.

    Raises:
        ConfigError: a group that does not exist, a window that is no number of bars, a decay or clip outside its meaning.
    """

    groups: tuple[str, ...] = GROUPS
    return_windows: tuple[int, ...] = (1, 5, 21, 63, 252)
    volatility_windows: tuple[int, ...] = (21, 63)
    skewness_windows: tuple[int, ...] = (63,)
    drawdown_windows: tuple[int, ...] = (252,)
    drawdown_lag: int = 5
    average_windows: tuple[int, ...] = (20, 50, 200)
    rsi_windows: tuple[int, ...] = (14,)
    volume_windows: tuple[int, ...] = (63,)
    correlation_windows: tuple[int, ...] = (63,)
    strength_windows: tuple[int, ...] = (21, 63)
    spread_windows: tuple[int, ...] = (63,)
    regime_window: int = 21
    regime_history: int = 252
    ewma_decay: float = 0.94
    bars_per_year: int = 252
    clip: float = 5.0
    forecasts: ForecastConfig | None = None
    context: ContextConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _as_tuple("groups", self.groups))
        for name in self.groups:
            if name not in GROUPS:
                raise ConfigError(f"features.groups names {name!r}; expected some of {', '.join(GROUPS)}.")
        for name in _window_names():
            object.__setattr__(self, name, _as_tuple(name, getattr(self, name)))
            self._check_windows(name)
        for name in ("drawdown_lag", "regime_window", "regime_history", "bars_per_year"):
            if not _is_bars(getattr(self, name)):
                raise ConfigError(f"features.{name} = {getattr(self, name)!r}; expected a whole number of bars, at least 1.")
        if not 0 < self.ewma_decay < 1:
            raise ConfigError(
                f"features.ewma_decay = {self.ewma_decay}; expected in (0, 1). RiskMetrics uses 0.94 for daily bars."
            )
        if not self.clip > 0:
            raise ConfigError(f"features.clip = {self.clip}; expected > 0 standard deviations, for instance 5.")

    def _check_windows(self, name: str) -> None:
        windows = getattr(self, name)
        for window in windows:
            if not _is_bars(window):
                raise ConfigError(f"features.{name} holds {window!r}; expected whole numbers of bars, at least 1.")
        if len(set(windows)) < len(windows):
            raise ConfigError(f"features.{name} = {list(windows)} names a window twice; name it once.")

    @property
    def warm_up(self) -> int:
        """Rows at the start whose longest window is not yet full; their features rest on fewer bars."""
        return max([self.regime_history, *(window for name in _window_names() for window in getattr(self, name))])


def _window_names() -> tuple[str, ...]:
    return tuple(f.name for f in fields(FeatureConfig) if f.name.endswith("_windows"))


def _is_bars(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _as_tuple(name: str, value: object) -> tuple:
    if isinstance(value, str) or not isinstance(value, (tuple, list)):
        raise ConfigError(f"features.{name} = {value!r}; expected a list, for instance [{value}].")
    return tuple(value)
