"""From a ForecastConfig to forecasters: the leaves that are stored, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlplatform.features.forecasts.chronos import ChronosBackend
from rlplatform.features.forecasts.combination import CORE, REFERENCE, average, choose
from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.forecast import Draws, Forecast, ForecastBackend
from rlplatform.features.forecasts.garch import GarchBackend
from rlplatform.features.forecasts.historical import FilteredBootstrapBackend, IIDBootstrapBackend
from rlplatform.features.forecasts.toto import TotoBackend
from rlplatform.features.forecasts.volatility import GaussianBackend

Array = np.ndarray

LEARNED = ("chronos", "toto")


def leaf(name: str, config: ForecastConfig) -> ForecastBackend:
    """A forecaster that stands by itself: bootstrap, iid, garch, gaussian, chronos or toto."""
    horizons, decay = config.horizons, config.ewma_decay
    draws = Draws(paths=config.draws, steps=max(horizons), seed=config.seed)
    if name == "gaussian":
        return GaussianBackend(horizons=horizons, decay=decay)
    if name == "bootstrap":
        return FilteredBootstrapBackend(horizons=horizons, draws=draws, config=config.bootstrap, decay=decay)
    if name == "iid":
        return IIDBootstrapBackend(horizons=horizons, draws=draws, config=config.bootstrap)
    if name == "garch":
        return GarchBackend(horizons=horizons, draws=draws, config=config.garch)
    learned = {"chronos": (ChronosBackend, config.chronos), "toto": (TotoBackend, config.toto)}
    kind, settings = learned[name]
    return kind(horizons=horizons, draws=draws, config=settings, decay=decay)


def leaf_names(config: ForecastConfig) -> tuple[str, ...]:
    """The leaves that the asked-for backend needs, in a fixed order.

    Those of "core" stand behind every learned one: they speak where it may not.

    Raises:
        ConfigError: a learned backend asked for by name cannot be had.
    """
    if config.backend == "auto":
        wanted = {REFERENCE, *_present_candidates(config)}
        return tuple(dict.fromkeys(leaf for name in sorted(wanted) for leaf in (CORE if name == "core" else (name,))))
    if config.backend in LEARNED:
        leaf(config.backend, config).check()
        return (config.backend, *CORE)
    return CORE if config.backend == "core" else (config.backend,)


def _present_candidates(config: ForecastConfig) -> list[str]:
    return [name for name in config.auto.candidates if name not in _absent_candidates(config)]


def _absent_candidates(config: ForecastConfig) -> dict[str, str]:
    learned = [name for name in config.auto.candidates if name in LEARNED]
    absences = {name: leaf(name, config).absence() for name in learned}
    return {name: why for name, why in absences.items() if why}


def combine(config: ForecastConfig, leaves: Mapping[str, Forecast], log_returns: Array) -> Forecast:
    """What the asked-for backend says, from its leaves at every row; some cells may still have no forecast."""
    if config.backend == "core":
        return average({name: leaves[name] for name in CORE})
    if config.backend != "auto":
        return leaves[config.backend]
    candidates = {
        name: average({leaf: leaves[leaf] for leaf in CORE}) if name == "core" else leaves[name]
        for name in _present_candidates(config)
    }
    candidates.setdefault(REFERENCE, leaves[REFERENCE])
    return choose(candidates, _absent_candidates(config), log_returns, config.auto)


def fallbacks(config: ForecastConfig, leaves: Mapping[str, Forecast]) -> list[Forecast]:
    """Who speaks where the asked-for backend does not, before the normal distribution does."""
    return [average({name: leaves[name] for name in CORE})] if config.backend in LEARNED else []


@dataclass(frozen=True, kw_only=True)
class CombinedBackend:
    """`core` or `auto`, or any other, behind the one interface: its leaves forecast all rows up to the last one asked for."""

    config: ForecastConfig

    @property
    def name(self) -> str:
        return self.config.backend

    @property
    def horizons(self) -> tuple[int, ...]:
        return self.config.horizons

    @property
    def identity(self) -> dict[str, Any]:
        leaves = {name: dict(leaf(name, self.config).identity) for name in leaf_names(self.config)}
        return {"backend": self.name, "version": 1, "leaves": leaves, "auto": str(self.config.auto)}

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        end = int(rows.max(initial=-1)) + 1
        dates, log_returns = dates[:end], log_returns[:end]
        everywhere = np.arange(end)
        leaves = {name: leaf(name, self.config).forecast(dates, log_returns, everywhere) for name in leaf_names(self.config)}
        return combine(self.config, leaves, log_returns).rows(rows)


def make_backend(config: ForecastConfig) -> ForecastBackend:
    """The forecaster that `config` asks for.

    Raises:
        ConfigError: a learned one that cannot be had here.
    """
    if config.backend in ("core", "auto"):
        return CombinedBackend(config=config)
    backend = leaf(config.backend, config)
    if config.backend in LEARNED:
        backend.check()
    return backend
