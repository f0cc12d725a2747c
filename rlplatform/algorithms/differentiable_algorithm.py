"""DifferentiableAlgorithm: what the training loop drives, with one learner here or several elsewhere."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from envs.accounts import TradingTask
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig
from rlplatform.algorithms.differentiable_learner import DifferentiableLearner, Figures, mean_figures
from rlplatform.algorithms.differentiable_workers import LearnerProcess
from rlplatform.algorithms.state_tree import read_tree, write_tree
from rlplatform.models.config import ModelConfig
from rlplatform.models.policy import Policy

ARRAYS, VALUES = "learner.safetensors", "learner.json"


class DifferentiableAlgorithm:
    """Updates, checkpoints and the policy, under the names that RLlib's Algorithm has for them.

    A checkpoint is safetensors and JSON, without pickle, and holds all that the next update depends on: a restored training
    goes on to the bit, with one learner or several.

    Args:
        training, model: settings.
        task: environment on the rows that the training may see.
        rows: first and last of them.
        seed: of all draws.
        env_id: goes into the policy.
    """

    def __init__(
        self,
        training: DifferentiableTrainingConfig,
        model: ModelConfig,
        task: TradingTask,
        rows: tuple[int, int],
        seed: int,
        env_id: str,
    ) -> None:
        training.check(model, task)
        self._training, self._env_id, self._seed = training, env_id, seed
        self._episodes: deque[Figures] = deque(maxlen=training.metrics_window)
        settings = (training, model, task, rows, seed)
        if training.num_learners == 0:
            self._learners: list[Any] = []
            self._learner = DifferentiableLearner(*settings)
        else:
            shared = ray.put(settings)
            self._learners = [LearnerProcess.remote(rank, shared) for rank in range(training.num_learners)]
            address = ray.get(self._learners[0].address.remote())
            self._ask("join", address)

    def start_from(self, policy: Policy) -> None:
        """Take an earlier policy's weights and statistics; before the first update."""
        self._ask("start_from", policy)

    def train(self) -> dict[str, Any]:
        """`updates_per_iteration` updates; figures by RLlib's names for them."""
        answers = self._ask("updates", self._training.updates_per_iteration)
        figures, env_steps = answers[0]["figures"], answers[0]["env_steps"]
        for answer in answers:
            self._episodes.extend(answer["episodes"])
        return {"env_runners": _of_episodes(self._episodes, env_steps), "learners": {"default_policy": figures}}

    def policy(self) -> Policy:
        """The policy as it stands, a copy."""
        return self._ask_first("policy", self._env_id)

    def gradient(self) -> Any:
        """The gradient of the last update, one vector."""
        return self._ask_first("gradient")

    def save_to_path(self, path: str) -> None:
        """Write a checkpoint into a new directory."""
        directory = Path(path)
        directory.mkdir(parents=True)
        states = self._ask("state")
        tree = {name: states[0][name] for name in ("shared", "seed", "num_envs")}
        tree |= {"own": {str(rank): state["own"] for rank, state in enumerate(states)}, "episodes": list(self._episodes)}
        write_tree(tree, directory / ARRAYS, directory / VALUES)

    def restore_from_path(self, path: str) -> None:
        """Go on from a checkpoint: to the bit where it is this run's, else from its weights with draws of its own."""
        tree = read_tree(Path(path) / ARRAYS, Path(path) / VALUES)
        ours = self._seed, self._training.num_envs, [str(rank) for rank in range(max(1, self._training.num_learners))]
        same = (tree["seed"], tree["num_envs"], sorted(tree["own"], key=int)) == ours
        if same:
            self._episodes.extend(tree["episodes"])
        own = [tree["own"][rank] if same else None for rank in ours[2]]
        self._ask_each("set_state", [(tree["shared"], each) for each in own])

    def stop(self) -> None:
        """End the learners' processes."""
        for learner in self._learners:
            with contextlib.suppress(Exception):
                ray.kill(learner)

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        return self._ask_each(method, [arguments] * max(1, len(self._learners)))

    def _ask_each(self, method: str, arguments: Sequence[tuple]) -> list[Any]:
        """What every learner answers; all are asked at once, for they wait for each other."""
        if not self._learners:
            return [getattr(self._learner, method)(*arguments[0])]
        asked = [getattr(learner, method).remote(*each) for learner, each in zip(self._learners, arguments, strict=True)]
        try:
            return ray.get(asked)
        except RayTaskError as error:
            ray.get([learner.is_there.remote() for learner in self._learners])  # a lost one makes the others fail too: says so
            raise error.as_instanceof_cause() from error

    def _ask_first(self, method: str, *arguments: Any) -> Any:
        if not self._learners:
            return getattr(self._learner, method)(*arguments)
        return ray.get(getattr(self._learners[0], method).remote(*arguments))


def _of_episodes(episodes: Sequence[Figures], env_steps: int) -> dict[str, Any]:
    """Means over the last episodes, as RLlib reports them."""
    figures = mean_figures(episodes)
    return {
        "num_env_steps_sampled_lifetime": env_steps,
        "episode_return_mean": figures.pop("return", None),
        "episode_len_mean": figures.pop("length", None),
        "episode": figures,
    }
