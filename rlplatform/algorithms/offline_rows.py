"""OfflineRows: logged transitions beside each minibatch of an online training."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from torch import Tensor

from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.minibatches import Minibatches, training_table
from rlplatform.algorithms.offline_data import RegisteredEpisodes, registered_episodes, sequence_length
from rlplatform.algorithms.pretraining import PretrainConfig
from rlplatform.models.rl_module import HIDDEN, ActorCriticModule

LOGGED_ROWS = "logged_rows"


def mix_logged_rows(
    config: PPOConfig, data: RegisteredEpisodes, normalizer: ObservationNormalizer | None, pretrain: PretrainConfig
) -> PPOConfig:
    """Make PPO's learner imitate logged rows a little in each gradient step; returns `config`.

    Args:
        normalizer: of the earlier policy; the rows go in as it sees them, while that of the rollouts goes on learning.
    """
    settings = {
        "name": data.name,
        "moments": None if normalizer is None else normalizer.state(),
        "batch_size": pretrain.mix_batch_size,
        "coeff": pretrain.mix_coeff,
        "env_steps": pretrain.kl_anneal_env_steps,
        "seed": config.seed or 0,
    }
    return config.training(learner_config_dict={**config.learner_config_dict, LOGGED_ROWS: settings})


class OfflineRows:
    """What PPO's loss gets beside its own, with a weight that fades as that of the `Anchor` does:

        loss += c(s) · mean −log π(a | s)  over a minibatch of logged transitions

    They need no importance weights, for they are imitated and not learnt from as experience. Sequences of a policy with
    memory start from an empty state.

    Attributes:
        coeff: c at the present env step.
        taken: minibatches so far; the next one depends on it and on the seed alone.
    """

    def __init__(self, settings: dict[str, Any], model_config: Any, device: torch.device | str) -> None:
        moments = settings["moments"]
        normalizer = None if moments is None else ObservationNormalizer.from_state(moments).freeze()
        length = sequence_length(model_config)
        table = training_table(registered_episodes(settings["name"]), normalizer, 1.0, length)
        self._source = Minibatches(table, settings["batch_size"], length, settings["seed"]).open(device)
        self._first_coeff, self._env_steps, self.taken = settings["coeff"], settings["env_steps"], 0
        self.coeff = self._first_coeff

    def at(self, env_steps: int) -> None:
        """Move the coefficient on."""
        self.coeff = self._first_coeff * max(0.0, 1.0 - env_steps / self._env_steps)

    def loss(self, module: ActorCriticModule) -> Tensor:
        """Mean −log π(a | s) of the next minibatch [nats]."""
        batch = self._source.columns(self._source.rows(self.taken), (Columns.OBS, Columns.ACTIONS))
        self.taken += 1
        size = module.actor_critic.state_size
        if size:
            obs = batch[Columns.OBS]
            batch[Columns.STATE_IN] = {HIDDEN: obs.new_zeros(len(obs), size)}
        params = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
        log_prob = module.actor_critic.head.distribution(params).log_prob(batch[Columns.ACTIONS])
        mask = batch.get(Columns.LOSS_MASK)
        return -(log_prob if mask is None else log_prob[mask]).mean()
