"""Who samples, and how observations are normalised: what every online algorithm tells RLlib."""

from __future__ import annotations

from functools import partial
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.env.env_runner import EnvRunner

from rlplatform.algorithms.connectors import NormalizeObservations
from rlplatform.models.config import ModelConfig


def set_sampling(config: AlgorithmConfig, training: Any, model: ModelConfig, runner: type[EnvRunner] | None) -> None:
    """Who samples: `training.num_env_runners` of this class (None for RLlib's own), and the statistics of observations.

    Args:
        training: of an online algorithm; its num_env_runners, num_envs_per_env_runner and rollout_length are read.
    """
    config.env_runners(
        num_env_runners=training.num_env_runners,
        num_envs_per_env_runner=training.num_envs_per_env_runner,
        rollout_fragment_length=training.rollout_length,
        gym_env_vectorize_mode="vector_entry_point",
        batch_mode="truncate_episodes",
    )
    if runner is not None:
        config.env_runners(env_runner_cls=runner)
    if model.normalize_observations:
        config.env_runners(
            env_to_module_connector=partial(_normalize, clip=model.observation_clip, groups=model.observation_groups)
        )


def _normalize(env, spaces, device, clip: float, groups: tuple[int, ...] | None) -> NormalizeObservations:
    return NormalizeObservations(clip=clip, groups=groups)
