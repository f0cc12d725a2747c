"""ConsensusGate: no position grows while forecasts agree less than the costs and the record demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from envs.backend import Backend
from envs.errors import ConfigError
from envs.guard_regime import Situation, grown_at_most
from envs.ledger import LedgerStep, total
from envs.snapshot import Stateful
from envs.tape import MarketTape

Array = Any

TRADED = 1e-6  # turnover below which a bar says nothing about the cost of trading


@dataclass(frozen=True, kw_only=True)
class ConsensusGateConfig:
    """How much agreement a larger position takes.

    Attributes:
        consensus_column: feature of each asset on the tape, −1 (all forecasts say down) … 1 (all say up), not scaled.
        skew_column: feature of each asset, skew of its forecast, not scaled; counted as 0 where the tape lacks it.
        threshold: agreement asked for when trading is free, the record is even and the forecast symmetric.
        cost_weight: added for each basis point of realised cost and quoted half spread [1/bp].
        hit_weight: times the shortfall of the recent hit rate below one half.
        skew_weight: times the skew against the position; skew in its favour lowers the threshold.
        memory_bars: of the exponential means of cost and hit rate.
    """

    consensus_column: str = "forecast_consensus"
    skew_column: str = "forecast_skew"
    threshold: float = 0.1
    cost_weight: float = 0.01
    hit_weight: float = 1.0
    skew_weight: float = 0.1
    memory_bars: int = 42

    def __post_init__(self) -> None:
        for name in ("threshold", "cost_weight", "hit_weight", "skew_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"guards.consensus.{name} = {getattr(self, name)}; expected a finite number ≥ 0.")
        if self.memory_bars < 1:
            raise ConfigError(f"guards.consensus.memory_bars = {self.memory_bars}; expected at least 1 bar.")


class ConsensusGate(Stateful):
    """Positions may grow only where forecasts agree with them.

        θₙ = clip(threshold + a·cost + b·max(½ − hit rate, 0) − c·sideₙ·skewₙ, 0, 1)
        sideₙ·consensusₙ < θₙ  ⇒  |wₙ| ← min(|wₙ|, held on that side)

    cost [bp of traded value] is the account's realised one, an exponential mean over the bars it traded on, plus the
    tape's half spread; the hit rate is the share of bars with a position that made money, before costs. A tape without the
    consensus column leaves the gate open.

    Attributes:
        cost_bps, hit_rate: (B,) as they stand.
        hits: "consensus" → (B,) bool, whether any position was held back at the last decision.
    """

    names: ClassVar[tuple[str, ...]] = ("consensus",)
    STATE: ClassVar[tuple[str, ...]] = ("cost_bps", "hit_rate")

    def __init__(
        self, config: ConsensusGateConfig, tape: MarketTape, cost_bps: float, num_accounts: int, backend: Backend
    ) -> None:
        self.config, self.backend, self._first_cost = config, backend, cost_bps
        self._consensus, self._skew = (_feature(tape, name, backend) for name in (config.consensus_column, config.skew_column))
        self._half_spread = backend.real(tape.half_spread_bps)
        self.cost_bps, self.hit_rate = backend.zeros(num_accounts) + cost_bps, backend.zeros(num_accounts) + 0.5
        self._open = backend.zeros(num_accounts) > 0
        self.hits: dict[str, Array] = {}

    def reset(self, mask: Array) -> None:
        self.cost_bps = self.backend.select(mask, self._first_cost, self.cost_bps)
        self.hit_rate = self.backend.select(mask, 0.5, self.hit_rate)

    def restrain(self, weights: Array, now: Situation) -> Array:
        """Weights (B, N) that do not grow where agreement is short of the threshold."""
        if self._consensus is None:
            self.hits = {"consensus": self._open}
            return weights
        xp, side = self.backend.xp, self.backend.xp.sign(weights)
        short_of_it = side * self.backend.rows(self._consensus, now.row) < self._threshold(side, now.row)
        kept = xp.where(short_of_it, grown_at_most(weights, now.held, 0.0), weights)
        self.hits = {"consensus": total(abs(weights)) > total(abs(kept))}
        return kept

    def _threshold(self, side: Array, row: Array) -> Array:
        """θ (B, N)."""
        config = self.config
        record = config.threshold + config.hit_weight * (0.5 - self.hit_rate).clip(0.0, None)
        cost = self.cost_bps[:, None] + self.backend.rows(self._half_spread, row)
        threshold = record[:, None] + config.cost_weight * cost
        if self._skew is not None:
            threshold = threshold - config.skew_weight * side * self.backend.rows(self._skew, row)
        return threshold.clip(0.0, 1.0)

    def observe(self, asked: Array, step: LedgerStep, gross_next: Array) -> None:
        xp, share = self.backend.xp, 1.0 / self.config.memory_bars
        traded, holds = step.turnover > TRADED, total(abs(step.target)) > 0
        paid_bps = 1e4 * step.cost / xp.where(traded, step.turnover, 1.0)
        won = self.backend.real(total(step.target * (gross_next - 1.0)) > 0)
        self.cost_bps = xp.where(traded, self.cost_bps + share * (paid_bps - self.cost_bps), self.cost_bps)
        self.hit_rate = xp.where(holds, self.hit_rate + share * (won - self.hit_rate), self.hit_rate)


def _feature(tape: MarketTape, name: str, backend: Backend) -> Array | None:
    """(T, N), or None where the tape lacks it."""
    return backend.real(tape.features[..., tape.feature_names.index(name)]) if name in tape.feature_names else None
