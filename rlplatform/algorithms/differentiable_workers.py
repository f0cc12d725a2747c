"""LearnerProcess: a DifferentiableLearner in a process of its own, whose gradients are averaged with the others'."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from torch import Tensor

from rlplatform.algorithms.differentiable_learner import DifferentiableLearner
from rlplatform.models.policy import Policy

PATIENCE = timedelta(minutes=5)  # for another learner's gradient; one that died is noticed at once


@ray.remote(num_cpus=1)
class LearnerProcess:
    """One of several learners: the same weights and draws as all, its own share of the accounts.

    Gradients, moments of observations and figures are averaged by gloo, one exchange each an update (data parallel; Li et al.
    2020). Every learner takes the same step, so weights never have to be sent.

    Args:
        rank: which one.
        settings: positional arguments of `DifferentiableLearner`, up to the seed.
    """

    def __init__(self, rank: int, settings: tuple) -> None:
        torch.set_num_threads(settings[0].num_threads)
        self._rank, self._settings = rank, settings

    def address(self) -> str:
        """Where the learners meet: this node and a free port of it."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def join(self, address: str) -> None:
        """Meet the others and make the learner."""
        size = self._settings[0].num_learners
        dist.init_process_group("gloo", init_method=address, rank=self._rank, world_size=size, timeout=PATIENCE)
        self._learner = DifferentiableLearner(*self._settings, rank=self._rank, average=_mean_over_learners)

    def is_there(self) -> bool:
        """Whether the process lives: an answer says so."""
        return True

    def start_from(self, policy: Policy) -> None:
        self._learner.start_from(policy)

    def updates(self, count: int) -> dict[str, Any]:
        return self._learner.updates(count)

    def gradient(self) -> Tensor:
        return self._learner.gradient()

    def policy(self, env_id: str) -> Policy:
        return self._learner.policy(env_id)

    def state(self) -> dict[str, Any]:
        return self._learner.state()

    def set_state(self, shared: dict[str, Any], own: dict[str, Any] | None) -> None:
        self._learner.set_state(shared, own)


def _mean_over_learners(tensor: Tensor) -> Tensor:
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
