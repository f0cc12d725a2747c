"""Random markets, and every environment in several settings, for the tests of this room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from envs.constraints import ConstraintsConfig, FactorBound, GroupCap
from envs.guard_consensus import ConsensusGateConfig
from envs.guard_kill_switch import KillSwitchConfig
from envs.guard_regime import RegimeGuardConfig
from envs.guards import GuardsConfig, LossShutdownConfig
from envs.liquidity import LiquidityConfig
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.rewards import RewardConfig
from envs.tape import MarketTape
from envs.terms import CapsConfig, CostConfig, FinancingConfig
from envs.trading_config import EpisodeConfig, TradingConfig

EVERY_TERM = RewardConfig(
    log_growth=1.0,
    excess_log_growth=0.4,
    alpha=0.5,
    trading_cost=0.3,
    turnover=0.01,
    drawdown=0.1,
    predicted_cvar=0.2,
    forecast_uncertainty=0.1,
)
EPISODE = EpisodeConfig(length_bars=7, wealth_floor=0.5)
COSTLY = CostConfig(proportional_bps=20, impact=0.05)
EVERY_GUARD = GuardsConfig(  # tight enough that each of them holds now and then in seven bars
    regime=RegimeGuardConfig(trailing_bars=3, trailing_return_limit=-0.01, turnover_limit=0.3, turnover_bars=2),
    kill_switch=KillSwitchConfig(drawdown=0.3, recovered=0.1, stress_column="vix", stress_on=38, stress_off=36, calm_bars=2),
    consensus=ConsensusGateConfig(consensus_column="one", skew_column="two", threshold=0.0, memory_bars=3),
)

CASES: dict[str, tuple[TradingConfig, int]] = {  # name → settings, number of assets
    "portfolio": (PortfolioConfig(episode=EPISODE), 3),
    "portfolio, levered, all penalties": (
        PortfolioConfig(
            episode=EPISODE,
            caps=CapsConfig(gross=2.0, net=2.0, per_asset=1.5),
            leverage_max=2.0,
            reward=EVERY_TERM,
            financing=FinancingConfig(basis="debit", cash_rate_annual=0.03),
            shutdown=LossShutdownConfig(loss_limit=0.05, cooldown_bars=2),
        ),
        3,
    ),
    "portfolio, long/short, day and night": (
        PortfolioConfig(
            episode=EPISODE,
            caps=CapsConfig(long_only=False, gross=2.0, net=0.5, per_asset=0.9, gross_overnight=1.0),
            costs=COSTLY,
            reward=EVERY_TERM,
            financing=FinancingConfig(cash_rate_annual=0.02, borrow_fee_annual=0.05),
            shutdown=LossShutdownConfig(loss_limit=0.05, cooldown_bars=2),
        ),
        4,
    ),
    "portfolio, long/short, guarded": (
        PortfolioConfig(
            episode=EPISODE,
            caps=CapsConfig(long_only=False, gross=2.0, net=0.5, per_asset=0.9),
            costs=COSTLY,
            reward=EVERY_TERM,
            shutdown=LossShutdownConfig(loss_limit=0.05, cooldown_bars=2),
            guards=EVERY_GUARD,
        ),
        3,
    ),
    "portfolio, long/short, constrained": (
        PortfolioConfig(
            episode=EPISODE,
            caps=CapsConfig(long_only=False, gross=2.0, net=0.8, per_asset=0.9),
            costs=COSTLY,
            guards=EVERY_GUARD,
            constraints=ConstraintsConfig(
                per_asset={"A": 0.3},
                groups={"ab": GroupCap(symbols=("A", "B"), gross=0.6)},
                factors={"beta": FactorBound(loadings={"A": 1.0, "B": -0.5, "C": 1.5}, most=0.4)},
                turnover=0.5,
            ),
        ),
        3,
    ),
    "portfolio, illiquid": (
        PortfolioConfig(
            episode=EPISODE,
            costs=CostConfig(proportional_bps=20),
            shutdown=LossShutdownConfig(loss_limit=0.3, cooldown_bars=2),
            constraints=ConstraintsConfig(
                groups={"ab": GroupCap(symbols=("A", "B"), gross=0.9)},
                turnover=1.5,
                liquidity=LiquidityConfig(capital=1e6, participation=0.5, adv_bars=3),
            ),
        ),
        3,
    ),
    "regime": (RegimeConfig(episode=EPISODE), 3),
    "regime, guarded": (RegimeConfig(episode=EPISODE, guards=EVERY_GUARD), 3),
    "regime, clipped, costly": (
        RegimeConfig(episode=EPISODE, costs=COSTLY, reward=RewardConfig(alpha=1.0, trading_cost=1.0, clip=2.0)),
        3,
    ),
    "regime, observing": (
        RegimeConfig(
            episode=EPISODE,
            shutdown=LossShutdownConfig(loss_limit=0.02, cooldown_bars=2),
            guards=EVERY_GUARD,
            observe=("regime_label", "risk_budget", "forecast_cvar", "guard_state", "spread_bps", "kill_switch"),
        ),
        3,
    ),
    "portfolio, long/short, observing": (
        PortfolioConfig(
            episode=EPISODE,
            caps=CapsConfig(long_only=False, gross=2.0, net=0.5, per_asset=0.9, gross_overnight=1.0),
            shutdown=LossShutdownConfig(loss_limit=0.02, cooldown_bars=2),
            observe_forecasts=False,
            observe=("guard_state", "forecast_uncertainty", "risk_budget", "regime_label"),
        ),
        3,
    ),
    "pair": (PairLeverageConfig(episode=EPISODE), 2),
    "pair, debit, costly": (
        PairLeverageConfig(
            episode=EPISODE,
            costs=COSTLY,
            financing=FinancingConfig(basis="debit", cash_rate_annual=0.02, borrow_fee_annual=0.05),
        ),
        2,
    ),
}


def random_tape(seed: int, num_assets: int, num_bars: int = 60, volatility: float = 0.02) -> MarketTape:
    """A tape that fills every field, seven bars to a session."""
    rng = np.random.default_rng(seed)
    shape = (num_bars, num_assets)
    return MarketTape(
        dates=np.datetime64("2020-01-01") + np.arange(num_bars),
        symbols=tuple("ABCDEFGH"[:num_assets]),
        gross=np.exp(rng.normal(0, volatility, shape)),
        features=rng.normal(size=(*shape, 2)),
        feature_names=("one", "two"),
        context=rng.uniform(10, 40, (num_bars, 1)),
        context_names=("vix",),
        forecast_cvar=rng.uniform(0, 0.05, shape),
        forecast_uncertainty=rng.uniform(0, 0.05, shape),
        half_spread_bps=rng.uniform(0, 5, shape),
        impact_scale=rng.uniform(0.5, 1.5, shape),
        session_end=np.arange(num_bars) % 7 == 6,
        dollar_volume=rng.uniform(0, 2e6, shape),
    )


def tape_of(*columns: list[float]) -> MarketTape:
    """A bare tape of gross returns, one list an asset."""
    gross = np.array(columns, dtype=float).T
    return MarketTape(
        dates=np.datetime64("2020-01-01") + np.arange(len(gross)), symbols=tuple("ABCDEFGH"[: len(columns)]), gross=gross
    )


def with_changed_future(tape: MarketTape, t: int, seed: int) -> MarketTape:
    """The tape with every number after row t drawn anew."""
    other = random_tape(seed + 1_000_000, tape.num_assets, len(tape), 0.1)
    arrays = ("gross", "features", "context", "forecast_cvar", "forecast_uncertainty", "half_spread_bps", "impact_scale")
    arrays += ("dollar_volume",)
    return replace(
        tape, **{name: np.concatenate([getattr(tape, name)[: t + 1], getattr(other, name)[t + 1 :]]) for name in arrays}
    )


def random_actions(space, steps: int, accounts: int, seed: int) -> np.ndarray:
    """(steps, accounts, …) from the action space, some of them repeated so that holding happens."""
    space.seed(seed)
    actions = np.array([[space.sample() for _ in range(accounts)] for _ in range(steps)])
    actions[3::4] = actions[2::4][: len(actions[3::4])]
    return actions
