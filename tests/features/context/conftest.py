"""Small markets of New York sessions and series beside them, in memory and in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlplatform.data.calendar import sessions
from rlplatform.data.prices import Prices
from rlplatform.features import FeatureConfig
from rlplatform.features.context import ContextConfig, SeriesConfig
from rlplatform.features.context.publication import next_session, same_close
from rlplatform.features.context.series import Series
from tests.features.conftest import short_windows

FIRST = np.datetime64("2015-01-02")
LEVELS = {"VIX": 18.0, "VIX3M": 19.0, "DGS2": 1.0, "DGS10": 2.5, "DXY": 95.0, "EURUSD": 1.1, "XLK": 40.0, "mood": 0.3}
PRICES = ("DXY", "EURUSD", "XLK")


def session_prices(rows: int = 160, assets: int = 4, seed: int = 0) -> Prices:
    """A market of `assets` on consecutive New York sessions; the odd ones move together."""
    rng = np.random.default_rng(seed)
    days = sessions("XNYS", FIRST, FIRST + np.timedelta64(2 * rows, "D"))[:rows]
    moves = rng.normal(0.0003, 0.01, (rows, assets))
    moves[:, 1::2] += rng.normal(0.0, 0.02, (rows, 1))
    return Prices(dates=days, symbols=tuple("ABCDEFGH"[:assets]), close=100 * np.exp(moves.cumsum(0)), calendar="XNYS")


def walk(name: str, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Days (from before the market's first) and values of a series around its usual level."""
    rng = np.random.default_rng([seed, len(name), ord(name[-1])])
    days = sessions("XNYS", FIRST - np.timedelta64(20, "D"), FIRST + np.timedelta64(2 * rows, "D"))[:rows]
    return days, LEVELS[name] * np.exp(rng.normal(0, 0.02, rows).cumsum())


def series_of(name: str, seed: int = 0) -> Series:
    days, values = walk(name, seed=seed)
    rule = same_close if name.startswith(("VIX", "XLK")) else next_session
    kind = "price" if name in PRICES else "level"
    published = rule(days, "XNYS")
    return Series(name=name, days=days, values=values, published=published, kind=kind, max_age_days=10, origin="test")


def write_series(folder: Path, name: str, **columns: object) -> Path:
    """`<name>.csv` with date and close, or what is given."""
    days, values = walk(name) if name in LEVELS else ((), ())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    pd.DataFrame(columns or {"date": days, "close": values}).to_csv(path, index=False)
    return path


def context_of(**changes: object) -> ContextConfig:
    """Every column there is, over a few bars."""
    return ContextConfig(
        **{
            "series": {name: SeriesConfig(published="next_session") for name in LEVELS},
            "sectors": {"A": "XLK", "B": "energy", "C": "XLK", "D": "energy"},
            "change_windows": (1, 4),
            "trend_windows": (6,),
            "strength_windows": (5,),
            "clusters": 2,
            "cluster_window": 20,
            "cluster_refit_bars": 7,
            "risk_window": 20,
            "risk_history": 30,
        }
        | changes
    )


@pytest.fixture(scope="session")
def market() -> Prices:
    return session_prices()


@pytest.fixture(scope="session")
def series() -> dict[str, Series]:
    return {name: series_of(name) for name in LEVELS}


@pytest.fixture(scope="session")
def features() -> FeatureConfig:
    return short_windows(context=context_of())
