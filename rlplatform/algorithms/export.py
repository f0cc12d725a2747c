"""From a running Algorithm to a Policy."""

from __future__ import annotations

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID

from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.connectors import NormalizeObservations
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import model_config_from
from rlplatform.models.heads import head_for
from rlplatform.models.policy import Policy
from rlplatform.models.q_module import REWARD_SCALE
from rlplatform.models.rl_module import MODEL

_PREFIX = "actor_critic."


def policy_from(algorithm: Algorithm, env_id: str | None = None) -> Policy:
    """The policy as it stands: the learner's weights, and the statistics of all runners together.

    Args:
        algorithm: built from `build_ppo` or `build_tqc`; local or remote runners and learners.
        env_id: goes into the policy; the registered name up to "@" if not given.
    """
    state = algorithm.learner_group.get_weights([DEFAULT_MODULE_ID])[DEFAULT_MODULE_ID]
    weights = {name.removeprefix(_PREFIX): torch.tensor(x) for name, x in state.items() if name.startswith(_PREFIX)}
    obs_space, action_space = algorithm.spaces[DEFAULT_MODULE_ID]
    config = model_config_from(algorithm.config.model_config[MODEL])
    network = ActorCritic(config, int(obs_space.shape[0]), head_for(action_space))
    network.load_state_dict(weights)
    with torch.no_grad():  # a module of action values learns in units of its own
        for param in network.value.parameters():
            param *= float(state.get(REWARD_SCALE, 1.0))
    return Policy(network, normalizer_of(algorithm), env_id or str(algorithm.config.env).partition("@")[0])


def normalizer_of(algorithm: Algorithm) -> ObservationNormalizer | None:
    """The observation statistics of all runners, or None if this training does not normalise.

    After each `train()` RLlib merges the remote runners' connector states into the local pipeline.
    """
    runner = algorithm.env_runner
    pipeline = algorithm.env_to_module_connector if runner is None else runner._env_to_module
    found = pipeline[NormalizeObservations]
    return found[0].normalizer if found else None
