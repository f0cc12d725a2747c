"""What accounts of an experiment see and earn, row by row, with actions drawn beforehand: what a look-ahead proof compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from envs import make
from envs.normalizer import ObservationNormalizer
from envs.tape import MarketTape
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.judging import whole_period
from rlplatform.experiments.trainers import training_env

Array = np.ndarray
Columns = Mapping[str, Array]

STEPS = 512  # that one training account trades for the normaliser's statistics


def judged_env(config: ExperimentConfig, tape: MarketTape, first: int, last: int) -> gym.Env:
    """One account that decides first at row `first` and is valued last at row `last`."""
    return make(whole_period(config.env), tape, str(tape.dates[first]), str(tape.dates[last]))


def account_life(env: gym.Env, rows: int, seed: int) -> dict[str, Array]:
    """One episode of random actions, by the row at which each value is known.

    Args:
        env: one account whose info tells "wealth", "weights", "turnover" and "cost".
        rows: R, of the window; an episode that ends before leaves NaN.
        seed: of the actions.

    Returns:
        (R, …) each: every column of the observation, `action_mask` where there is one, `reward` and `wealth` at the close
        that they land on, `weights`, `turnover` and `cost` at the close that decided them.
    """
    env.action_space.seed(seed)
    obs, info = env.reset(seed=seed)
    seen, decided, over = [_seen(obs, 0.0, info)], [], False
    while not over:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        seen.append(_seen(obs, reward, info))
        decided.append({name: np.atleast_1d(info[name]) for name in ("weights", "turnover", "cost")})
        over = terminated or truncated
    columns = {name: _stacked(seen, name, rows) for name in seen[0]}
    observation = columns.pop("observation")
    names = env.unwrapped.task.observation_names
    columns = {f"observation {name}": observation[:, i] for i, name in enumerate(names)} | columns
    return columns | {name: _stacked(decided, name, rows) for name in decided[0]}


def _seen(obs: Any, reward: float, info: Mapping[str, Any]) -> dict[str, Array]:
    masks = {"action_mask": np.asarray(info["action_mask"])} if "action_mask" in info else {}
    return {"observation": np.asarray(obs), "reward": np.float64(reward), "wealth": np.float64(info["wealth"]), **masks}


def _stacked(bars: list[dict[str, Array]], name: str, rows: int) -> Array:
    values = np.stack([np.asarray(bar[name], dtype=np.float64) for bar in bars])
    return np.concatenate([values, np.full((rows - len(values), *values.shape[1:]), np.nan)])


def training_statistics(config: ExperimentConfig, tape: MarketTape) -> Columns:
    """Mean and standard deviation (2,) that training's normaliser learns of each column, from one account's random actions."""
    env = training_env(config, tape)
    env.action_space.seed(config.seed)
    seen, over = [env.reset(seed=config.seed)[0]], False
    while len(seen) < STEPS:
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        over = terminated or truncated
        seen.append(env.reset()[0] if over else obs)
    return statistics(np.stack(seen), env.task.observation_names)


def statistics(observations: Array, names: tuple[str, ...]) -> Columns:
    """What an `ObservationNormalizer` knows of observations (R, D) after seeing them: name → mean and std (2,)."""
    normalizer = ObservationNormalizer(observations.shape[1])
    normalizer.update(observations)
    return dict(zip(names, np.stack([normalizer.mean, normalizer.std], axis=1), strict=True))


def validation_wealth(config: ExperimentConfig, tape: MarketTape) -> Columns:
    """Wealth over the validation period of one account with random actions: what choosing a checkpoint rests on."""
    start, end = map(str, config.split.validation)
    env = make(whole_period(config.env), tape, start, end)
    first, last = tape.row_range(start, end)
    return {"wealth": account_life(env, last - first + 1, config.seed)["wealth"]}
