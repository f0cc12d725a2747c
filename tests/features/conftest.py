"""Small markets to build features from."""

from __future__ import annotations

import numpy as np
import pytest

from rlplatform.data.prices import Prices
from rlplatform.features import FeatureBuilder, FeatureConfig, FeatureCube


def prices_of(close: np.ndarray, volume: np.ndarray | None = None, symbols: tuple[str, ...] = ("SPY", "QQQ", "IWM")) -> Prices:
    dates = np.datetime64("2015-01-01", "ns") + np.arange(len(close)) * np.timedelta64(1, "D")
    return Prices(dates=dates, symbols=symbols[: close.shape[1]], close=close, volume=volume)


def random_prices(seed: int, rows: int = 120, assets: int = 3, volume: bool = True) -> Prices:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(rng.normal(0.0003, 0.01, (rows, assets)).cumsum(0))
    return prices_of(close, rng.lognormal(10, 0.5, close.shape) if volume else None)


def short_windows(**changes: object) -> FeatureConfig:
    """Windows of a few bars, all different, so that a short history fills them."""
    return FeatureConfig(
        **{
            "return_windows": (1, 4),
            "volatility_windows": (5,),
            "skewness_windows": (6,),
            "drawdown_windows": (9,),
            "drawdown_lag": 2,
            "average_windows": (3, 7),
            "rsi_windows": (4,),
            "volume_windows": (8,),
            "correlation_windows": (10,),
            "strength_windows": (4,),
            "spread_windows": (11,),
            "regime_window": 5,
            "regime_history": 20,
        }
        | changes
    )


@pytest.fixture(scope="session")
def prices() -> Prices:
    return random_prices(0)


@pytest.fixture(scope="session")
def cube(prices: Prices) -> FeatureCube:
    return FeatureBuilder(short_windows()).build(prices)
