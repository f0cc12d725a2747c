"""Bundled prices: skfolio's packaged data sets, the embedded default. Nothing is downloaded."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from envs.errors import MarketDataError
from rlplatform.data.prices import Prices
from rlplatform.data.request import check_choice, clean_request, did_you_mean

DATASETS = {
    "sp500": "20 stocks of the S&P 500, daily adjusted closes 1990-01-02 to 2022-12-28",
    "factors": "5 factor ETFs (MTUM, QUAL, SIZE, USMV, VLUE), daily adjusted closes 2014-01-02 to 2022-12-28",
}
INDEX_NAMES = ("SP500", "^GSPC")


@dataclass(frozen=True, kw_only=True)
class BundledConfig:
    """Prices that come with the installation (skfolio.datasets): closes only, no open, high, low or volume.

    Attributes:
        dataset: "sp500" (20 stocks, 1990-2022) or "factors" (5 ETFs, 2014-2022).
        symbols: which, in order; all of the data set if empty. "SP500" or "^GSPC" adds the S&P 500 price index
            (without dividends) to either.
        start, end: first and last day, both included; the whole span if not given.
    """

    source: Literal["bundled"] = "bundled"
    dataset: Literal["sp500", "factors"] = "sp500"
    symbols: tuple[str, ...] = ()
    start: str | datetime.date | None = None
    end: str | datetime.date | None = None

    def __post_init__(self) -> None:
        check_choice("data.source", self.source, ["bundled"])
        check_choice("data.dataset", self.dataset, DATASETS)
        clean_request(self)

    def describe(self) -> str:
        """One line: what `load` returns."""
        return f"bundled {self.dataset}: {DATASETS[self.dataset]} (skfolio)"

    def load(self) -> Prices:
        """The prices asked for.

        Raises:
            MarketDataError: a symbol the data set does not have, or no row inside [start, end].
        """
        frame = _read(self.dataset)
        symbols = self.symbols or tuple(frame.columns)
        if any(symbol in INDEX_NAMES for symbol in symbols):
            frame = frame.join(_read_index(), how="inner")
        known = [*frame.columns, *INDEX_NAMES]
        for symbol in symbols:
            if symbol not in known:
                has = f"it has {', '.join(dict.fromkeys(known))}.{did_you_mean(symbol, known)}"
                raise MarketDataError(f"bundled {self.dataset} has no {symbol!r}; {has}")
        prices = Prices(
            dates=frame.index.to_numpy(),
            symbols=symbols,
            close=np.column_stack([frame[symbol] for symbol in symbols]),
            source=self.describe(),
            calendar="XNYS",
        )
        return prices.between(self.start, self.end)


def _read(dataset: str) -> pd.DataFrame:
    from skfolio import datasets  # scikit-learn behind it takes seconds to import

    return {"sp500": datasets.load_sp500_dataset, "factors": datasets.load_factors_dataset}[dataset]()


def _read_index() -> pd.DataFrame:
    from skfolio import datasets

    index = datasets.load_sp500_index()["SP500"]
    return pd.DataFrame({name: index for name in INDEX_NAMES})
