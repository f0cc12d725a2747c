"""Small logged problems whose answer is known, and a stand-in for the Learner on which RLlib's own losses run."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from envs.spaces import Simplex
from rlplatform.offline.episodes import Episodes

BOX, SIMPLEX, NUMBERED = gym.spaces.Box(-1.0, 1.0, (2,), np.float32), Simplex(3), gym.spaces.Discrete(4)


def bandit(action_space: gym.Space, num_episodes: int = 64, length: int = 16, seed: int = 0, scale: float = 0.01) -> Episodes:
    """Uniform actions; obs (cos, sin) of an angle; the reward is `scale` × how far the action agrees with its sign.

    Weights: cos > 0 rewards the last entry against the one before it. Numbered: action 1 where cos > 0, else action 2,
    earns `scale`.
    """
    rng = np.random.default_rng(seed)
    rows = num_episodes * length
    angle = rng.uniform(0, 2 * np.pi, rows + num_episodes)
    obs = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
    action_space.seed(seed)
    actions = np.stack([action_space.sample() for _ in range(rows)])
    sign = np.sign(obs[:rows, 0])
    if isinstance(action_space, gym.spaces.Discrete):
        earned = (actions == np.where(sign > 0, 1, 2)).astype(float)
    else:
        earned = sign * (actions[:, -1] - actions[:, -2])
    return Episodes(
        lengths=np.full(num_episodes, length),
        obs=obs[:rows],
        last_obs=obs[rows:],
        actions=actions,
        rewards=(scale * earned).astype(np.float32),
        terminated=np.zeros(num_episodes, bool),
        log_prob=np.full(rows, np.nan, np.float32),
    )


def transitions(action_space: gym.Space, rows: int = 32, seed: int = 0) -> dict[str, torch.Tensor]:
    """A minibatch of single transitions, a few of which end in ruin."""
    episodes = bandit(action_space, num_episodes=1, length=rows, seed=seed, scale=1.0)
    return {
        Columns.OBS: torch.from_numpy(episodes.obs),
        Columns.NEXT_OBS: torch.from_numpy(episodes.next_obs()),
        Columns.ACTIONS: torch.from_numpy(episodes.actions),
        Columns.REWARDS: torch.from_numpy(episodes.rewards),
        Columns.TERMINATEDS: torch.arange(rows) % 7 == 3,
    }


def learner_stub(module, **attributes) -> SimpleNamespace:
    """What RLlib's `compute_loss_for_module` asks of its Learner, besides `attributes`."""
    silent = SimpleNamespace(log_value=lambda *a, **k: None, log_dict=lambda *a, **k: None, peek=lambda *a, **k: 1)
    modules = {DEFAULT_MODULE_ID: module}
    return SimpleNamespace(metrics=silent, module=modules, _module=modules, device="cpu", _temp_losses={}, **attributes)
