"""Stable-Baselines3 on our vector env: a thin adapter and the two models. Needs the extra `bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from envs.trading_env import TradingVectorEnv
from rlplatform.bench.task import MODEL, BenchTask


class SB3VectorEnv(VecEnv):
    """A TradingVectorEnv with SAME_STEP autoreset, in SB3's words. Infos say only what SB3's algorithms read."""

    def __init__(self, env: TradingVectorEnv) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._no_infos: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]

    def reset(self) -> np.ndarray:
        # As our own runner does: episodes that begin together would end together for ever.
        return self.env.reset(options={"stagger": True})[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward, terminated, truncated, infos = self.env.step(self._actions)
        done, told = terminated | truncated, self._no_infos
        if done.any():
            told = list(told)
            for row in np.flatnonzero(done):
                told[row] = {"terminal_observation": infos["final_obs"][row], "TimeLimit.truncated": bool(truncated[row])}
        return obs, reward.astype(np.float32), done, told

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name, None) for _ in self._rows(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.env, method_name)(*args, **kwargs) for _ in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._rows(indices)]

    def _rows(self, indices: int | Sequence[int] | None) -> Sequence[int]:
        if indices is None:
            return range(self.num_envs)
        return [indices] if isinstance(indices, int) else indices


class Embedding(BaseFeaturesExtractor):
    """Linear → ReLU → LayerNorm, what stands before the GRU in our model."""

    def __init__(self, observation_space, features_dim: int = MODEL.embedding_size) -> None:
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(nn.Linear(observation_space.shape[0], features_dim), nn.ReLU(), nn.LayerNorm(features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        return self.layers(observations)


def recurrent_ppo(env: VecEnv, task: BenchTask) -> BaseAlgorithm:
    """RecurrentPPO with the encoder of our model and an LSTM in place of the GRU, which sb3-contrib does not have.

    One LSTM of the same width serves policy and value: a third more weights than the GRU. Minibatches are cut by transitions,
    not by whole sequences, and padded.
    """
    policy = {
        "features_extractor_class": Embedding,
        "lstm_hidden_size": MODEL.hidden_size,
        "shared_lstm": True,
        "enable_critic_lstm": False,
        "net_arch": [],
    }
    return RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=policy, **_settings(task))


def mlp_ppo(env: VecEnv, task: BenchTask) -> BaseAlgorithm:
    """PPO without memory, about 43k parameters."""
    policy = {"net_arch": {"pi": [128, 96], "vf": [128, 96]}, "activation_fn": nn.ReLU}
    return PPO("MlpPolicy", env, policy_kwargs=policy, **_settings(task))


def _settings(task: BenchTask) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {
        "n_steps": task.rollout_length,
        "batch_size": task.minibatch_size,
        "n_epochs": task.num_epochs,
        "learning_rate": 5e-4,
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
        "device": "cpu",
        "seed": task.seed,
    }
