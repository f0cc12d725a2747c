"""KillSwitch: everything into cash in a deep drawdown or under a stress tag, and back only after a calm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from envs.backend import Backend
from envs.errors import ConfigError
from envs.guard_regime import Situation
from envs.ledger import LedgerStep, at_least, at_most, total
from envs.snapshot import Stateful
from envs.tape import MarketTape

Array = Any

LEAST_DEPTH = 1e-6  # share of its peak that the unguarded path keeps at least, so that it can always recover


@dataclass(frozen=True, kw_only=True)
class KillSwitchConfig:
    """When to unwind, and when to trade again; the distance between the two is the hysteresis.

    Attributes:
        drawdown: fall of the unguarded path below its peak that unwinds the book [fraction].
        recovered: fall it must have come back to before trading goes on, < drawdown [fraction].
        stress_column: column of the tape's context that tags stress, for instance "regime_crisis"; none if not given.
        stress_on: value at or above which the tag unwinds [unit of the column as it stands on the tape, so after scaling].
        stress_off: value it must have come back to, ≤ stress_on.
        calm_bars: bars in a row that must be recovered and untagged before trading goes on.
    """

    drawdown: float = 0.15
    recovered: float = 0.10
    stress_column: str | None = None
    stress_on: float = 0.5
    stress_off: float = 0.5
    calm_bars: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.recovered < self.drawdown < 1:
            raise ConfigError(
                f"guards.kill_switch: recovered = {self.recovered}, drawdown = {self.drawdown}; "
                "expected 0 ≤ recovered < drawdown < 1."
            )
        if self.stress_off > self.stress_on:
            raise ConfigError(
                f"guards.kill_switch.stress_off = {self.stress_off} is above stress_on = {self.stress_on}; "
                "the switch would open and close at once. Swap them."
            )
        if self.calm_bars < 1:
            raise ConfigError(f"guards.kill_switch.calm_bars = {self.calm_bars}; expected at least 1 bar.")


class KillSwitch(Stateful):
    """Flat while on.

        on:   depth ≥ drawdown, or stress ≥ stress_on
        off:  depth ≤ recovered and stress ≤ stress_off for `calm_bars` decisions in a row

    An account in cash cannot recover, so depth is that of the unguarded path: what the weights that the policy asked for
    would have made, before costs, since the episode began.

    Attributes:
        depth_left: unguarded wealth / its peak (B,).
        on: 1 where the book is unwound (B,).
        hits: "kill_switch" → (B,) bool, on at the last decision.
    """

    names: ClassVar[tuple[str, ...]] = ("kill_switch",)
    STATE: ClassVar[tuple[str, ...]] = ("depth_left", "on", "calm")

    def __init__(self, config: KillSwitchConfig, tape: MarketTape, num_accounts: int, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self._stress = None if config.stress_column is None else backend.real(_context(tape, config.stress_column))
        self.depth_left = backend.zeros(num_accounts) + 1.0
        self.on, self.calm = backend.zeros(num_accounts), backend.zeros(num_accounts)
        self.hits: dict[str, Array] = {}

    def reset(self, mask: Array) -> None:
        self.depth_left = self.backend.select(mask, 1.0, self.depth_left)
        self.on = self.backend.select(mask, 0.0, self.on)
        self.calm = self.backend.select(mask, 0.0, self.calm)

    def restrain(self, weights: Array, now: Situation) -> Array:
        """Weights (B, N), zero where the switch is on. Once a decision: it counts the calm bars."""
        config, xp = self.config, self.backend.xp
        trip = self.depth_left <= 1.0 - config.drawdown
        calm = self.depth_left >= 1.0 - config.recovered
        if self._stress is not None:
            stress = self.backend.rows(self._stress, now.row)
            trip, calm = trip | (stress >= config.stress_on), calm & (stress <= config.stress_off)
        calm = calm & ~trip
        self.calm = xp.where(calm, self.calm + 1.0, 0.0)
        self.on = xp.where(trip, 1.0, xp.where(self.calm >= config.calm_bars, 0.0, self.on))
        self.hits = {"kill_switch": self.on > 0}
        return weights * (1.0 - self.on)[:, None]

    def observe(self, asked: Array, step: LedgerStep, gross_next: Array) -> None:
        growth = at_least(1.0 + total(asked * (gross_next - 1.0)), LEAST_DEPTH)
        self.depth_left = at_least(at_most(self.depth_left * growth, 1.0), LEAST_DEPTH)


def _context(tape: MarketTape, column: str) -> Array:
    if column not in tape.context_names:
        raise ConfigError(
            f"guards.kill_switch.stress_column = {column!r} is not in the tape's context; "
            f"it has {', '.join(tape.context_names) or 'no columns'}. Name one of them, or leave it out."
        )
    return tape.context[:, tape.context_names.index(column)]
