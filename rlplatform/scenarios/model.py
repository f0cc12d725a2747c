"""ScenarioModel: the interface of all laws of joint returns, and which one a config asks for."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from envs.errors import ShapeError
from rlplatform.scenarios.config import BlockBootstrapConfig, RegimeGarchConfig, ScenarioModelConfig

Array = np.ndarray

LEAST_BARS = 250  # of history for a fit


class ScenarioModel(Protocol):
    """A law of joint gross returns. `kind` is the name that a config has for it."""

    kind: ClassVar[str]

    def sample(
        self,
        paths: int,
        bars: int,
        rng: np.random.Generator,
        history: Array | None = None,
        regime: int | None = None,
        antithetic: bool = False,
    ) -> Array:
        """Gross returns (paths, bars, N), `P_t / P_{t−1}`.

        Args:
            rng: the only source of draws.
            history: (H, N) gross returns after which every path goes on; else each begins after a row of the fit's history,
                drawn for it.
            regime: the market stays in this one (0 calm, 1 choppy, 2 crisis) all the time; else it moves.
            antithetic: path 2k + 1 mirrors the innovations of path 2k, with the same start and the same regimes.
        """


def fit_model(config: ScenarioModelConfig, gross: Array) -> ScenarioModel:
    """The law that `config` names, fitted on these rows and no others.

    Args:
        gross: (T, N) gross returns in their order, of training rows.

    Raises:
        ShapeError: fewer than 250 rows.
        MarketDataError: a price that stands still.
    """
    if len(gross) < LEAST_BARS:
        raise ShapeError(f"scenarios.model: {len(gross)} training rows; a fit needs at least {LEAST_BARS}. Train on more days.")
    gross = np.ascontiguousarray(gross, dtype=np.float64)
    if isinstance(config, BlockBootstrapConfig):
        from rlplatform.scenarios.bootstrap import BlockBootstrap

        return BlockBootstrap(config, gross)
    if isinstance(config, RegimeGarchConfig):
        from rlplatform.scenarios.regime_garch import RegimeGarch

        return RegimeGarch.fit(config, gross)
    from rlplatform.scenarios.transformer import ReturnTransformer

    return ReturnTransformer.fit(config, gross)


def mirrored(values: Array, antithetic: bool) -> Array:
    """(paths, …) innovations; with `antithetic` every odd path has those of the one before with the other sign."""
    if antithetic:
        values[1::2] = -values[: len(values) - 1 : 2]
    return values


def shared(values: Array, antithetic: bool) -> Array:
    """(paths, …) draws that two mirrored paths have in common."""
    if antithetic:
        values[1::2] = values[: len(values) - 1 : 2]
    return values
