"""Crashes: a fall and its recovery, made of a history's own returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.errors import ConfigError
from rlplatform.scenarios.blocks import block_bootstrap

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class ShockConfig:
    """A crash and what follows.

    Attributes:
        name: what a table calls it.
        fall: of the equal-weight market over the crash [fraction, in (0, 1)].
        fall_bars: length of the crash.
        volatility: of the crash, times that of history.
        recovery_volatility: of the recovery, likewise.
        correlation: ρ, share of each asset's variance that all have in common.
        recovery: share of the log fall that comes back.
        recovery_bars: over which it does.
    """

    name: str
    fall: float
    fall_bars: int
    volatility: float
    recovery_volatility: float
    correlation: float
    recovery: float
    recovery_bars: int

    def __post_init__(self) -> None:
        for name in ("fall", "correlation"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"shock {self.name}: {name} = {getattr(self, name)}; expected a fraction in (0, 1).")
        if min(self.fall_bars, self.recovery_bars) < 2:
            raise ConfigError(f"shock {self.name}: fall and recovery take at least 2 bars each.")


# Equal weight of SPY, QQQ and IWM with dividends, daily closes, against their volatility from 2000 to 2024: 2008-08-28 to
# 2009-03-09 and on to 2009-08-31; 2020-02-19 to 2020-03-23 and on to 2020-08-18.
SHOCKS = (
    ShockConfig(
        name="2008", fall=0.487, fall_bars=131, volatility=2.5, correlation=0.93,
        recovery=0.69, recovery_bars=122, recovery_volatility=1.3,
    ),
    ShockConfig(
        name="2020", fall=0.343, fall_bars=23, volatility=3.5, correlation=0.95,
        recovery=1.09, recovery_bars=103, recovery_volatility=1.5,
    ),
)  # fmt: skip


def shocked(gross: Array, shock: ShockConfig, block_bars: int, rng: np.random.Generator) -> Array:
    """A crash and its recovery (fall_bars + recovery_bars, N).

    Standardised log returns of a bootstrapped path, all assets together, are split into their common part c and what each
    asset has of its own, e; mixed, brought back to variance 1 and scaled by history's σ. Each stretch is then shifted by one
    number a bar so that the mean log return over the assets is exactly the fall's, then the recovery's:

        x = σ·volatility·(√ρ c + √(1 − ρ) e),    Σ mean(x) = log(1 − fall), then −recovery · log(1 − fall)
    """
    logs = np.log(gross)
    spread = np.maximum(logs.std(axis=0), 1e-12)
    bars = shock.fall_bars + shock.recovery_bars
    drawn = np.log(block_bootstrap(gross, bars, block_bars, rng))
    common = _standardised(((drawn - logs.mean(axis=0)) / spread).mean(axis=1, keepdims=True))
    scores = _standardised(drawn)
    own = _standardised(scores - (scores * common).mean(axis=0) * common)
    moves = spread * _standardised(np.sqrt(shock.correlation) * common + np.sqrt(1.0 - shock.correlation) * own)
    moves[: shock.fall_bars] *= shock.volatility
    moves[shock.fall_bars :] *= shock.recovery_volatility
    depth = np.log(1.0 - shock.fall)
    parts = (moves[: shock.fall_bars], depth), (moves[shock.fall_bars :], -shock.recovery * depth)
    return np.exp(np.concatenate([part + (change / len(part) - part.mean()) for part, change in parts]))


def _standardised(columns: Array) -> Array:
    """Mean 0 and variance 1 down each column; a constant one is 0."""
    centred = columns - columns.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-9)
