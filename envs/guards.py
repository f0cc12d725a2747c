"""Guards: they only ever lower risk. LossShutdown closes a losing side; Guards are all the others of one account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from envs.backend import Backend
from envs.errors import ConfigError
from envs.guard_consensus import ConsensusGate, ConsensusGateConfig
from envs.guard_kill_switch import KillSwitch, KillSwitchConfig
from envs.guard_regime import RegimeGuard, RegimeGuardConfig, Situation
from envs.ledger import LedgerStep, at_least, total
from envs.snapshot import Stateful
from envs.tape import MarketTape
from envs.terms import CostConfig

Array = Any


@dataclass(frozen=True, kw_only=True)
class LossShutdownConfig:
    """Close a side of the book after it has lost too much.

    Attributes:
        loss_limit: running loss of the side since its last high [fraction of wealth] that shuts it.
        cooldown_bars: decisions for which the side then stays flat.
    """

    loss_limit: float = 0.05
    cooldown_bars: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.loss_limit < 1:
            raise ConfigError(f"shutdown.loss_limit = {self.loss_limit}; expected a fraction of wealth in (0, 1).")
        if self.cooldown_bars < 1:
            raise ConfigError(f"shutdown.cooldown_bars = {self.cooldown_bars}; expected at least 1 bar.")


class LossShutdown(Stateful):
    """Long and short side apart, each with one running loss and one cooldown per account.

        loss ← max(0, loss − Σ_side w·r);  loss > limit  ⇒  side flat for `cooldown_bars` decisions, loss ← 0

    The running loss is the depth of the side's cumulative profit below its last high (a CUSUM: one scalar of state).
    """

    STATE: ClassVar[tuple[str, ...]] = ("loss", "cooldown")

    def __init__(self, config: LossShutdownConfig, num_accounts: int, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.loss = [backend.zeros(num_accounts), backend.zeros(num_accounts)]
        self.cooldown = [backend.zeros(num_accounts), backend.zeros(num_accounts)]  # bars left: long, short

    def reset(self, mask: Array) -> None:
        self.loss = [self.backend.select(mask, 0.0, loss) for loss in self.loss]
        self.cooldown = [self.backend.select(mask, 0.0, bars) for bars in self.cooldown]

    def restrain(self, weights: Array) -> Array:
        """Weights (B, N) with the sides that cool down set to zero."""
        longs = at_least(weights, 0.0)
        shorts = weights - longs
        open_long, open_short = (bars <= 0 for bars in self.cooldown)
        return longs * open_long[:, None] + shorts * open_short[:, None]

    def observe(self, target: Array, gross_next: Array) -> None:
        """Book the bar's profit of each side and start or count down the cooldowns."""
        xp = self.backend.xp
        profit = target * (gross_next - 1.0)
        sides = total(profit * (target > 0)), total(profit * (target < 0))
        for side, gain in enumerate(sides):
            loss = at_least(self.loss[side] - gain, 0.0)
            shut = loss > self.config.loss_limit
            bars = at_least(self.cooldown[side] - 1.0, 0.0)
            self.cooldown[side] = xp.where(shut, float(self.config.cooldown_bars), bars)
            self.loss[side] = xp.where(shut, 0.0, loss)


@dataclass(frozen=True, kw_only=True)
class GuardsConfig:
    """Which guards an account has; none of them is seen in the observation.

    Attributes:
        regime: drawdown, trailing-return and turnover guard.
        kill_switch: unwinds everything in a deep drawdown or under a stress tag.
        consensus: lets positions grow only where forecasts agree.
    """

    regime: RegimeGuardConfig | None = None
    kill_switch: KillSwitchConfig | None = None
    consensus: ConsensusGateConfig | None = None


class Guards(Stateful):
    """The guards of B accounts, one after the other, and what they did.

    Attributes:
        parts: consensus gate, regime guard, kill switch, as far as the config has them.
        last: of the last bar, (B,) each: `guard_<name>_rate` 1 where that guard held, `guard_scale` gross exposure kept / asked
            for (1 where nothing was asked for), and with a regime guard `guard_penalty` Σ|Δw| times the extra penalty.
    """

    STATE: ClassVar[tuple[str, ...]] = ("parts", "last", "_sums", "_bars")

    def __init__(self, config: GuardsConfig, tape: MarketTape, costs: CostConfig, num_accounts: int, backend: Backend) -> None:
        self.backend = backend
        self.regime = None if config.regime is None else RegimeGuard(config.regime, num_accounts, backend)
        gate, switch = config.consensus, config.kill_switch
        gate = None if gate is None else ConsensusGate(gate, tape, costs.proportional_bps, num_accounts, backend)
        switch = None if switch is None else KillSwitch(switch, tape, num_accounts, backend)
        self.parts = [part for part in (gate, self.regime, switch) if part is not None]
        names = [f"guard_{name}_rate" for part in self.parts for name in part.names]
        names += ["guard_scale"] if self.regime is None else ["guard_scale", "guard_penalty"]
        self.last = {name: backend.zeros(num_accounts) for name in names}
        self._sums, self._bars = dict(self.last), backend.zeros(num_accounts)
        self._asked = backend.zeros(num_accounts, tape.num_assets)

    @property
    def reward_terms(self) -> tuple[str, ...]:
        """Names of the terms that `penalties` adds to the reward."""
        return () if self.regime is None else ("guard_turnover",)

    def reset(self, mask: Array) -> None:
        for part in self.parts:
            part.reset(mask)
        self._sums = {name: self.backend.select(mask, 0.0, value) for name, value in self._sums.items()}
        self._bars = self.backend.select(mask, 0.0, self._bars)

    def restrain(self, asked: Array, now: Situation) -> Array:
        """Weights (B, N), each of the sign of the feasible `asked` and no larger. Once a decision."""
        self._asked, kept = asked, asked
        for part in self.parts:
            kept = part.restrain(kept, now)
        return kept

    def penalties(self, turnover: Array, scale: float) -> dict[str, Array]:
        """Further reward terms (B,) of this bar; they sum up with the others, before clipping."""
        if self.regime is None:
            return {}
        self.last["guard_penalty"] = self.regime.penalty(turnover)
        return {"guard_turnover": -scale * self.last["guard_penalty"]}

    def observe(self, step: LedgerStep, gross_next: Array) -> None:
        """Book the bar."""
        real = self.backend.real
        gross = total(abs(self._asked))
        kept = total(abs(step.target)) / self.backend.xp.where(gross > 0, gross, 1.0)
        self.last["guard_scale"] = self.backend.xp.where(gross > 0, kept, 1.0)
        for part in self.parts:
            part.observe(self._asked, step, gross_next)
            self.last |= {f"guard_{name}_rate": real(part.hits[name]) for name in part.names}
        self._sums = {name: value + self.last[name] for name, value in self._sums.items()}
        self._bars = self._bars + 1.0

    def summary(self) -> dict[str, Array]:
        """Of the episode so far (B,): share of bars on which each guard held, mean scale; `guard_penalty` is a sum."""
        bars = at_least(self._bars, 1.0)
        return {name: value if name == "guard_penalty" else value / bars for name, value in self._sums.items()}
