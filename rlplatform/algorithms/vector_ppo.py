"""VectorPPO: RLlib's PPO over Rollouts."""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from rlplatform.algorithms.rollout import Rollout


class VectorPPO(PPO):
    """PPO whose training step hands whole rollouts to the learner.

    Stock RLlib cuts episode lists into shards for several learners; a rollout is cut by accounts instead, and goes to remote
    learners by object reference, so it crosses the driver's memory once.
    """

    def training_step(self) -> None:
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            rollouts, results = synchronous_parallel_sample(
                worker_set=self.env_runner_group,
                max_env_steps=self.config.total_train_batch_size,
                sample_timeout_s=self.config.sample_timeout_s,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            if not rollouts:
                return
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
            learnt = self.learner_group.update(
                **self._for_learners(rollouts),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
            )
            self.metrics.aggregate(learnt, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            modules = set(learnt[0].keys()) - {ALL_MODULES}
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, policies=modules, inference_only=True
            )

    def _for_learners(self, rollouts: list[Rollout]) -> dict[str, Any]:
        learners = self.config.num_learners
        if learners == 0:
            return {"episodes": rollouts}
        parts = [rollout.split(learners) for rollout in rollouts]
        # Shard i takes every rollout's i-th part: equal work for all, whichever runner is missing.
        return {"episodes_refs": [ray.put(pieces[i]) for i in range(learners) for pieces in parts]}
