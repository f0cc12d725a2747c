"""Settings of the scenario models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from envs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class BlockBootstrapConfig:
    """Rows of history in blocks; see `BlockBootstrap`.

    Attributes:
        block_bars: mean length of a block.
        match: what the row before a new block has in common with the row after which it goes on: the market's regime
            (calm, choppy, crisis), the fifth of history that its EWMA volatility is in, or nothing (stationary bootstrap).
    """

    kind: Literal["block_bootstrap"] = "block_bootstrap"
    block_bars: int = 21
    match: Literal["volatility", "regime", "none"] = "volatility"

    def __post_init__(self) -> None:
        _check("block_bars", self.block_bars, self.block_bars >= 2, "at least 2 bars")


@dataclass(frozen=True, kw_only=True)
class RegimeGarchConfig:
    """Market and own factors with GJR-GARCH volatility, scaled by regimes; see `RegimeGarch`.

    Attributes:
        persistence_max: α + γ/2 + β is held below, so that long paths do not explode.
        variance_max: conditional variance is held to so many times its largest in the fit.
    """

    kind: Literal["regime_garch"] = "regime_garch"
    persistence_max: float = 0.995
    variance_max: float = 2.0

    def __post_init__(self) -> None:
        _check("persistence_max", self.persistence_max, 0 < self.persistence_max < 1, "in (0, 1)")
        _check("variance_max", self.variance_max, self.variance_max >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A small causal transformer whose output is a multivariate t with factors; see `ReturnTransformer`.

    Attributes:
        context_bars: past bars that it reads.
        width, layers, heads: of the transformer.
        factors: K of the covariance.
        steps: of the optimiser, at most.
        batch_size: windows of a step.
        learning_rate: AdamW's.
        held_out: share of the training rows, the last of them, that say when to stop.
        patience: looks at them, one every 25 steps, without a better one before it stops.
        seed: of weights and batches.
    """

    kind: Literal["transformer"] = "transformer"
    context_bars: int = 32
    width: int = 32
    layers: int = 2
    heads: int = 4
    factors: int = 2
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 5e-4
    held_out: float = 0.15
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("context_bars", "width", "layers", "heads", "factors", "steps", "batch_size", "patience"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("width", self.width, self.width % self.heads == 0, f"a multiple of heads = {self.heads}")
        _check("held_out", self.held_out, 0 < self.held_out < 1, "a share in (0, 1)")
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")


ScenarioModelConfig = BlockBootstrapConfig | RegimeGarchConfig | TransformerConfig
KINDS: dict[str, type] = {
    "block_bootstrap": BlockBootstrapConfig,
    "regime_garch": RegimeGarchConfig,
    "transformer": TransformerConfig,
}


def _check(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"scenarios.model.{name} = {value}; expected {expected}.")
