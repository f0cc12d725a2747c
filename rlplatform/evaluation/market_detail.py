"""MarketDetail: what the cost of trading depends on besides the trade: volatility, value traded, opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from envs.errors import ConfigError, MarketDataError, ShapeError
from rlplatform.data import Prices

Array = np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class MarketDetail:
    """Row t holds what is known at the close of t.

    Attributes:
        dates: (T,) closes.
        symbols: N names.
        volatility: (T, N) standard deviation of trailing returns [fraction a bar].
        daily_value: (T, N) trailing median of the value traded in a bar [money unit of the prices]; None without volume.
        overnight: (T, N) open_t / close_{t−1}; None without opens. Row 0 is 1.
    """

    dates: Array
    symbols: tuple[str, ...]
    volatility: Array
    daily_value: Array | None = None
    overnight: Array | None = None

    @classmethod
    def of(cls, prices: Prices, window: int = 21) -> MarketDetail:
        """From prices, over trailing windows.

        Value traded is volume times the total-return close, which for past years is below the price paid by the dividends
        since: it errs on the side of too little liquidity. The first two rows take the third's volatility.
        """
        if window < 2:
            raise ConfigError(f"window = {window}; volatility needs at least 2 bars.")
        returns = pd.DataFrame(prices.gross()).iloc[1:] - 1.0
        volatility = returns.rolling(window, min_periods=2).std().reindex(range(len(prices))).bfill().to_numpy()
        value = None
        if prices.volume is not None:
            value = pd.DataFrame(prices.volume * prices.close).rolling(window, min_periods=1).median().to_numpy()
        overnight = None
        if prices.open is not None:
            overnight = np.concatenate([np.ones((1, prices.num_assets)), prices.open[1:] / prices.close[:-1]])
        return cls(dates=prices.dates, symbols=prices.symbols, volatility=volatility, daily_value=value, overnight=overnight)

    def at(self, dates: Array, symbols: Sequence[str]) -> MarketDetail:
        """The rows of `dates` and the columns of `symbols`.

        Raises:
            ShapeError: a date or symbol that is not there.
        """
        rows = np.searchsorted(self.dates, dates)
        absent = [symbol for symbol in symbols if symbol not in self.symbols]
        if absent or rows[-1] >= len(self.dates) or not np.array_equal(self.dates[rows], dates):
            raise ShapeError(
                f"the prices' detail lacks {', '.join(absent) or 'some dates'}; expected {', '.join(symbols)} from "
                f"{str(dates[0])[:10]} to {str(dates[-1])[:10]}. Make it from the prices that the tape came from."
            )
        columns = [self.symbols.index(symbol) for symbol in symbols]
        cut = {
            name: None if getattr(self, name) is None else getattr(self, name)[np.ix_(rows, columns)]
            for name in ("volatility", "daily_value", "overnight")
        }
        return MarketDetail(dates=self.dates[rows], symbols=tuple(symbols), **cut)

    def impact_scale(self, account: float) -> Array:
        """(T, N) factor that makes the ledger's k√W d^1.5 the square-root law for an account of that size.

            cost of a trade Q [money] = Y σ √(Q / V) · Q   ⇒   scale = σ √(account / V),  k = Y

        Source: Almgren et al. (2005); Tóth et al. (2011) for Y near 1.

        Raises:
            MarketDataError: no volume, or none traded.
        """
        if self.daily_value is None:
            raise MarketDataError("impact cannot be estimated: the prices lack volume. Use prices with a volume column.")
        still = self.daily_value <= 0
        if still.any():
            row, column = np.argwhere(still)[0]
            raise MarketDataError(
                f"value traded of {self.symbols[column]} at {str(self.dates[row])[:10]} is 0 ({still.sum()} such cells); "
                "impact needs liquidity. Leave the symbol or those days out."
            )
        return self.volatility * np.sqrt(account / self.daily_value)
