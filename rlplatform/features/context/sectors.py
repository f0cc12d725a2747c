"""Sectors: how an asset's sector moved against all, and the asset against its sector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.errors import ConfigError
from envs.indicators import momentum
from rlplatform.data.request import did_you_mean
from rlplatform.features.context.asof import AlignedSeries
from rlplatform.features.context.series import window_sum

Array = np.ndarray


def sector_log_return(
    gross: Array, symbols: Sequence[str], sectors: Mapping[str, str], series: AlignedSeries, window: int
) -> Array:
    """(T, N) log return of each asset's sector over `window` bars: of the series of that name, else its members' mean.

    NaN while the sector's series is unknown.
    """
    of_asset = momentum(gross, window)
    result = np.empty_like(of_asset)
    for sector in dict.fromkeys(sectors[symbol] for symbol in symbols):
        members = [i for i, symbol in enumerate(symbols) if sectors[symbol] == sector]
        if sector in series.values:
            moved = np.where(series.known(sector), window_sum(series.steps[sector], window), np.nan)
        else:
            moved = of_asset[:, members].mean(1)
        result[:, members] = moved[:, None]
    return result


def check_sectors(symbols: Sequence[str], sectors: Mapping[str, str]) -> None:
    """Refuse assets without a sector."""
    for symbol in symbols:
        if symbol not in sectors:
            raise ConfigError(
                f"features.context.sectors has no {symbol!r}, which data.symbols names; it has {', '.join(sectors)}."
                f"{did_you_mean(symbol, sectors)} Give it a sector."
            )
