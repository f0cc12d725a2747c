"""ShardWorker: completes shards of the store. A module of its own, so that an actor's process imports little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.features.forecasts.chronos import of_symbol
from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.registry import leaf
from rlplatform.features.forecasts.shards import WorkUnit
from rlplatform.features.forecasts.store import FeatureStore

Array = np.ndarray


class ShardWorker:
    """Completes shards, its forecasters loaded once."""

    def __init__(self, config: ForecastConfig, root: str) -> None:
        self.config, self.store = config, FeatureStore(Path(root))
        self.backends: dict[str, Any] = {}

    def complete(self, unit: WorkUnit, dates: Array, symbols: tuple[str, ...], log_returns: Array) -> int:
        """The number of forecasts made; the shard is on the disk then.

        Args:
            log_returns: (T, N).
        """
        if unit.leaf not in self.backends:
            self.backends[unit.leaf] = leaf(unit.leaf, self.config)
        self.store.describe(of_symbol(self.backends[unit.leaf], unit.symbol))
        self.store.complete(self.backends[unit.leaf], dates, log_returns[:, symbols.index(unit.symbol)], unit)
        return len(unit.rows)
