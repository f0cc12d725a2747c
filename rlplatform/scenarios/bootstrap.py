"""BlockBootstrap: days of history themselves, in blocks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from envs.indicators import ewma_volatility
from rlplatform.scenarios.blocks import block_rows, matched_block_rows
from rlplatform.scenarios.config import BlockBootstrapConfig
from rlplatform.scenarios.model import shared
from rlplatform.scenarios.regimes import regime_labels

Array = np.ndarray

FIFTHS = (0.2, 0.4, 0.6, 0.8)


class BlockBootstrap:
    """Rows of history, all assets of a day together, in blocks of geometric length.

    What holds within a block is kept as it is: fat tails, correlations of every kind, what a row says of the next. `match` says
    how blocks are joined. Nothing appears that never happened: the worst day of a path is one of history.

    A mirrored path has the same rows, reflected at the mean: log returns 2μ − x. Its mean, volatility, correlations and
    autocorrelations are those of history; its skew and its leverage effect have the other sign.
    """

    kind: ClassVar[str] = "block_bootstrap"

    def __init__(self, config: BlockBootstrapConfig, gross: Array) -> None:
        self.config, self._gross, self._regime = config, gross, regime_labels(gross)
        self._labels = {"none": np.zeros(len(gross), int), "regime": self._regime, "volatility": _fifths(gross)}[config.match]

    def rows(
        self,
        paths: int,
        bars: int,
        rng: np.random.Generator,
        history: Array | None = None,
        regime: int | None = None,
        antithetic: bool = False,
    ) -> Array:
        """(paths, bars) which row of the fit's history each bar is; see `ScenarioModel.sample`."""
        if regime is not None:
            inside = np.flatnonzero(self._regime == regime)
            inside = inside if len(inside) else np.arange(len(self._gross))  # history never was there
            drawn = np.stack([block_rows(inside, bars, self.config.block_bars, rng) for _ in range(paths)])
        else:
            drawn = matched_block_rows(self._labels, paths, bars, self.config.block_bars, rng)
        return shared(drawn, antithetic)

    def sample(
        self,
        paths: int,
        bars: int,
        rng: np.random.Generator,
        history: Array | None = None,
        regime: int | None = None,
        antithetic: bool = False,
    ) -> Array:
        gross = self._gross[self.rows(paths, bars, rng, history, regime, antithetic)]
        if antithetic:
            gross[1::2] = np.exp(2 * np.log(self._gross).mean(axis=0)) / gross[1::2]
        return gross


def _fifths(gross: Array) -> Array:
    """(T,) fifth of history that the market's EWMA volatility is in, 0 to 4."""
    volatility = ewma_volatility(gross.mean(axis=1))
    return np.searchsorted(np.quantile(volatility, FIFTHS), volatility)
