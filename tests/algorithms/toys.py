"""Small environments whose best policy is known, as native vector envs and as single ones."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.spaces import Simplex


@dataclass(frozen=True)
class ToyTape:
    """Stands in for a MarketTape: a hash and an array."""

    values: np.ndarray
    sha256: str = "0123456789abcdef" * 4


class ToyVectorEnv(VectorEnv):
    """Both autoreset modes around `_restart`, `_advance`, `_reward` and `_obs` of a subclass; episodes of fixed length."""

    length = 20

    def __init__(self, num_envs: int, autoreset_mode: str = "next_step") -> None:
        self.num_envs = num_envs
        self.same_step = autoreset_mode == "same_step"
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP if self.same_step else AutoresetMode.NEXT_STEP}
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.returns = np.zeros(num_envs)
        self.clock = np.zeros(num_envs, dtype=int)
        self.rng = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self._begin(np.ones(self.num_envs, bool))
        return self._obs(), {}

    def step(self, actions):
        done_before = self.clock >= self.length
        rewards = np.where(done_before, 0.0, self._reward(np.asarray(actions)))
        self._advance()
        self.clock += 1
        self.returns += rewards
        if done_before.any():
            self._begin(done_before)
        truncated = self.clock >= self.length
        infos = {}
        if truncated.any():
            infos = {"episode": {"total": self.returns.copy(), "_total": truncated}, "_episode": truncated}
        if truncated.any() and self.same_step:
            infos |= {"final_obs": self._obs(), "_final_obs": truncated}
            self._begin(truncated)
        return self._obs(), rewards, np.zeros(self.num_envs, bool), truncated, infos

    def _begin(self, which):
        self.clock[which] = 0
        self.returns[which] = 0.0
        self._restart(which)


class RecallVectorEnv(ToyVectorEnv):
    """Memory: one of four symbols is shown each step; one reward for naming the symbol of two steps ago.

    The best return is 1 a step but in the first two steps of an episode, where guessing gives 1/4; without memory every
    step gives 1/4. The observation is raw (scaled by 50 and shifted), so that normalising matters.
    """

    num_symbols, lag = 4, 2
    single_observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    single_action_space = gym.spaces.Discrete(4)

    def __init__(self, num_envs: int, autoreset_mode: str = "next_step") -> None:
        super().__init__(num_envs, autoreset_mode)
        self.shown = np.zeros((num_envs, self.lag + 1), dtype=int)

    def _restart(self, which):
        self.shown[which] = self.rng.integers(self.num_symbols, size=(which.sum(), self.lag + 1))

    def _advance(self):
        self.shown = np.roll(self.shown, 1, 1)
        self.shown[:, 0] = self.rng.integers(self.num_symbols, size=self.num_envs)

    def _reward(self, actions):
        return (actions == self.shown[:, self.lag]).astype(float)

    def _obs(self):
        return (50 * np.eye(self.num_symbols, dtype=np.float32)[self.shown[:, 0]] + 7).astype(np.float32)


class SignalVectorEnv(ToyVectorEnv):
    """A market that shows tomorrow's return: assets earn ±1 % by turns of a coin, seen one step ahead.

    All in the rising asset earns 1 % a step (the reward is 100 × the return, so the best episode earns `length`); equal
    weights of cash and two assets earn nothing.
    """

    single_observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    single_action_space = Simplex(3)

    def __init__(self, num_envs: int, autoreset_mode: str = "next_step") -> None:
        super().__init__(num_envs, autoreset_mode)
        self.sign = np.ones(num_envs)

    def _restart(self, which):
        self.sign[which] = self.rng.choice([-1.0, 1.0], which.sum())

    def _advance(self):
        self.sign = self.rng.choice([-1.0, 1.0], self.num_envs)

    def _reward(self, actions):
        return self.sign * (actions[:, 1] - actions[:, 2])

    def _obs(self):
        return self.sign.astype(np.float32)[:, None]


class WideVectorEnv(ToyVectorEnv):
    """Regime-like shapes for timing: 64 observations, 16 actions, episodes of 256 steps, reward of the first column."""

    length = 256
    single_observation_space = gym.spaces.Box(-np.inf, np.inf, (64,), np.float32)
    single_action_space = gym.spaces.Discrete(16)

    def _restart(self, which):
        self._advance()

    def _advance(self):
        self.noise = self.rng.standard_normal((self.num_envs, 64), dtype=np.float32)

    def _reward(self, actions):
        return np.where(actions == (self.noise[:, 0] > 0), 1.0, 0.0)

    def _obs(self):
        return self.noise.copy()


class ToySingleEnv(gym.Env):
    """One account of a vector toy."""

    def __init__(self, vector: ToyVectorEnv) -> None:
        self.vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.vector.reset(seed=seed)[0][0], {}

    def step(self, action):
        obs, rewards, terminated, truncated, _ = self.vector.step(np.asarray(action)[None])
        return obs[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


TOYS = {"recall": RecallVectorEnv, "signal": SignalVectorEnv, "wide": WideVectorEnv}


def make_single(tape, toy: str = "recall") -> gym.Env:
    return ToySingleEnv(TOYS[toy](1))


def make_vector(tape, num_envs: int, toy: str = "recall", autoreset_mode: str = "next_step") -> VectorEnv:
    return TOYS[toy](num_envs, autoreset_mode)
