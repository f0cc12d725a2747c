"""Stock RLlib: its own runner, learner and connectors, with a plain GRU module."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from rlplatform.bench.plain_gru import PlainGRU
from rlplatform.bench.task import MODEL, BenchTask

HIDDEN = "h"


class PlainGRUModule(TorchRLModule, ValueFunctionAPI):
    """PlainGRU behind RLlib's interface; the action distribution is RLlib's own for the space."""

    def setup(self) -> None:
        sizes = self.model_config["embedding_size"], self.model_config["hidden_size"]
        self.net = PlainGRU(int(self.observation_space.shape[0]), int(self.action_space.n), *sizes)

    def get_initial_state(self) -> dict[str, Tensor]:
        return {HIDDEN: torch.zeros(self.model_config["hidden_size"])}

    def _forward(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        features, state = self.net.features(batch[Columns.OBS], batch[Columns.STATE_IN][HIDDEN])
        return {
            Columns.ACTION_DIST_INPUTS: self.net.policy(features),
            Columns.STATE_OUT: {HIDDEN: state},
            Columns.EMBEDDINGS: features,
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        if embeddings is None:
            embeddings, _ = self.net.features(batch[Columns.OBS], batch[Columns.STATE_IN][HIDDEN])
        return self.net.value(embeddings)[..., 0]


def stock_ppo(env_name: str, task: BenchTask) -> PPOConfig:
    """RLlib's PPO with the settings of ours, sampling in this process.

    With one env it is RLlib's default: a single environment in the runner. With more they come as one vector env.
    RLlib appends a step for the bootstrap value to each fragment and pads to `max_seq_len`, so one step less than a multiple
    of it is sampled: that favours RLlib, which would else learn from up to half padding.
    """
    model = {"embedding_size": MODEL.embedding_size, "hidden_size": MODEL.hidden_size, "max_seq_len": MODEL.max_seq_len}
    length = task.rollout_length - 1
    config = (
        PPOConfig(algo_class=PPO)
        .environment(env_name, normalize_actions=False, clip_actions=False)
        # Given to the spec alone, max_seq_len would silently be 1.
        .rl_module(rl_module_spec=RLModuleSpec(module_class=PlainGRUModule, model_config=model), model_config=model)
        .learners(num_learners=0)
        .debugging(seed=task.seed, log_level="ERROR")
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=task.num_envs,
            rollout_fragment_length=length,
            batch_mode="truncate_episodes",
        )
        .training(
            train_batch_size_per_learner=length * task.num_envs,
            minibatch_size=task.minibatch_size,
            num_epochs=task.num_epochs,
            lr=5e-4,
            entropy_coeff=0.01,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            grad_clip=0.5,
            use_kl_loss=False,
        )
    )
    if task.num_envs > 1:
        config.env_runners(gym_env_vectorize_mode="vector_entry_point")
    return config
