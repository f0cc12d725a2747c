"""What a resumed training needs beside RLlib's checkpoint, so that it goes on to the bit as if nothing had happened.

RLlib saves weights, optimiser, schedules, statistics and counters. This file adds what it leaves out: random numbers of the
processes, accounts under way, recurrent states, the window of episodes. It stands in the checkpoint as

```
sampling.safetensors    arrays, by the way to them: "runners.0.env.accounts.wealth"
sampling.json           the rest: seed, generators, names
```
without pickle. A checkpoint without these files (an earlier version's, or of training.fast = false) is resumed with new draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm

from rlplatform.algorithms.process_random import random_state, set_random_state
from rlplatform.algorithms.state_tree import Tree, read_tree, write_tree
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner
from rlplatform.experiments.config import ExperimentConfig

ARRAYS, VALUES = "sampling.safetensors", "sampling.json"
ANSWER_S = 60.0  # a runner has to say where it stands; one that does not begins anew after a restart


def save_sampling(algorithm: Algorithm, config: ExperimentConfig, directory: Path) -> None:
    """Write where every process of a training stands; nothing for runners that cannot say so."""
    runners = _sampling_states(algorithm) if config.dataset is None else {}
    if None in runners.values():
        return
    tree = {
        "seed": config.seed,
        "num_envs": getattr(config.training, "num_envs_per_env_runner", None),
        "driver": random_state(),
        "learners": dict(_learner_states(algorithm)),
        "runners": {str(index): state for index, state in runners.items()},
    }
    write_tree(tree, directory / ARRAYS, directory / VALUES)


def load_sampling(directory: Path, config: ExperimentConfig) -> Tree | None:
    """What `save_sampling` wrote into a checkpoint; None where it did not, or for another run.

    A member of a population that takes over the checkpoint of another (Tune's PBT) makes draws of its own.
    """
    if not (directory / VALUES).is_file():
        return None
    tree = read_tree(directory / ARRAYS, directory / VALUES)
    own = config.seed, getattr(config.training, "num_envs_per_env_runner", None)
    return tree if (tree["seed"], tree["num_envs"]) == own else None


def restore_sampling(algorithm: Algorithm, tree: Tree) -> None:
    """Bring every process to where it stood. After RLlib's own restore, and before the first iteration.

    A runner that had no state (it was being replaced) begins anew; one that the training has no more is left out.
    """
    runners, group = tree["runners"], algorithm.env_runner_group
    if group is not None and runners:
        group.foreach_env_runner(partial(_restore_runner, states=runners))
    for actor_id, state in tree["learners"].items():
        algorithm.learner_group.foreach_learner(partial(_restore_learner, state=state), remote_actor_ids=[int(actor_id)])
    set_random_state(tree["driver"])  # last: what stands above may draw


def _sampling_states(algorithm: Algorithm) -> dict[int, Tree | None]:
    """Of the runners that sample, by worker index; None for a runner that cannot say."""
    group = algorithm.env_runner_group
    if group is None:
        return {}
    remote = group.num_remote_env_runners() > 0
    return dict(
        group.foreach_env_runner(_sampling_state, local_env_runner=not remote, timeout_seconds=ANSWER_S if remote else None)
    )


def _sampling_state(runner: Any) -> tuple[int, Tree | None]:
    return runner.worker_index or 0, runner.sampling_state() if isinstance(runner, VectorEnvRunner) else None


def _restore_runner(runner: Any, states: Mapping[str, Tree]) -> None:
    state = states.get(str(runner.worker_index or 0))
    if state is not None:
        runner.set_sampling_state(state)


def _learner_states(algorithm: Algorithm) -> Iterator[tuple[str, Tree]]:
    """Of remote learners, by their number in the group; a local one draws from the driver's generators."""
    if not algorithm.learner_group.is_local:
        for answer in algorithm.learner_group.foreach_learner(_learner_state):
            yield str(answer.actor_id), answer.get()


def _learner_state(learner: Any) -> Tree:
    return random_state()


def _restore_learner(learner: Any, state: Tree) -> None:
    set_random_state(state)
