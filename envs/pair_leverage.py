"""PairLeverage-v0: signed weights on two stocks, levered up to twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from envs.accounts import OBS_LIMIT, Accounts, TradingTask
from envs.backend import Array
from envs.errors import ConfigError
from envs.ledger import at_least, total
from envs.observation import account_basics, feature_table
from envs.rewards import RewardConfig
from envs.spaces import signed_box
from envs.tape import MarketTape
from envs.terms import CapsConfig, FinancingConfig
from envs.trading_config import TradingConfig


@dataclass(frozen=True, kw_only=True)
class PairLeverageConfig(TradingConfig):
    """Settings of PairLeverage-v0: gross exposure up to 2×, 6.75 % a year on gross exposure above 1×."""

    id: Literal["PairLeverage-v0"] = "PairLeverage-v0"
    caps: CapsConfig = field(default_factory=lambda: CapsConfig(long_only=False, gross=2.0, net=2.0, per_asset=2.0))
    financing: FinancingConfig = field(default_factory=lambda: FinancingConfig(basis="gross", rate_annual=0.0675))
    reward: RewardConfig = field(default_factory=lambda: RewardConfig(log_growth=1.0))


class PairLeverageTask(TradingTask):
    """Signed weights on two stocks.

    Action: `Box(−1, 1, (2,))`, each entry a fraction of `caps.per_asset`; both are scaled into the gross cap of 2×. The cap
    holds at every bar: a 2× position drifts past it on half of all days and is trimmed.

    Observation: `<symbol>.<feature>` for both, the market's context, forecasts [percent], then the account:

    | entry | unit |
    |---|---|
    | cash_weight, weight_<symbol> | fraction of wealth, after drift; cash counts short proceeds |
    | portfolio_return | last bar's, percent |
    | drawdown | W/peak − 1, ≤ 0 |
    | gross_exposure | Σ\\|w\\| |
    | open_profit_<symbol> | profit of the open trade, net [percent of wealth] |

    Reward: log growth after costs and financing, in percent by default.
    Info, with a leading axis B in vector environments: `trade_closed` (2,) and `trade_profit` (2,), the net profit of each
    trade that this step closed [units of initial wealth].
    Episode end: terminates at ruin, truncates at the end of its window.

    v0: first version.
    """

    summary: ClassVar[str] = "signed weights on two stocks, 2× gross cap, 6.75 % financing"
    keeps_trade_book: ClassVar[bool] = True

    def __init__(self, config: PairLeverageConfig, tape: MarketTape) -> None:
        super().__init__(config, tape)
        if tape.num_assets != 2:
            raise ConfigError(
                f"PairLeverage-v0 trades two stocks; data.symbols gives {tape.num_assets}: {', '.join(tape.symbols)}."
            )
        self.action_space = signed_box(2)
        self.market_names, self.market = feature_table(tape, forecasts=True)
        self.account_names = (
            "cash_weight",
            *(f"weight_{symbol}" for symbol in tape.symbols),
            "portfolio_return",
            "drawdown",
            "gross_exposure",
            *(f"open_profit_{symbol}" for symbol in tape.symbols),
        )

    def target_weights(self, actions: Array, accounts: Accounts) -> Array:
        return accounts.backend.real(actions) * self.config.caps.per_asset

    def account_columns(self, accounts: Accounts) -> list[Array]:
        # Of wealth now: of initial wealth it would leave every trained range on an account that has grown.
        wealth = at_least(accounts.wealth, self.config.episode.wealth_floor + 1e-9)[:, None]
        open_profit = (100.0 * accounts.book.open_profit / wealth).clip(-OBS_LIMIT, OBS_LIMIT)  # float64 may exceed float32
        return [*account_basics(accounts), total(abs(accounts.weights)), open_profit]
