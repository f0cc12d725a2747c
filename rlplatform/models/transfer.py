"""A policy for other assets than those it was trained on."""

from __future__ import annotations

import numpy as np

from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.gnn import GNNConfig
from rlplatform.models.heads import ActionHead
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.policy import Policy

Array = np.ndarray


def for_assets(policy: Policy, layout: ObservationLayout, head: ActionHead, returns: Array | None = None) -> Policy:
    """The same weights acting on other assets, more or fewer.

    A GNN's weights are those of one asset, so they fit any number. The entries of the observation must mean the same, and
    a fitted graph is fitted anew on the new assets' own past.

        layout = ObservationLayout(tape.symbols, env.task.observation_names)
        policy = for_assets(Policy.load(path), layout, head_for(env.action_space), tape.gross[:train_end] - 1)

    Args:
        policy: with a GNN, trained on weights (not on numbered actions).
        layout: of the new observation.
        head: of the new action space.
        returns: (T, N) of rows before the first decision, for a fitted graph.

    Raises:
        ConfigError: another model, another kind of action, or other entries in the observation.
    """
    config = policy.config
    if not isinstance(config, GNNConfig):
        raise ConfigError(f"a policy with model.kind = {config.kind!r} knows its own assets only; expected gnn.")
    if type(head) is not type(policy.head) or not head.num_log_stds:
        raise ConfigError(f"the policy's actions are {policy.head.space()}, the new ones {head.space()}; expected weights.")
    config.layout.check_same_entries(layout)
    network = ActorCritic(config.bound_to(layout, returns), len(layout.names), head)
    try:
        network.load_state_dict(policy.actor_critic.state_dict())
    except RuntimeError as error:
        raise ConfigError(f"the policy's weights do not fit the new action {head.space()}: {error}") from None
    return Policy(network, _carried(policy.normalizer, config.layout, layout), policy.env_id)


def _carried(
    normalizer: ObservationNormalizer | None, old: ObservationLayout, new: ObservationLayout
) -> ObservationNormalizer | None:
    """The same centre and spread of every entry, for the new columns; both layouts number their groups alike."""
    if normalizer is None:
        return None
    column = {group: place for place, group in enumerate(old.groups)}
    source = [column[group] for group in new.groups]
    grouped = ObservationNormalizer.from_state(normalizer.state() | {"groups": old.groups})
    state = {
        "count": normalizer.count,
        "clip": normalizer.clip,
        "mean": grouped.centre[source],
        "m2": grouped.variance[source] * normalizer.count,
        "groups": new.groups,
    }
    return ObservationNormalizer.from_state(state)
