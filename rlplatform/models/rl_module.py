"""ActorCritic as an RLlib RLModule. Of rlplatform.models only this file, q_module.py and tqc_module.py import Ray."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.distribution import Distribution
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import ModelConfig, model_config_dict, model_config_from
from rlplatform.models.distributions import ActionDistribution
from rlplatform.models.heads import ActionHead, head_for

HIDDEN = "h"
MODEL = "model"
PRECISION = "precision"


class HeadDistribution(Distribution):
    """One of our action distributions behind RLlib's interface; `get_partial_dist_cls(head=...)` binds the head."""

    def __init__(self, distribution: ActionDistribution) -> None:
        self.distribution = distribution

    @classmethod
    def from_logits(cls, logits: Tensor, *, head: ActionHead, **kwargs) -> HeadDistribution:
        return cls(head.distribution(logits))

    @staticmethod
    def required_input_dim(space, *, head: ActionHead, **kwargs) -> int:
        return head.num_params

    def sample(self, **kwargs) -> Tensor:
        return self.distribution.sample()

    def rsample(self, **kwargs) -> Tensor:
        raise NotImplementedError("PPO needs no reparameterised samples.")

    def logp(self, value: Tensor, **kwargs) -> Tensor:
        return self.distribution.log_prob(value)

    def kl(self, other: HeadDistribution, **kwargs) -> Tensor:
        return self.distribution.kl(other.distribution)

    def entropy(self, **kwargs) -> Tensor:
        return self.distribution.entropy()

    def to_deterministic(self) -> ModeDistribution:
        return ModeDistribution(self.distribution)


class ModeDistribution(HeadDistribution):
    """Always the mode; its log-probability is 0 by convention."""

    def sample(self, **kwargs) -> Tensor:
        return self.distribution.mode()

    def logp(self, value: Tensor, **kwargs) -> Tensor:
        return torch.zeros_like(self.distribution.entropy())


class ActorCriticModule(TorchRLModule, ValueFunctionAPI):
    """Thin wrapper: RLlib's dictionaries in, RLlib's dictionaries out; all arithmetic is `ActorCritic`'s.

    `model_config["model"]` holds the fields of our ModelConfig. Sequences from RLlib's learner never cross an episode's
    end, so no resets are passed; a learner that has them may put `is_first` (B, T) into the batch.
    """

    IS_FIRST = "is_first"

    def setup(self) -> None:
        head = head_for(self.action_space)
        config = model_config_from(self.model_config[MODEL])
        self.actor_critic = ActorCritic(config, int(self.observation_space.shape[0]), head)
        self.action_dist_cls = HeadDistribution.get_partial_dist_cls(head=self.actor_critic.head)

    def get_initial_state(self) -> dict[str, Tensor]:
        size = self.actor_critic.state_size
        return {HIDDEN: torch.zeros(size)} if size else {}

    def _forward(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        features, state = self._encode(batch)
        return self._outputs(self.actor_critic.action_params(features), state)

    def _forward_train(self, batch: dict[str, Any], **kwargs) -> dict[str, Any]:
        low = self.model_config.get(PRECISION, "float32") == "bfloat16"
        with torch.autocast(batch[Columns.OBS].device.type, torch.bfloat16, enabled=low):
            features, state = self._encode(batch)
        features = features.float()  # heads and loss are float32 in any case
        return {**self._outputs(self.actor_critic.action_params(features), state), Columns.EMBEDDINGS: features}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        features = self._encode(batch)[0] if embeddings is None else embeddings
        values = self.actor_critic.values(features)
        # The mean of a quantile critic learns from its quantiles' loss, never from squared errors.
        return values if self.actor_critic.config.critic is None else values.detach()

    def _encode(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        obs = batch[Columns.OBS]
        state = batch[Columns.STATE_IN][HIDDEN] if self.actor_critic.state_size else obs.new_zeros(len(obs), 0)
        return self.actor_critic.encoder(obs, state, batch.get(self.IS_FIRST))

    def _outputs(self, params: Tensor, state: Tensor) -> dict[str, Any]:
        outputs: dict[str, Any] = {Columns.ACTION_DIST_INPUTS: params}
        if self.actor_critic.state_size:
            outputs[Columns.STATE_OUT] = {HIDDEN: state}
        return outputs


def module_settings(model: ModelConfig, precision: str = "float32") -> dict[str, Any]:
    """RLlib's model_config for our module; `precision` is that of the encoder's matrix products in training.

    RLlib reads `max_seq_len` from the ALGORITHM's model_config; given to the RLModuleSpec alone, it trains on sequences
    of length 1 without a word. Pass this dictionary to both.
    """
    return {MODEL: model_config_dict(model), PRECISION: precision, "max_seq_len": model.sequence_length}


def module_spec(model: ModelConfig, precision: str = "float32") -> RLModuleSpec:
    """RLModuleSpec of our module."""
    return RLModuleSpec(module_class=ActorCriticModule, model_config=module_settings(model, precision))
