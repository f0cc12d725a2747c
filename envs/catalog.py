"""The catalogue: ids → environments, for `make`, `make_vec` and Gymnasium. A version bumps when results may change."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from envs.accounts import TradingTask
from envs.backend import Backend
from envs.errors import ConfigError
from envs.observation import ACCOUNT_COLUMNS, MARKET_COLUMNS
from envs.pair_leverage import PairLeverageConfig, PairLeverageTask
from envs.portfolio import PortfolioConfig, PortfolioTask
from envs.regime import RegimeConfig, RegimeTask
from envs.rewards import TERMS
from envs.tape import MarketTape
from envs.trading_config import TradingConfig
from envs.trading_env import TradingEnv, TradingVectorEnv

CATALOG: dict[str, tuple[type[TradingConfig], type[TradingTask]]] = {
    "Portfolio-v0": (PortfolioConfig, PortfolioTask),
    "MultiAssetRegime-v0": (RegimeConfig, RegimeTask),
    "PairLeverage-v0": (PairLeverageConfig, PairLeverageTask),
}
DEMO_ASSETS = {"Portfolio-v0": 4, "MultiAssetRegime-v0": 3, "PairLeverage-v0": 2}


def make_task(config: TradingConfig, tape: MarketTape, end: str | None = None) -> tuple[TradingTask, MarketTape]:
    """The task on the tape cut after `end`: rows behind it do not exist for it."""
    visible = tape if end is None else tape.rows(0, tape.row_range(None, end)[1])
    return CATALOG[config.id][1](config, visible), visible


def make(config: TradingConfig, tape: MarketTape, start: str | None = None, end: str | None = None) -> TradingEnv:
    """One account. The first decision falls on the first close inside [start, end], the last valuation on the last.

    Raises:
        MarketDataError: fewer than two rows inside.
        ConfigError: the tape does not suit the environment.
    """
    task, visible = make_task(config, tape, end)
    return TradingEnv(task, visible.row_range(start))


def make_vec(
    config: TradingConfig,
    tape: MarketTape,
    num_envs: int,
    start: str | None = None,
    end: str | None = None,
    backend: Backend | None = None,
    autoreset_mode: str | AutoresetMode = "next_step",
) -> TradingVectorEnv:
    """`num_envs` accounts in one batch; see `make` and `TradingVectorEnv`."""
    task, visible = make_task(config, tape, end)
    return TradingVectorEnv(task, visible.row_range(start), num_envs, backend, autoreset_mode)


def demo_tape(num_assets: int, num_bars: int = 600, seed: int = 0) -> MarketTape:
    """Geometric Brownian motion, 8 % drift and 16 % volatility a year: for trying an environment without data."""
    rng = np.random.default_rng(seed)
    gross = np.exp(rng.normal(0.08 / 252, 0.16 / np.sqrt(252), size=(num_bars, num_assets)))
    return MarketTape(
        dates=np.datetime64("2020-01-01") + np.arange(num_bars),
        symbols=tuple(f"ASSET{i + 1}" for i in range(num_assets)),
        gross=gross,
        features=np.log(gross)[:, :, None],
        feature_names=("return_1",),
        forecast_cvar=np.full_like(gross, 0.02),
        forecast_uncertainty=np.full_like(gross, 0.025),
    )


def _defaults(env_id: str, config: TradingConfig | None, tape: MarketTape | None) -> tuple[TradingConfig, MarketTape]:
    config_class = CATALOG[env_id][0]
    config = config_class() if config is None else config
    if not isinstance(config, config_class):
        raise ConfigError(f"{env_id}: config is a {type(config).__name__}; expected a {config_class.__name__}.")
    return config, demo_tape(DEMO_ASSETS[env_id]) if tape is None else tape


def _single(env_id: str, config: TradingConfig | None = None, tape: MarketTape | None = None, **window: Any) -> TradingEnv:
    config, tape = _defaults(env_id, config, tape)
    return make(config, tape, **window)


def _vector(
    env_id: str, num_envs: int, config: TradingConfig | None = None, tape: MarketTape | None = None, **options: Any
) -> TradingVectorEnv:
    config, tape = _defaults(env_id, config, tape)
    return make_vec(config, tape, num_envs, **options)


def register() -> None:
    """Make the ids known to `gymnasium.make` and `gymnasium.make_vec`. Without a tape they run on `demo_tape`."""
    for env_id in CATALOG:
        if env_id not in gym.registry:
            kwargs = {"env_id": env_id}
            gym.register(id=env_id, entry_point=_single, vector_entry_point=_vector, kwargs=kwargs)


def describe_catalog() -> list[dict[str, str]]:
    """What each id is, as its default config on `demo_tape` has it."""
    entries = []
    for env_id, (config_class, task_class) in CATALOG.items():
        config = config_class()
        task = task_class(config, demo_tape(DEMO_ASSETS[env_id]))
        size, account = len(task.observation_names), ", ".join(task.account_names)
        more = ", ".join((*MARKET_COLUMNS, *ACCOUNT_COLUMNS))
        entries.append(
            {
                "id": env_id,
                "summary": task_class.summary,
                "observation": f"{size} entries with {DEMO_ASSETS[env_id]} assets; the account's: {account}; "
                f"`observe` adds any of {more}",
                "action": str(task.action_space),
                "reward": f"{config.reward.scale:g} × ({' + '.join(config.reward.terms)}) by default",
                "terms": ", ".join(TERMS),
            }
        )
    return entries
