"""Constraints: what an account may hold beyond its caps, by asset, group and factor, and how much it may trade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from envs import ledger
from envs.backend import Array, Backend
from envs.errors import ConfigError
from envs.terms import CapsConfig


@dataclass(frozen=True, kw_only=True)
class GroupCap:
    """A limit on what a group of assets, such as a sector, may weigh together.

    Attributes:
        symbols: its assets; groups may overlap.
        gross: largest Σ|w| over them [fraction of wealth].
    """

    symbols: tuple[str, ...]
    gross: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "symbols", tuple(self.symbols))


@dataclass(frozen=True, kw_only=True)
class FactorBound:
    """A limit on the exposure to a factor.

    Attributes:
        loadings: symbol → β; an asset that is not named has none.
        most: largest |Σ βₙ wₙ|.
    """

    loadings: Mapping[str, float]
    most: float


@dataclass(frozen=True, kw_only=True)
class ConstraintsConfig:
    """Limits beside `caps`. All are convex and hold for cash, so they can be met by holding less.

    Attributes:
        per_asset: symbol → largest |w|; `caps.per_asset` where not named. 0 forbids an asset.
        groups: name → `GroupCap`.
        factors: name → `FactorBound`.
        turnover: largest Σ|target − held| of one decision, held being the drifted weights; null for no limit.
    """

    per_asset: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, GroupCap] = field(default_factory=dict)
    factors: Mapping[str, FactorBound] = field(default_factory=dict)
    turnover: float | None = None

    def __post_init__(self) -> None:
        limits = {f"per_asset.{symbol}": cap for symbol, cap in self.per_asset.items()}
        limits |= {f"groups.{name}.gross": group.gross for name, group in self.groups.items()}
        limits |= {f"factors.{name}.most": factor.most for name, factor in self.factors.items()}
        limits |= {} if self.turnover is None else {"turnover": self.turnover}
        for name, limit in limits.items():
            if not 0 <= limit <= 100:
                raise ConfigError(f"constraints.{name} = {limit}; expected a multiple of wealth in [0, 100].")

    def check_symbols(self, symbols: Sequence[str]) -> None:
        """Whether every asset named is there.

        Raises:
            ConfigError: names the key and the symbol.
        """
        named = {"per_asset": self.per_asset}
        named |= {f"groups.{name}": group.symbols for name, group in self.groups.items()}
        named |= {f"factors.{name}": factor.loadings for name, factor in self.factors.items()}
        for key, asked in named.items():
            for symbol in asked:
                if symbol not in symbols:
                    raise ConfigError(
                        f"env.constraints.{key} names {symbol!r}, which is not traded; expected one of {', '.join(symbols)}."
                    )


class Constraints:
    """The limits as a layer: any weights in, weights that keep every limit out.

    Never violated, idempotent, the identity inside the feasible set, differentiable almost everywhere, on numpy and torch
    alike. In closed form, for every limit but the turnover's allows less of the same: each asset is clipped, each group
    scaled, `ledger.project` scales the legs, and what a factor still exceeds scales the whole account. Each step only
    shrinks weights and the last one all alike, so none undoes another. It is not the nearest point, but the same kind
    of trade-off that the caps make; gradients pass through every weight that is scaled.
    """

    def __init__(self, config: ConstraintsConfig, caps: CapsConfig, symbols: Sequence[str], backend: Backend) -> None:
        config.check_symbols(symbols)
        self.config, self.caps, self._backend = config, caps, backend
        at = {symbol: column for column, symbol in enumerate(symbols)}
        most = np.full(len(symbols), float(caps.per_asset))
        for symbol, cap in config.per_asset.items():
            most[at[symbol]] = min(cap, caps.per_asset)
        self._most = backend.real(most) if config.per_asset else None
        self._groups = [(_row(at, dict.fromkeys(g.symbols, 1.0), backend), g.gross) for g in config.groups.values()]
        self._factors = [(_row(at, f.loadings, backend), f.most) for f in config.factors.values()]

    def apply(self, weights: Array, held: Array, gross_cap: Array | None = None) -> Array:
        """Feasible weights within the turnover budget.

        Where drift has carried the account out of the limits, the trade back into them comes first, whatever it takes, and
        what is left of the budget after it. Budget and limits are convex, so every point between the two keeps the limits:

            w = h + s (x − h),    s = min(1, budget left / Σ|x − h|),    x = feasible(weights), h = feasible(held)

        Args:
            weights: (B, N) as asked for.
            held: (B, N) drifted weights before the trade.
            gross_cap: as in `ledger.project`.
        """
        wanted = self.feasible(weights, gross_cap)
        if self.config.turnover is None:
            return wanted
        start = self.feasible(held, gross_cap)
        left = ledger.at_least(self.config.turnover - ledger.total(abs(start - held)), 0.0)
        asked = ledger.total(abs(wanted - start))
        return start + (wanted - start) * (left / self._backend.xp.maximum(asked, left).clip(1e-30))[..., None]

    def feasible(self, weights: Array, gross_cap: Array | None = None) -> Array:
        """Weights (B, N) within caps, groups and factors; the turnover budget aside."""
        kept, xp = weights, self._backend.xp
        if self._most is not None:
            kept = xp.maximum(xp.minimum(kept, self._most), -self._most)
        for members, cap in self._groups:
            share = _share(ledger.total(abs(kept) * members), cap)
            kept = kept * (1.0 - members * (1.0 - share))
        kept = ledger.project(kept, self.caps, gross_cap)
        for loadings, most in self._factors:
            kept = kept * _share(abs(ledger.total(kept * loadings)), most)
        return kept


def _share(exposure: Array, cap: float) -> Array:
    """min(1, cap/exposure) as (…, 1)."""
    return (cap / ledger.at_least(exposure, max(cap, 1e-30)))[..., None]


def _row(at: Mapping[str, int], values: Mapping[str, float], backend: Backend) -> Array:
    row = np.zeros(len(at))
    for symbol, value in values.items():
        row[at[symbol]] = value
    return backend.real(row)
