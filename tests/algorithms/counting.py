"""An environment that says where it stands: every row of a rollout can be checked by reading its observation."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from ray.tune.registry import register_env

from envs.spaces import Simplex

OBS = Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = {"discrete": Discrete(4), "simplex": Simplex(3), "box": Box(-1.0, 1.0, (2,), np.float32)}


@dataclass(frozen=True)
class Schedule:
    """Episode e of account a has base + (a + e) mod 3 steps and is terminated if a + e is even, else truncated."""

    base: int = 3

    def length(self, account: int, episode: int) -> int:
        return self.base + (account + episode) % 3

    def terminates(self, account: int, episode: int) -> bool:
        return (account + episode) % 2 == 0


class CountingEnv(gym.Env):
    """Observation (account, episode, step) / 4; the reward is the number of the step, from 1. Account = seed mod 5."""

    def __init__(self, actions: str = "discrete", base: int = 3) -> None:
        self.observation_space, self.action_space = OBS, ACTIONS[actions]
        self.schedule = Schedule(base)
        self.account, self.episode, self.clock = 0, -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.account = seed % 5
        self.episode, self.clock = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.clock += 1
        ended = self.clock == self.schedule.length(self.account, self.episode)
        terminated = ended and self.schedule.terminates(self.account, self.episode)
        info = {"episode": {"steps": float(self.clock)}} if ended else {}
        return self._obs(), float(self.clock), terminated, ended and not terminated, info

    def _obs(self):
        return np.array([self.account, self.episode, self.clock], dtype=np.float32) / 4


class CountingVectorEnv(VectorEnv):
    """The same in one batch, with SAME_STEP autoreset as TradingVectorEnv does it: final_obs is one plain array."""

    def __init__(self, num_envs: int, actions: str = "discrete", base: int = 3) -> None:
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.envs = [CountingEnv(actions, base) for _ in range(num_envs)]
        self.single_observation_space, self.single_action_space = OBS, ACTIONS[actions]
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        seeds = [None] * self.num_envs if seed is None else [seed + i for i in range(self.num_envs)]
        return np.stack([env.reset(seed=s)[0] for env, s in zip(self.envs, seeds, strict=True)]), {}

    def step(self, actions):
        obs, rewards, terminated, truncated, infos = zip(*map(CountingEnv.step, self.envs, actions), strict=True)
        ended = np.array(terminated) | np.array(truncated)
        steps = np.array([info["episode"]["steps"] if info else 0.0 for info in infos])
        extra = {"final_obs": np.stack(obs), "_final_obs": ended, "episode": {"steps": steps}, "_episode": ended}
        following = [env.reset()[0] if end else o for env, end, o in zip(self.envs, ended, obs, strict=True)]
        return np.stack(following), np.array(rewards), np.array(terminated), np.array(truncated), extra if ended.any() else {}


def make_native(settings):
    settings = dict(settings)
    settings.pop("autoreset_mode", None)
    return CountingVectorEnv(settings.pop("num_envs"), **settings)


def make_single(settings):
    return CountingEnv(**{name: value for name, value in settings.items() if name in ("actions", "base")})


def register() -> dict[str, str]:
    """Names by kind: a native vector env, and single ones that the runner puts into gymnasium's SyncVectorEnv."""
    register_env("Counting-native", make_native)
    register_env("Counting-sync", make_single)
    return {"native": "Counting-native", "sync": "Counting-sync"}
