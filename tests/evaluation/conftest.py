"""Markets and tracks that a reader can check by hand, and the real prices where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.track import Track

SHARED_DATA = Path(os.environ.get("RLPLATFORM_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def dates(count, start="2020-01-01"):
    return pd.bdate_range(start, periods=count).to_numpy()


def track_of(returns, name="policy", *, weights=None, symbols=("A",), **given):
    """A track whose wealth follows `returns` (S,)."""
    returns = np.asarray(returns, dtype=float)
    bars = len(returns)
    fields = {name: np.zeros(bars) for name in ("turnover", "cost", "financing")}
    return Track(
        name=name,
        dates=given.pop("dates", dates(bars + 1)),
        wealth=np.cumprod(np.append(1.0, 1.0 + returns)),
        symbols=symbols,
        weights=np.zeros((bars, len(symbols))) if weights is None else weights,
        **(fields | given),
    )


def random_tape(rows=400, assets=4, seed=0, drift=3e-4, volatility=0.01):
    rng = np.random.default_rng(seed)
    gross = np.exp(drift + volatility * rng.standard_normal((rows, assets)))
    return MarketTape(dates=dates(rows), symbols=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:assets]), gross=gross)


@pytest.fixture
def free():
    """No costs, no interest: what is left is returns."""
    return {"costs": CostConfig(proportional_bps=0), "financing": FinancingConfig(), "caps": CapsConfig()}


@pytest.fixture(scope="session")
def real_tape():
    """SPY, QQQ and IWM with dividends, 2000 to 2024."""
    folder = SHARED_DATA / "equities"
    if not folder.is_dir():
        pytest.skip(f"no real prices at {folder}; set RLPLATFORM_SHARED_DATA")
    symbols = ("SPY", "QQQ", "IWM")
    columns = {s: pd.read_csv(folder / f"{s}.csv", parse_dates=["date"], index_col="date").adj_close for s in symbols}
    prices = pd.concat(columns, axis=1, join="inner").dropna()
    return MarketTape(dates=prices.index.to_numpy(), symbols=symbols, gross=prices.div(prices.shift()).fillna(1.0).to_numpy())
