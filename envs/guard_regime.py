"""RegimeGuard: three guards on the account's own path, drawdown, trailing return and turnover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from envs.backend import Backend
from envs.errors import ConfigError
from envs.ledger import LedgerStep, at_least
from envs.snapshot import Stateful

Array = Any


class Situation(NamedTuple):
    """What guards may know when a decision is made: all of it stands at the close of `row`."""

    wealth: Array  # (B,) [units of initial wealth]
    peak: Array  # (B,) highest wealth so far
    held: Array  # (B, N) drifted weights
    row: Array  # (B,) int64, of the tape


@dataclass(frozen=True, kw_only=True)
class RegimeGuardConfig:
    """Limits of the three guards; the defaults are the preset of tune_configs/regime_etf_guarded.yaml.

    Attributes:
        drawdown_limit: depth below the account's peak from which on exposure is scaled [fraction of the peak].
        drawdown_scale: what every weight is then multiplied by.
        trailing_bars: window of the trailing return; the episode so far while it is shorter.
        trailing_return_limit: trailing return at or below which turnover costs extra reward [fraction, < 0].
        turnover_penalty: that extra [reward before `reward.scale`, for each unit of turnover].
        turnover_limit: recent turnover above which positions may only be probed [fraction of wealth a bar].
        turnover_bars: memory of the recent turnover, an exponential mean; 1 is the last bar's alone.
        probe_weight: by how much a position may then grow in one bar [fraction of wealth].
    """

    drawdown_limit: float = 0.036
    drawdown_scale: float = 0.6
    trailing_bars: int = 42
    trailing_return_limit: float = -0.03
    turnover_penalty: float = 0.0075
    turnover_limit: float = 0.55
    turnover_bars: int = 1
    probe_weight: float = 0.002

    def __post_init__(self) -> None:
        if not 0 < self.drawdown_limit < 1:
            raise ConfigError(f"guards.regime.drawdown_limit = {self.drawdown_limit}; expected a fraction in (0, 1).")
        if not 0 <= self.drawdown_scale <= 1:
            raise ConfigError(f"guards.regime.drawdown_scale = {self.drawdown_scale}; a guard lowers risk: expected 0 … 1.")
        for name in ("trailing_bars", "turnover_bars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"guards.regime.{name} = {getattr(self, name)}; expected at least 1 bar.")
        if not -1 < self.trailing_return_limit < 0:
            found = self.trailing_return_limit
            raise ConfigError(f"guards.regime.trailing_return_limit = {found}; expected a loss in (−1, 0), such as −0.03.")
        for name in ("turnover_penalty", "turnover_limit", "probe_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"guards.regime.{name} = {getattr(self, name)}; expected a finite number ≥ 0.")


class RegimeGuard(Stateful):
    """Scales exposure in a drawdown, makes turnover dear after a loss, and lets a churning book only probe.

        drawdown:  W/peak − 1 ≤ −drawdown_limit         ⇒  w ← drawdown_scale · w
        trailing:  W_t / W_{t−bars} − 1 ≤ return limit  ⇒  reward ← reward − scale · turnover_penalty · Σ|Δw|
        turnover:  recent Σ|Δw| > turnover_limit        ⇒  |wₙ| ← min(|wₙ|, held on that side + probe_weight)

    The turnover guard lets every sale through: it never keeps an account in a position.

    Attributes:
        hits: name → (B,) bool, which guards held at the last decision.
    """

    names: ClassVar[tuple[str, ...]] = ("drawdown", "trailing", "turnover")
    STATE: ClassVar[tuple[str, ...]] = ("recent_turnover", "past_wealth")

    def __init__(self, config: RegimeGuardConfig, num_accounts: int, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.recent_turnover = backend.zeros(num_accounts)
        # Wealth at the last `trailing_bars` closes, each at its row modulo their number; 1 before the episode began.
        self.past_wealth = backend.array(np.ones((num_accounts, config.trailing_bars)), "float64")
        self._accounts = backend.array(np.arange(num_accounts), "int64")
        self.hits: dict[str, Array] = {}

    def reset(self, mask: Array) -> None:
        self.recent_turnover = self.backend.select(mask, 0.0, self.recent_turnover)
        self.past_wealth = self.backend.select(mask, 1.0, self.past_wealth)

    def restrain(self, weights: Array, now: Situation) -> Array:
        """Weights (B, N) that the drawdown and the turnover guard let through. Once a decision: it notes the wealth."""
        config, xp = self.config, self.backend.xp
        place = now.row % config.trailing_bars
        earlier = self.past_wealth[self._accounts, place]
        self.past_wealth[self._accounts, place] = now.wealth
        self.hits = {
            "drawdown": now.wealth <= now.peak * (1.0 - config.drawdown_limit),
            "trailing": now.wealth <= earlier * (1.0 + config.trailing_return_limit),
            "turnover": self.recent_turnover > config.turnover_limit,
        }
        probed = grown_at_most(weights, now.held, config.probe_weight)
        weights = xp.where(self.hits["turnover"][:, None], probed, weights)
        return xp.where(self.hits["drawdown"][:, None], config.drawdown_scale * weights, weights)

    def penalty(self, turnover: Array) -> Array:
        """What the trailing guard takes from this bar's reward (B,) ≥ 0, before `reward.scale`."""
        return self.config.turnover_penalty * turnover * self.hits["trailing"]

    def observe(self, asked: Array, step: LedgerStep, gross_next: Array) -> None:
        self.recent_turnover = self.recent_turnover + (step.turnover - self.recent_turnover) / self.config.turnover_bars


def grown_at_most(weights: Array, held: Array, growth: float) -> Array:
    """Weights (B, N) whose size exceeds what is held on the same side by `growth` at most; smaller ones stay as they are."""
    longs, shorts = at_least(weights, 0.0), at_least(-weights, 0.0)
    room = at_least(held, 0.0) + growth, at_least(-held, 0.0) + growth
    return longs - at_least(longs - room[0], 0.0) - (shorts - at_least(shorts - room[1], 0.0))
