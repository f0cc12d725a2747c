"""Context columns: the function behind each entry of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs import indicators as ind
from rlplatform.features.context.asof import AlignedSeries
from rlplatform.features.context.clusters import Clusters, rolling_clusters
from rlplatform.features.context.config import ContextConfig
from rlplatform.features.context.risk import (
    inverse_volatility_share,
    risk_regime,
    target_exposure,
    variance_contribution,
)
from rlplatform.features.context.sectors import sector_log_return
from rlplatform.features.context.series import window_sum

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Surroundings:
    """What a context column may look at.

    Attributes:
        gross: (T, N) `P_t / P_{t-1}`.
        market: (T,) its mean over the assets.
        symbols: N names.
        series: as known at each close.
        config: windows, sectors and the like.
        ewma_decay, bars_per_year: of `FeatureConfig`.
    """

    gross: Array
    market: Array
    symbols: Sequence[str]
    series: AlignedSeries
    config: ContextConfig
    ewma_decay: float
    bars_per_year: int

    @cached_property
    def clusters(self) -> Clusters:
        """Drawn once for all columns that look at them."""
        c = self.config
        return rolling_clusters(ind.log_returns(self.gross), c.clusters, c.cluster_window, c.cluster_refit_bars)

    def value(self, name: str) -> Array:
        """(T,) of a series; NaN while unknown."""
        return self.series.values[name]

    def change(self, name: str, window: int) -> Array:
        """(T,) of a series over `window` bars; NaN while unknown."""
        return np.where(self.series.known(name), window_sum(self.series.steps[name], window), np.nan)

    @property
    def term(self) -> Array:
        """(T,) log(VIX / VIX3M)."""
        return np.log(self.value("VIX")) - np.log(self.value("VIX3M"))

    @cached_property
    def risk_regime(self) -> Array:
        """(T,) 0, 1 or 2; without the term structure where there are no such series."""
        term = self.term if {"VIX", "VIX3M"} <= set(self.config.series) else None
        return risk_regime(self.market, self.config.risk_window, self.config.risk_history, term)


# (what surrounds the assets, window or 0, series or "") → (T,) or (T, N). Row t rests on rows ≤ t; NaN is unknown.
Function = Callable[[Surroundings, int, str], Array]


def _vix(s: Surroundings, window: int, name: str) -> Array:
    stand_in = 100.0 * np.sqrt(s.bars_per_year) * ind.ewma_volatility(s.market, s.ewma_decay)
    return np.where(s.series.known("VIX"), s.value("VIX"), stand_in)


def _slope_change(s: Surroundings, window: int, name: str) -> Array:
    slope = s.value("DGS10") - s.value("DGS2")
    steps = s.series.steps["DGS10"] - s.series.steps["DGS2"]
    return np.where(np.isfinite(slope), window_sum(steps, window), np.nan)


def _dollar_trend(s: Surroundings, window: int, name: str) -> Array:
    distance = ind.moving_average_distance(np.exp(np.nan_to_num(s.series.steps["DXY"])), window)
    return np.where(s.series.known("DXY"), distance, np.nan)


def _sector(s: Surroundings, window: int) -> Array:
    return sector_log_return(s.gross, s.symbols, s.config.sectors, s.series, window)


def _sector_momentum(s: Surroundings, window: int, name: str) -> Array:
    return _sector(s, window) - ind.momentum(s.gross, window).mean(1, keepdims=True)


def _cluster_momentum(s: Surroundings, window: int, name: str) -> Array:
    moved = ind.momentum(s.gross, window)
    return s.clusters.mean(moved) - moved.mean(1, keepdims=True)


def _cluster_strength(s: Surroundings, window: int, name: str) -> Array:
    moved = ind.momentum(s.gross, window)
    return moved - s.clusters.mean(moved)


def _target_exposure(s: Surroundings, window: int, name: str) -> Array:
    c = s.config
    return target_exposure(s.market, c.target_volatility, c.max_exposure, s.ewma_decay, s.bars_per_year)


def _regime_is(label: int) -> Function:
    return lambda s, window, name: (s.risk_regime == label).astype(np.float64)


FUNCTIONS: dict[str, Function] = {
    "vix": _vix,
    "vix_log": lambda s, window, name: np.log(s.value("VIX")),
    "vix_term": lambda s, window, name: s.term,
    "treasury_slope": lambda s, window, name: s.value("DGS10") - s.value("DGS2"),
    "treasury_slope_change": _slope_change,
    "dollar_return": lambda s, window, name: s.change("DXY", window),
    "dollar_trend": _dollar_trend,
    "fx_return": lambda s, window, name: s.change(name, window),
    "series_level": lambda s, window, name: s.value(name),
    "series_change": lambda s, window, name: s.change(name, window),
    "series_age": lambda s, window, name: s.series.ages[name],
    "series_known": lambda s, window, name: s.series.known(name).astype(np.float64),
    **{f"risk_regime_{name}": _regime_is(label) for label, name in enumerate(ind.REGIME_NAMES)},
    "target_exposure": _target_exposure,
    "cluster_change": lambda s, window, name: s.clusters.change,
    "risk_share": lambda s, window, name: inverse_volatility_share(s.gross, s.ewma_decay),
    "risk_contribution": lambda s, window, name: variance_contribution(s.gross, s.config.risk_window),
    "sector_momentum": _sector_momentum,
    "sector_strength": lambda s, window, name: ind.momentum(s.gross, window) - _sector(s, window),
    "cluster_momentum": _cluster_momentum,
    "cluster_strength": _cluster_strength,
    "cluster_share": lambda s, window, name: s.clusters.share,
    "cluster_correlation": lambda s, window, name: s.clusters.correlation,
}
