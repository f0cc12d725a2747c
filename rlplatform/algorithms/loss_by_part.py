"""A Learner whose module has parts, each moved by a loss of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from rlplatform.algorithms.ppo import TRAINING
from rlplatform.algorithms.schedules import Schedule, rllib_schedule
from rlplatform.models.q_module import QModule


class LossByPart:
    """Put before a TorchLearner: one optimiser for each part of a `QModule`, each fed by its own loss."""

    @property
    def _module_alone(self) -> QModule:
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of the training config."""
        return self.config.learner_config_dict[TRAINING]

    def parts(self, module: QModule) -> dict[str, tuple[list[nn.Parameter], float | Schedule]]:
        """name → (parameters, learning rate): which loss moves what."""
        raise NotImplementedError

    def losses(self, module: QModule, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """name of a part → its loss, a scalar; rewards in `batch` are in units of their standard deviation."""
        raise NotImplementedError

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        for name, (params, learning_rate) in self.parts(self._module_alone).items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(params),
                params=params,
                lr_or_lr_schedule=rllib_schedule(learning_rate),
            )

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: dict, fwd_out: dict) -> Tensor:
        module = self.module[module_id].unwrapped()
        self._losses = self.losses(module, {**batch, Columns.REWARDS: batch[Columns.REWARDS] / module.reward_scale}, fwd_out)
        self.metrics.log_dict({f"{name}_loss": loss for name, loss in self._losses.items()}, key=module_id, window=1)
        return sum(self._losses.values())

    def compute_gradients(self, loss_per_module: dict[str, Tensor], **kwargs: Any) -> dict[Tensor, Tensor]:
        gradients: dict[Tensor, Tensor] = {}
        parts = self.get_optimizers_for_module(next(iter(loss_per_module)))
        for name, optimizer in parts:
            params = self._optimizer_parameters[optimizer]
            # The graph of another part may run through this one's networks: keep it until the last.
            found = torch.autograd.grad(self._losses[name], params, retain_graph=name != parts[-1][0], allow_unused=True)
            gradients |= {param: gradient for param, gradient in zip(params, found, strict=True) if gradient is not None}
        return gradients

    def log_means(self, **values: Tensor) -> None:
        """Report means over the minibatch as they stand at the end of the iteration."""
        self.metrics.log_dict(
            {name: value.detach().float().mean() for name, value in values.items()}, key=DEFAULT_MODULE_ID, window=1
        )
