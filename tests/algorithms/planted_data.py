"""Logged episodes on planted markets from policies of known quality, and what a policy makes of unseen rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from envs import make_vec
from envs.tape import MarketTape
from envs.trading_env import TradingVectorEnv
from rlplatform.data import make_market
from rlplatform.experiments.config import ExperimentConfig, load_config
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.models.policy import Policy
from rlplatform.offline.episodes import Episodes, joined

CONFIGS = Path(__file__).parents[2] / "tune_configs"
Rule = Callable[[np.ndarray, list[str], np.random.Generator], np.ndarray]
"""(obs (B, D), its names, rng) → actions (B, …)."""


def momentum_rule(tilt: float, noise: float = 0.2) -> Rule:
    """Half in the asset, `tilt` more after a rise and less after a fall, give or take `noise`."""

    def rule(obs, names, rng):
        sign = np.sign(obs[:, names.index("MOM.log_return_1")])
        weight = np.clip(0.5 + tilt * sign + noise * rng.standard_normal(len(obs)), 0.01, 0.99)
        return np.stack([1 - weight, weight], -1).astype(np.float32)

    return rule


def rotation_rule(window: int, random_share: float = 0.5) -> Rule:
    """All in the asset that rose most over `window` bars, in cash if none rose; any of the 16 actions every so often."""

    def rule(obs, names, rng):
        returns = obs[:, [names.index(f"{asset}.return_{window}") for asset in "ABC"]]
        chosen = np.where(returns.max(1) > 0, 2 + returns.argmax(1), 1)  # 0 HOLD, 1 ALL_CASH, 2 to 4 all in one asset
        return np.where(rng.random(len(obs)) < random_share, rng.integers(16, size=len(obs)), chosen)

    return rule


MIXTURES = {
    "planted_momentum": [momentum_rule(0.25), momentum_rule(0.0, noise=0.3), momentum_rule(-0.25)],
    "planted_regimes": [rotation_rule(63), rotation_rule(5), rotation_rule(1), rotation_rule(1, random_share=1.0)],
}


class RulePolicy:
    """A rule as a backtest wants it."""

    def __init__(self, rule: Rule, names: list[str]) -> None:
        self.rule, self.names, self.rng = rule, names, np.random.default_rng(0)

    def initial_state(self, batch: int) -> None:
        return None

    def act(self, obs, state, deterministic):
        return self.rule(obs, self.names, self.rng), state, {}


@lru_cache(maxsize=4)
def planted(name: str) -> tuple[ExperimentConfig, MarketTape]:
    config = load_config(CONFIGS / f"{name}.yaml")
    return config, prepare_market(config).tape


def traded(env: TradingVectorEnv, act: Callable[[np.ndarray], np.ndarray], seed: int) -> Episodes:
    """One whole window of each account; `act` gives actions (B, …) for observations (B, D)."""
    obs, _ = env.reset(seed=seed)
    steps = []
    for _ in range(env.accounts.length):
        actions = act(obs)
        following, rewards, terminated, truncated, infos = env.step(actions)
        steps.append((obs.copy(), actions, rewards))
        obs = following
    assert truncated.all()
    assert not terminated.any()
    rows = env.num_envs * len(steps)
    obs, actions, rewards = (np.stack(column, 1).reshape(rows, *column[0].shape[1:]) for column in zip(*steps, strict=True))
    return Episodes(
        lengths=np.full(env.num_envs, len(steps)),
        obs=obs.astype(np.float32),
        last_obs=np.asarray(infos["final_obs"], np.float32),
        actions=actions.astype(np.int64 if actions.ndim == 1 else np.float32),
        rewards=rewards.astype(np.float32),
        terminated=np.zeros(env.num_envs, bool),
        log_prob=np.full(rows, np.nan, np.float32),
    )


def logged(name: str, behaviour: Rule, num_episodes: int, seed: int) -> Episodes:
    """`num_episodes` of a behaviour policy on training rows; `behaviour(obs, names, rng)` gives actions (B, …)."""
    config, tape = planted(name)
    start, end = map(str, config.split.train)
    env = make_vec(config.env, tape, num_episodes, start, end, autoreset_mode="same_step")
    rng, names = np.random.default_rng([seed, 1]), list(env.task.observation_names)
    return traded(env, lambda obs: behaviour(obs, names, rng), seed)


def share_of_optimum(name: str, policy: Policy) -> float:
    """Realised log growth of the policy on the test rows, as a share of the known optimum's."""
    config, tape = planted(name)
    track = backtest(config, tape, policy, *config.split.test)
    first, last = tape.row_range(*map(str, config.split.test))
    return float(np.log(track.wealth[-1]) / make_market(config.data).realised_log_growth()[first:last].sum())


def mixture(name: str, num_episodes: int = 100, seed: int = 0) -> Episodes:
    """`num_episodes` of each rule."""
    return joined([logged(name, rule, num_episodes, 10 * seed + i) for i, rule in enumerate(MIXTURES[name])])


def best_share(name: str) -> float:
    """The best rule's share of the optimum on the test rows."""
    config, tape = planted(name)
    names = list(make_vec(config.env, tape, 1).task.observation_names)
    return max(share_of_optimum(name, RulePolicy(rule, names)) for rule in MIXTURES[name])
