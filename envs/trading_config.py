"""TradingConfig: the settings that every trading environment has."""

from __future__ import annotations

from dataclasses import dataclass, field

from envs.constraints import ConstraintsConfig
from envs.errors import ConfigError
from envs.guards import GuardsConfig, LossShutdownConfig
from envs.liquidity import LiquidityConfig
from envs.rewards import RewardConfig
from envs.terms import CapsConfig, CostConfig, FinancingConfig


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """Which rows an episode runs over.

    Attributes:
        length_bars: decisions in an episode; none for the whole window in order.
        random_start: draw the first decision anywhere it fits, else start at the window's first row.
        wealth_floor: ruin, as a fraction of initial wealth; wealth at or below it terminates the episode.
    """

    length_bars: int | None = 256
    random_start: bool = True
    wealth_floor: float = 0.01

    def __post_init__(self) -> None:
        if self.length_bars is not None and self.length_bars < 1:
            raise ConfigError(
                f"episode.length_bars = {self.length_bars}; expected at least 1, or nothing for the whole window."
            )
        if not 0 <= self.wealth_floor < 1:
            raise ConfigError(f"episode.wealth_floor = {self.wealth_floor}; expected a fraction of initial wealth in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class TradingConfig:
    """What every trading environment has. Each environment's own config adds to it and sets its defaults.

    Attributes:
        costs, financing, caps, reward, episode, shutdown, guards, constraints: see their own configs.
        observe: further columns at the end of the observation, see `ObservedColumns`.
    """

    costs: CostConfig = field(default_factory=CostConfig)
    financing: FinancingConfig = field(default_factory=FinancingConfig)
    caps: CapsConfig = field(default_factory=CapsConfig)
    reward: RewardConfig = field(default_factory=lambda: RewardConfig(log_growth=1.0))
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    shutdown: LossShutdownConfig | None = None
    guards: GuardsConfig | None = None
    constraints: ConstraintsConfig | None = None
    observe: tuple[str, ...] = ()

    @property
    def liquidity(self) -> LiquidityConfig | None:
        """Of the constraints; None where what the market trades does not limit the account."""
        return None if self.constraints is None else self.constraints.liquidity
