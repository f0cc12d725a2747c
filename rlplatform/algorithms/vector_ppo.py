"""VectorPPO: RLlib's PPO over Rollouts."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPO

from rlplatform.algorithms.rollout import Rollout
from rlplatform.algorithms.rollout_training import RolloutTraining


class VectorPPO(RolloutTraining, PPO):
    """PPO whose training step hands whole rollouts to the learner.

    Stock RLlib cuts episode lists into shards for several learners; a rollout is cut by accounts instead, and goes to remote
    learners by object reference, so it crosses the driver's memory once.
    """

    def for_learners(self, rollouts: list[Rollout]) -> dict[str, Any]:
        learners = self.config.num_learners
        if learners == 0:
            return {"episodes": rollouts}
        parts = [rollout.split(learners) for rollout in rollouts]
        # Shard i takes every rollout's i-th part: equal work for all, whichever runner is missing.
        return {"episodes_refs": [ray.put(pieces[i]) for i in range(learners) for pieces in parts]}
