"""Constraints: what an account may hold beyond its caps, by asset, group and factor, and how much it may trade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from envs import ledger
from envs.backend import Array, Backend
from envs.errors import ConfigError
from envs.liquidity import LiquidityConfig
from envs.tape import MarketTape
from envs.terms import CapsConfig

# By precision: a limit counts as reached this close to it, else rounding would hold up trades that only touch it.
TOLERANCE = {"float64": 1e-9, "float32": 3e-7}


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
        liquidity: largest |target − held| of each asset, by what the market has traded; see `LiquidityConfig`.
    """

    per_asset: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, GroupCap] = field(default_factory=dict)
    factors: Mapping[str, FactorBound] = field(default_factory=dict)
    turnover: float | None = None
    liquidity: LiquidityConfig | None = None

    def __post_init__(self) -> None:
        limits = {f"per_asset.{symbol}": cap for symbol, cap in self.per_asset.items()}
        limits |= {f"groups.{name}.gross": group.gross for name, group in self.groups.items()}
        limits |= {f"factors.{name}.most": factor.most for name, factor in self.factors.items()}
        limits |= {} if self.turnover is None else {"turnover": self.turnover}
        for name, limit in limits.items():
            if not 0 <= limit <= 100:
                raise ConfigError(f"constraints.{name} = {limit}; expected a multiple of wealth in [0, 100].")

    def check_tape(self, tape: MarketTape) -> None:
        """Whether every asset named is there, and what is known of the market suffices.

        Raises:
            ConfigError: names the key and the symbol.
            MarketDataError: liquidity without volumes.
        """
        self.check_symbols(tape.symbols)
        if self.liquidity is not None:
            self.liquidity.check_tape(tape)

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
    alike. In closed form, for every limit but those on trades allows less of the same: each asset is clipped, each group
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
        self._every = backend.real(np.ones(len(symbols)))
        self._tolerance = TOLERANCE[backend.precision]

    def apply(self, weights: Array, held: Array, gross_cap: Array | None = None, room: Array | None = None) -> Array:
        """Feasible weights, as far as liquidity and the turnover budget let them be traded.

        Where drift has carried the account out of the limits, the trade back into them comes first, whatever it takes, and
        what is left of the budget after it. Budget and limits are convex, so every point between the two keeps the limits:

            w = h + s (x − h),    s = min(1, budget left / Σ|x − h|),    x = feasible(weights), h = feasible(held)

        Liquidity is the market's limit, not ours, and yields to none: with `room`, h is as near to feasible(held) and x as
        near to feasible(weights) as `traded` gets. An account that drift has carried out of a limit is then back in it as
        soon as the market takes the trade, and until then no trade carries it further out.

        Args:
            weights: (B, N) as asked for.
            held: (B, N) drifted weights before the trade.
            gross_cap: as in `ledger.project`.
            room: (B, N) largest |target − held|, from `Liquidity.room`; not limited if not given.
        """
        wanted = self.feasible(weights, gross_cap)
        if self.config.turnover is None and room is None:
            return wanted
        start = self.feasible(held, gross_cap)
        if room is not None:
            start = self.traded(held, start, held, room, gross_cap)
            wanted = self.traded(start, wanted, held, room, gross_cap)
        if self.config.turnover is None:
            return wanted
        left = ledger.at_least(self.config.turnover - ledger.total(abs(start - held)), 0.0)
        asked = ledger.total(abs(wanted - start))
        return start + (wanted - start) * (left / self._backend.xp.maximum(asked, left).clip(1e-30))[..., None]

    def traded(self, start: Array, goal: Array, held: Array, room: Array, gross_cap: Array | None = None) -> Array:
        """From `start` as far towards `goal` as trades of at most `room` go, no limit exceeded by more than `start` does.

        First the whole way in proportion, as far as the asset with the least room goes. Then each asset alone: what makes
        positions smaller first, it makes place for what makes others larger. `goal` itself where every trade fits.

        Args:
            start: (B, N), within `room` of `held`.
            goal: (B, N), feasible.
            held: (B, N) before the trade.
            room: (B, N) ≥ 0, largest |w − held|.
        """
        xp, low, high = self._backend.xp, held - room, held + room
        step = goal - start
        left = ledger.at_least(xp.where(step > 0, high - start, start - low), 0.0)
        together = xp.amin(xp.where(abs(step) <= left, 1.0, left / ledger.at_least(abs(step), 1e-12)), -1)
        now = start + step * together[..., None]
        end = xp.minimum(xp.maximum(goal, low), high)
        smaller = xp.minimum(xp.maximum(end, ledger.at_most(now, 0.0)), ledger.at_least(now, 0.0))
        now, larger = now + self._allowed(now, smaller - now, gross_cap), end - smaller
        return now + self._allowed(now, larger, gross_cap)

    def _allowed(self, start: Array, step: Array, gross_cap: Array | None) -> Array:
        """The part of `step` (B, N) that carries no exposure out of its limit, or further out than `start` is.

        Limits take from those assets alone that press against them: groups from their members, a net exposure from the side
        that moves it out. What one limit takes may have been another one's hedge; then all go less far, and as exposures are
        convex, a share found on the chord is never too large.
        """
        for members, cap in self._groups:
            before, after = (ledger.total(abs(w) * members) for w in (start, start + step))
            step = step * (1.0 - members * (1.0 - self._chord(before, after, cap)))
        nets = [(self._every, self.caps.net), *self._factors]
        for loadings, most in nets:
            step = step * self._hedged(start * loadings, step * loadings, most)
        cap = self.caps.gross if gross_cap is None else gross_cap
        share = self._chord(ledger.total(abs(start)), ledger.total(abs(start + step)), cap)
        for loadings, most in nets if len(nets) > 1 else ():
            before, after = (abs(ledger.total(w * loadings)) for w in (start, start + step))
            share = self._backend.xp.minimum(share, self._chord(before, after, most))
        return step * share

    def _hedged(self, held: Array, moves: Array, most: float) -> Array:
        """Share (B, N) of each asset's move, so that |Σ held + Σ moves| gets no larger than `most`, or than it was."""
        xp, before = self._backend.xp, ledger.total(held)
        after = before + ledger.total(moves)
        outwards = ledger.at_least(moves * xp.sign(after)[..., None], 0.0)
        excess = abs(after) - ledger.at_least(abs(before), most + self._tolerance)
        share = 1.0 - ledger.at_least(excess, 0.0) / ledger.at_least(ledger.total(outwards), 1e-12)
        return 1.0 - (outwards > 0) * (1.0 - share)[..., None]

    def _chord(self, before: Array, after: Array, cap: Array | float) -> Array:
        """Share (…, 1) of the way from exposure `before` to `after` up to `cap`, or up to `before` where that exceeds it."""
        left = ledger.at_least(cap + self._tolerance - before, self._tolerance / 10)
        gain = after - before
        return self._backend.xp.where(gain <= left, 1.0, left / ledger.at_least(gain, 1e-12))[..., None]

    def feasible(self, weights: Array, gross_cap: Array | None = None) -> Array:
        """Weights (B, N) within caps, groups and factors; the limits on trades aside."""
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
