"""MultiAssetRegime-v0: sixteen allocations over cash and three equity funds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np

from envs import indicators
from envs.accounts import Accounts, TradingTask
from envs.backend import Array, Backend
from envs.errors import ConfigError
from envs.observation import account_basics
from envs.rewards import RewardConfig
from envs.tape import MarketTape
from envs.trading_config import TradingConfig

HOLD = 0
REGIMES: dict[str, tuple[float, float, float, float]] = {  # CASH, SPY, QQQ, IWM; HOLD keeps what is held
    "ALL_CASH": (1.00, 0.00, 0.00, 0.00),
    "ALL_SPY": (0.00, 1.00, 0.00, 0.00),
    "ALL_QQQ": (0.00, 0.00, 1.00, 0.00),
    "ALL_IWM": (0.00, 0.00, 0.00, 1.00),
    "EQUAL_WEIGHT": (0.25, 0.25, 0.25, 0.25),
    "SPY_QQQ_50": (0.00, 0.50, 0.50, 0.00),
    "SPY_IWM_50": (0.00, 0.50, 0.00, 0.50),
    "QQQ_IWM_50": (0.00, 0.00, 0.50, 0.50),
    "DEFENSIVE_50": (0.50, 0.25, 0.00, 0.25),
    "GROWTH_TILT": (0.10, 0.30, 0.60, 0.00),
    "VALUE_TILT": (0.10, 0.60, 0.00, 0.30),
    "SMALLCAP_TILT": (0.10, 0.20, 0.00, 0.70),
    "RISK_OFF_75": (0.75, 0.25, 0.00, 0.00),
    "QQQ_HEAVY": (0.10, 0.10, 0.70, 0.10),
    "BALANCED": (0.20, 0.40, 0.20, 0.20),
}
ACTIONS: tuple[str, ...] = ("HOLD", *REGIMES)
WINDOW_BARS = 256  # "relative to the window start" means this many bars back, in training and in evaluation alike


def action_names(symbols: tuple[str, ...]) -> tuple[str, ...]:
    """The sixteen actions' names with the trio's own symbols in place of SPY, QQQ and IWM."""
    stand_in = dict(zip(("SPY", "QQQ", "IWM"), symbols, strict=True))
    return tuple("_".join(stand_in.get(part, part) for part in name.split("_")) for name in ACTIONS)


@dataclass(frozen=True, kw_only=True)
class RegimeConfig(TradingConfig):
    """Settings of MultiAssetRegime-v0."""

    id: Literal["MultiAssetRegime-v0"] = "MultiAssetRegime-v0"
    reward: RewardConfig = field(default_factory=lambda: RewardConfig(alpha=1.0, trading_cost=1.0))


class RegimeTask(TradingTask):
    """Sixteen allocations over [CASH, A, B, C]; A, B, C are SPY, QQQ, IWM or any trio.

    Action: `Discrete(16)`: HOLD (no trade), then the rows of `REGIMES` in order.

    Observation: 64 entries, of the three assets unless said otherwise, known at the close:

    | entries | count | unit |
    |---|---|---|
    | relative_price_256 | 3 | log price relative to the start of the last 256 bars |
    | return_1, _5, _10, _21, _63 | 15 | log return over so many bars |
    | volatility_5, _21, _63 | 9 | a year, fraction |
    | rsi_14 | 3 | see `indicators.rsi` |
    | ma_distance_20, _50 | 6 | see `indicators.moving_average_distance` |
    | drawdown_252 | 3 | fraction, ≤ 0 |
    | spread_21, _63 (A−B, A−C, B−C) | 6 | difference of log returns |
    | correlation_21, _63 (A−B, A−C, B−C) | 6 | −1 … 1 |
    | vix, vix_change_5, vix_zscore_252 | 3 | VIX/100 from the tape's context, else EWMA volatility of A a year |
    | regime_calm, _choppy, _crisis | 3 | flags, of the equal-weight market |
    | market_ma_distance_200 | 1 | of the equal-weight market |
    | cash_weight, weight_<symbol> | 4 | fraction of wealth, after drift |
    | portfolio_return | 1 | last bar's, percent |
    | drawdown | 1 | W/peak − 1 of the account |

    Reward: alpha − trading cost, in percent by default; alpha = portfolio return − equal-weight return of the three assets.
    No volatility or drawdown penalty. Training draws 256-bar windows at random; evaluation runs the whole period in order.
    Episode end: terminates at ruin, truncates at the end of its window.

    v0: first version.
    """

    summary: ClassVar[str] = "16 allocations over cash and three funds (SPY, QQQ, IWM)"

    def __init__(self, config: RegimeConfig, tape: MarketTape) -> None:
        super().__init__(config, tape)
        if tape.num_assets != 3:
            raise ConfigError(
                f"MultiAssetRegime-v0 trades three assets; data.symbols gives {tape.num_assets}: {', '.join(tape.symbols)}."
            )
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self.action_names = action_names(tape.symbols)
        names, tables = zip(*map(market_table, tape.pieces()), strict=True)
        self.market_names, self.market = names[0], np.concatenate(tables)
        self.account_names = ("cash_weight", *(f"weight_{symbol}" for symbol in tape.symbols), "portfolio_return", "drawdown")

    def constants(self, backend: Backend) -> Array:
        """(16, 3) weights of each action; HOLD's row is never used."""
        return backend.real(np.array([(1.0, 0.0, 0.0, 0.0), *REGIMES.values()])[:, 1:])

    def target_weights(self, actions: Array, accounts: Accounts) -> Array:
        backend = accounts.backend
        actions = backend.array(actions, "int64")
        return backend.select(actions == HOLD, accounts.weights, backend.rows(accounts.constants, actions))

    def account_columns(self, accounts: Accounts) -> list[Array]:
        return account_basics(accounts)


