"""Target weights → the actions that ask an environment for them."""

from __future__ import annotations

import numpy as np

from envs import ledger
from envs.accounts import TradingTask
from envs.errors import ConfigError
from envs.portfolio import PortfolioTask
from envs.regime import REGIMES, RegimeTask
from envs.spaces import Simplex
from rlplatform.evaluation.backtest import gross_caps

Array = np.ndarray

FIRST_REGIME = 1  # action 0 is HOLD


def feasible(task: TradingTask, weights: Array) -> Array:
    """(T, N) weights inside the task's caps at each row of its tape."""
    return ledger.project(np.asarray(weights, dtype=np.float64), task.config.caps, gross_caps(task.tape, task.config.caps))


def actions_for(task: TradingTask, weights: Array) -> Array:
    """The actions whose target is `weights`.

    Args:
        weights: (T, N) feasible target weights, row by row of the task's tape.

    Returns:
        (T, …) float32 in a box, int64 of a discrete space: there the nearest of the sixteen allocations (Σ|Δw|, cash
        included).

    Raises:
        ConfigError: the task is none that this function knows.
    """
    if isinstance(task, RegimeTask):
        return nearest_regime(weights)[0]
    if isinstance(task.action_space, Simplex):
        return _simplex_actions(weights, task.config.leverage_max)
    levered = isinstance(task, PortfolioTask) and task.config.leverage_max is not None
    if task.action_space.shape != (weights.shape[1] + levered,):
        raise ConfigError(f"{task.config.id}: no way from weights to {task.action_space}. Give actions, not weights.")
    return _signed_actions(weights, task.config.caps.per_asset, task.config.leverage_max if levered else None)


def nearest_regime(weights: Array) -> tuple[Array, Array]:
    """Action (T,) of the nearest allocation, and its distance Σ|Δw| over cash and funds [fraction of wealth]."""
    table = np.array(list(REGIMES.values()))
    whole = np.column_stack([1.0 - weights.sum(1), weights])
    distance = np.abs(whole[:, None, :] - table).sum(-1)
    return FIRST_REGIME + distance.argmin(1).astype(np.int64), distance.min(1)


def _simplex_actions(weights: Array, leverage_max: float | None) -> Array:
    weights = np.maximum(weights, 0.0)
    level = np.ones(len(weights))
    if leverage_max is not None:
        level = np.clip(np.maximum(weights.sum(1), 1.0) / leverage_max, 0.0, 1.0)
        weights = weights / (level * leverage_max)[:, None]
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1.0)
    parts = [np.maximum(1.0 - weights.sum(1), 0.0), weights]
    return np.column_stack([*parts, level] if leverage_max is not None else parts).astype(np.float32)


def _signed_actions(weights: Array, per_asset: float, leverage_max: float | None) -> Array:
    scaled = weights / per_asset
    if leverage_max is None:
        return np.clip(scaled, -1.0, 1.0).astype(np.float32)
    level = np.clip(np.maximum(np.abs(scaled).max(1), 1.0) / leverage_max, 0.0, 1.0)
    entries = np.clip(scaled / (level * leverage_max)[:, None], -1.0, 1.0)
    return np.column_stack([entries, 2.0 * level - 1.0]).astype(np.float32)
