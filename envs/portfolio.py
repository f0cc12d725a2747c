"""Portfolio-v0: continuous target weights over N assets and cash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from envs.accounts import Accounts, TradingTask
from envs.backend import Array
from envs.errors import ConfigError
from envs.ledger import at_least, total
from envs.observation import account_basics, feature_table
from envs.rewards import RewardConfig
from envs.spaces import Simplex, signed_box
from envs.tape import MarketTape
from envs.trading_config import TradingConfig


@dataclass(frozen=True, kw_only=True)
class PortfolioConfig(TradingConfig):
    """Settings of Portfolio-v0.

    Attributes:
        leverage_max: with it the action has one more entry that scales all weights, from 0 to this multiple.
        observe_forecasts: put forecast CVaR and uncertainty into the observation.
    """

    id: Literal["Portfolio-v0"] = "Portfolio-v0"
    reward: RewardConfig = field(default_factory=lambda: RewardConfig(log_growth=1.0))
    leverage_max: float | None = None
    observe_forecasts: bool = True

    def __post_init__(self) -> None:
        # A long-only account's net exposure is its gross exposure: the smaller cap binds.
        cap = min(("gross", "net") if self.caps.long_only else ("gross",), key=lambda name: getattr(self.caps, name))
        highest = getattr(self.caps, cap)
        if self.leverage_max is not None and not 0 < self.leverage_max <= highest:
            raise ConfigError(
                f"env.leverage_max = {self.leverage_max}; expected in (0, caps.{cap} = {highest}]. Raise caps.{cap} to lever."
            )


class PortfolioTask(TradingTask):
    """Target weights over N assets and cash.

    Action, long only (`caps.long_only`): `Simplex` (1 + N,), cash first. Entries off the simplex are divided by their
    sum. Long/short: `Box(−1, 1, (N,))`, each entry a fraction of `caps.per_asset`; the legs are scaled into the gross and
    net caps.
    With `leverage_max` one more entry, last, scales every weight: from 0 to 1 on the simplex, from −1 to 1 on the box.

    Observation: `<symbol>.<feature>` for each asset, the market's context, forecasts [percent], then the account:

    | entry | unit |
    |---|---|
    | cash_weight, weight_<symbol> | fraction of wealth, after drift |
    | portfolio_return | last bar's, percent |
    | drawdown | W/peak − 1, ≤ 0 |
    | long_cooldown, short_cooldown | share of the cooldown left; only with `shutdown` |

    Reward: log growth minus the penalties of `RewardConfig`, each logged by itself, in percent by default.
    Episode end: terminates at ruin, truncates at the end of its window.

    v0: first version.
    """

    summary: ClassVar[str] = "continuous weights over N assets and cash"

    def __init__(self, config: PortfolioConfig, tape: MarketTape) -> None:
        super().__init__(config, tape)
        levered = config.leverage_max is not None
        n = tape.num_assets
        self.action_space = Simplex(n + 1, leverage=levered) if config.caps.long_only else signed_box(n + levered)
        self.market_names, self.market = feature_table(tape, config.observe_forecasts)
        cooldowns = ("long_cooldown", "short_cooldown") if config.shutdown else ()
        self.account_names = (
            "cash_weight",
            *(f"weight_{symbol}" for symbol in tape.symbols),
            "portfolio_return",
            "drawdown",
            *cooldowns,
        )

    def target_weights(self, actions: Array, accounts: Accounts) -> Array:
        actions = accounts.backend.real(actions)
        n = self.tape.num_assets
        if self.config.caps.long_only:
            parts = at_least(actions[:, : n + 1], 0.0)
            weights = parts[:, 1:] / at_least(total(parts), 1e-30)[:, None]  # all zero: all cash
            leverage = actions[:, -1]
        else:
            weights = actions[:, :n] * self.config.caps.per_asset
            leverage = (actions[:, -1] + 1) / 2
        if self.config.leverage_max is None:
            return weights
        return weights * (leverage.clip(0.0, 1.0) * self.config.leverage_max)[:, None]

    def account_columns(self, accounts: Accounts) -> list[Array]:
        columns = account_basics(accounts)
        if accounts.shutdown is not None:
            bars = accounts.shutdown.config.cooldown_bars
            columns += [left / bars for left in accounts.shutdown.cooldown]
        return columns