def market_table(tape: MarketTape) -> tuple[tuple[str, ...], np.ndarray]:
    """The 58 exogenous entries of the observation, (T, 58) float32."""
    gross, symbols = tape.gross, tape.symbols
    market = gross.mean(axis=1)
    columns: dict[str, np.ndarray] = {}

    def each(name: str, values: np.ndarray) -> None:
        columns.update({f"{symbol}.{name}": values[:, i] for i, symbol in enumerate(symbols)})

    def pairs(name: str, compare: Callable[[int, int], np.ndarray]) -> None:
        columns.update({f"{symbols[i]}-{symbols[j]}.{name}": compare(i, j) for i, j in combinations(range(3), 2)})

    each("relative_price_256", indicators.momentum(gross, WINDOW_BARS))
    for window in (1, 5, 10, 21, 63):
        each(f"return_{window}", indicators.momentum(gross, window))
    for window in (5, 21, 63):
        each(f"volatility_{window}", indicators.realised_volatility(gross, window))
    each("rsi_14", indicators.rsi(gross, 14))
    for window in (20, 50):
        each(f"ma_distance_{window}", indicators.moving_average_distance(gross, window))
    each("drawdown_252", indicators.drawdown(gross, 252))
    for window in (21, 63):
        trend = indicators.momentum(gross, window)
        pairs(f"spread_{window}", lambda i, j, trend=trend: trend[:, i] - trend[:, j])
    returns = indicators.log_returns(gross)
    for window in (21, 63):
        pairs(f"correlation_{window}", lambda i, j, w=window: indicators.rolling_correlation(returns[:, i], returns[:, j], w))
    vix = volatility_index(tape)
    columns["vix"] = vix
    columns["vix_change_5"] = vix - np.concatenate([np.full(5, vix[0]), vix[:-5]])[: len(vix)]
    columns["vix_zscore_252"] = indicators.zscore(vix, 252)
    label = indicators.volatility_regime(market)
    columns.update({f"regime_{name}": label == code for code, name in enumerate(("calm", "choppy", "crisis"))})
    columns["market_ma_distance_200"] = indicators.moving_average_distance(market, 200)
    return tuple(columns), np.column_stack(list(columns.values())).astype(np.float32)


def volatility_index(tape: MarketTape) -> np.ndarray:
    """VIX/100 (T,) where the tape's context has "vix" [points], else the EWMA volatility of the first asset, a year."""
    if "vix" in tape.context_names:
        return tape.context[:, tape.context_names.index("vix")].astype(np.float64) / 100.0
    return indicators.ewma_volatility(tape.gross[:, 0]) * np.sqrt(252.0)
