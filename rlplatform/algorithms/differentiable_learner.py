"""DifferentiableLearner: gradient steps on the reward of windows, and all that a later step depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from envs.accounts import TradingTask
from envs.errors import ConfigError
from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.differentiable import DifferentiableTrainingConfig, learner_device
from rlplatform.algorithms.differentiable_blind import BlindWindows
from rlplatform.algorithms.differentiable_group import GroupWindows
from rlplatform.algorithms.differentiable_windows import MarketWindows, Window
from rlplatform.algorithms.pretraining import Anchor, anchor_settings
from rlplatform.algorithms.schedules import scheduled
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import ModelConfig
from rlplatform.models.heads import head_for
from rlplatform.models.hierarchical_head import gate_figures
from rlplatform.models.policy import Policy

Figures = dict[str, float]
Average = Callable[[Tensor], Tensor]  # of the same tensor of all learners; alone, the tensor itself


class DifferentiableLearner:
    """A policy, its optimiser, and the accounts that it learns from.

    Args:
        training, model: settings.
        task: environment on the rows that the training may see.
        rows: first and last of them.
        seed: of weights, episode starts and jumps; no global generator is drawn from.
        rank: which of `training.num_learners` this is.
        average: mean over learners.
    """

    def __init__(
        self,
        training: DifferentiableTrainingConfig,
        model: ModelConfig,
        task: TradingTask,
        rows: tuple[int, int],
        seed: int,
        rank: int = 0,
        average: Average = lambda tensor: tensor,
    ) -> None:
        self.training, self.seed, self._average = training, seed, average
        self.device = learner_device(training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = ActorCritic(model, len(task.observation_names), head_for(task.action_space)).to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.0, weight_decay=training.weight_decay)
        self.generator = Generator().manual_seed(seed)
        learners = max(1, training.num_learners)
        share = slice(rank * training.num_envs // learners, (rank + 1) * training.num_envs // learners)
        draws = {"generator": self.generator, "share": share, "block_bars": training.block_bars}
        if training.estimator == "grpo":
            self.windows = GroupWindows(
                training.group_size, seed + rank, task, rows, training.num_envs, device=self.device, **draws
            )
        else:
            kind = BlindWindows if training.account == "hidden" else MarketWindows
            self.windows = kind(task, rows, training.num_envs, device=self.device, given=training.account == "given", **draws)
        self.normalizer = None
        if model.normalize_observations:
            size, groups = self.network.obs_size, model.observation_groups
            hidden = np.flatnonzero(task.account_entries) if training.account == "hidden" else ()
            self.normalizer = ObservationNormalizer(size, clip=model.observation_clip, groups=groups, hidden=hidden)
        self.env_steps = 0
        self._anchor: Anchor | None = None
        if training.pretrain is not None and training.pretrain.kl_coeff > 0:
            with torch.random.fork_rng(devices=[]):  # making a network draws random numbers
                self._anchor = Anchor(anchor_settings(training.pretrain), self.network, self.device)

    def start_from(self, policy: Policy) -> None:
        """Take a policy's weights and what its normaliser has seen, before the first update.

        Raises:
            ConfigError: it is of another model, observation or action.
        """
        try:
            self.network.load_state_dict(policy.actor_critic.state_dict())
        except RuntimeError:
            raise ConfigError(
                f"training.pretrain: the earlier policy is a {policy.config.kind} of {policy.obs_size} observations and does "
                "not fit this training's model. Use the same env, features and model."
            ) from None
        if policy.normalizer is not None and self.normalizer is not None:
            self.normalizer.merge(policy.normalizer)

    def updates(self, count: int) -> dict[str, Any]:
        """So many updates: mean figures of them, figures of the episodes that ended, env steps of the whole training."""
        figures, episodes = zip(*(self.update() for _ in range(count)), strict=True)
        return {"figures": mean_figures(figures), "episodes": list(chain(*episodes)), "env_steps": self.env_steps}

    def update(self) -> tuple[Figures, list[Figures]]:
        """One gradient step.

        Returns:
            Figures of the step, means over all learners, and those of this learner's ended episodes.
        """
        with _threads(self.training.num_threads):
            return self._update()

    def _update(self) -> tuple[Figures, list[Figures]]:
        if self.normalizer is not None and self.normalizer.count == 0:
            self._learn_moments(self.windows.observe()[None])
        self.optimizer.zero_grad(set_to_none=True)
        window = self.windows.roll(self.network, self.normalizer, self.training.window)
        loss = -window.objective.mean()
        figures = {"policy_loss": loss.detach(), "bar_reward": window.reward.mean(), "turnover": window.turnover.mean()}
        figures |= {f"bar_{name}": values.mean() for name, values in window.terms.items()}
        if self.network.head.mode_names:
            figures |= gate_figures(self.network.head, window.params.detach())
        if self._anchor is not None:
            divergence = self._divergence(window)
            figures["kl_to_pretrained"] = divergence.detach()
            loss = loss + self._anchor.coeff * divergence
        loss.backward()
        self._average_gradients()
        limit = self.training.grad_clip
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), float("inf") if limit is None else limit)
        rate = scheduled(self.training.learning_rate, self.env_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if bool(torch.isfinite(norm)):  # else the weights stay those of before, and the loop ends the training
            self.optimizer.step()
        self.env_steps += self.training.batch_size
        if self.normalizer is not None:
            self._learn_moments(window.obs)
        means = self._average(torch.stack([value.double() for value in figures.values()])).tolist()
        figures = dict(zip(figures, means, strict=True))
        return figures | {"gradient_norm": float(norm), "learning_rate": rate}, window.episodes

    def gradient(self) -> Tensor:
        """The gradient that the last update took, after clipping, as one vector; for tests and telemetry."""
        return torch.cat([p.grad.flatten() for p in self.network.parameters() if p.grad is not None])

    def policy(self, env_id: str) -> Policy:
        """The policy as it stands, a copy."""
        with torch.random.fork_rng(devices=[]):  # making a network draws random numbers
            network = ActorCritic(self.network.config, self.network.obs_size, self.network.head)
        network.load_state_dict(self.network.state_dict())
        return Policy(network, self.normalizer, env_id)

    def _divergence(self, window: Window) -> Tensor:
        """KL(earlier policy ‖ policy) [nats], both reading the same observations."""
        self._anchor.at(self.env_steps)
        obs = window.obs
        if self.normalizer is not None:
            obs = torch.from_numpy(self.normalizer.normalize(obs.cpu().numpy())).to(self.device)
        return self._anchor.divergence(self._anchor.params(SimpleNamespace(obs=obs, first=window.first)), window.params)

    def _average_gradients(self) -> None:
        """One exchange for all parameters; a learner alone leaves them as they are."""
        if self.training.num_learners < 2:
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        mean = self._average(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _learn_moments(self, obs: Tensor) -> None:
        """Mean and spread of (T, B, D) of all learners go into the statistics."""
        rows = obs.detach().flatten(0, 1).double()
        mean = self._average(rows.mean(0))
        spread = self._average(((rows - mean) ** 2).mean(0))
        count = len(rows) * max(1, self.training.num_learners)
        state = {"count": count, "clip": self.normalizer.clip, "mean": mean.cpu().numpy(), "m2": (count * spread).cpu().numpy()}
        self.normalizer.merge(ObservationNormalizer.from_state(state))

    def state(self) -> dict[str, Any]:
        """Everything that the next update depends on, as a tree of arrays and plain values."""
        network = {_path(name): tensor.detach().cpu().numpy().copy() for name, tensor in self.network.state_dict().items()}
        shared = {"network": network, "optimizer": self._moments(), "env_steps": self.env_steps}
        if self.normalizer is not None:
            moments = self.normalizer.state()
            shared["normalizer"] = {name: moments[name] for name in ("count", "mean", "m2")}
        own = {"windows": self.windows.snapshot(), "generator": self.generator.get_state().numpy().copy()}
        if self._anchor is not None and self._anchor.state is not None:
            own["anchor"] = self._anchor.state.cpu().numpy().copy()
        return {"shared": shared, "own": own, "seed": self.seed, "num_envs": self.training.num_envs}

    def set_state(self, shared: Mapping[str, Any], own: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint.

        Args:
            shared: what all learners have in common.
            own: accounts and draws; None begins new episodes, as a member of a population that takes over another's weights.
        """
        names = {_path(name): name for name in self.network.state_dict()}
        self.network.load_state_dict({names[path]: torch.from_numpy(a.copy()) for path, a in shared["network"].items()})
        self._set_moments(shared["optimizer"])
        self.env_steps = shared["env_steps"]
        if self.normalizer is not None:
            self.normalizer = ObservationNormalizer.from_state({**self.normalizer.settings(), **shared["normalizer"]})
        if own is None:
            return
        self.windows.restore(own["windows"])
        self.generator.set_state(torch.from_numpy(own["generator"].copy()))
        if self._anchor is not None and "anchor" in own:
            self._anchor.state = torch.from_numpy(own["anchor"].copy()).to(self.device)

    def _moments(self) -> dict[str, dict[str, np.ndarray]]:
        """Adam's, by parameter; those that never had a gradient have none."""
        named = {p: name for name, p in self.network.named_parameters()}
        states = ((named[p], state) for p, state in self.optimizer.state.items() if state)
        return {_path(name): {key: np.array(value.cpu().numpy()) for key, value in s.items()} for name, s in states}

    def _set_moments(self, moments: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        for name, parameter in self.network.named_parameters():
            if (arrays := moments.get(_path(name))) is not None:
                state = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
                self.optimizer.state[parameter] = {k: v if k == "step" else v.to(self.device) for k, v in state.items()}


def _path(name: str) -> str:
    """A parameter's name without dots, which would be ways into a tree."""
    return name.replace(".", "/")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch's threads for the block; the process's own setting returns."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mean_figures(rows: Sequence[Mapping[str, float]]) -> Figures:
    """Mean of each figure over the rows that have it."""
    names = list({name: None for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
