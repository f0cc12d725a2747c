"""Trading environments for RLlib: the tape goes into Ray's object store once, every worker reads it there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import ray
from ray.tune.registry import register_env


class Tape(Protocol):
    """What registration needs of a market tape: a hash of its content."""

    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class EnvCreator:
    """Builds an environment on a worker from RLlib's env_config.

    With `num_envs` in the config (RLlib puts it there for `gym_env_vectorize_mode="vector_entry_point"`) a VectorEnv,
    else a single one. All other keys go on as keyword arguments. Arrays of what is shared (the tape, or a task on it) are
    views of shared memory: reading them copies nothing, however many environments and workers a node has.
    """

    shared: ray.ObjectRef
    make_single: Callable[..., gym.Env]
    make_vector: Callable[..., gym.vector.VectorEnv]

    def __call__(self, env_config: dict[str, Any]) -> gym.Env | gym.vector.VectorEnv:
        settings = dict(env_config)  # in vector mode RLlib hands over a plain dict, not an EnvContext
        num_envs = settings.pop("num_envs", None)
        shared = ray.get(self.shared)
        if num_envs is None:
            return self.make_single(shared, **settings)
        return self.make_vector(shared, num_envs, **settings)


def register_trading_env(
    env_id: str,
    tape: Tape,
    make_single: Callable[..., gym.Env],
    make_vector: Callable[..., gym.vector.VectorEnv],
    task: Any = None,
) -> str:
    """Make an environment on this tape known to RLlib and Tune.

    The name lives as long as this Ray session: register again before restoring a checkpoint in a new one.

    Args:
        env_id: for instance "Portfolio-v0".
        tape: read-only market data.
        make_single: (tape, **env_config) → Env; with `task` that comes in the tape's place, here and below.
        make_vector: (tape, num_envs, **env_config) → VectorEnv that autoresets in the NEXT_STEP way and returns fresh
            observation arrays, which RLlib's own runner takes for granted.
        task: a task on that tape with its tables made, so that no worker makes its own.

    Returns:
        The name for `config.environment(name)`: env_id, "@", first 12 digits of the tape's hash.
    """
    name = f"{env_id}@{tape.sha256[:12]}"
    register_env(name, EnvCreator(ray.put(tape if task is None else task), make_single, make_vector))
    return name
