"""DeviceEnvRunner: environments, policy and rollout on one device."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.utils.metrics import EPISODE_LEN_MEAN, EPISODE_RETURN_MEAN
from torch import Tensor

from envs.backend import Backend
from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.rollout import Rollout, critic_columns, following, segment_length
from rlplatform.algorithms.vector_env_runner import VectorEnvRunner

DEVICE = "device"


class DeviceEnvRunner(VectorEnvRunner):
    """A VectorEnvRunner whose accounts are tensors on `env_config["device"]`, beside the network.

    Within a rollout nothing crosses to the host and nothing branches on values: episodes restart by mask, their figures
    are summed on the device, values of truncated episodes' last observations are taken once at the end. The learner
    reads the same tensors. One local runner feeds a GPU; more of them would wait for each other.
    """

    def _env_settings(self) -> dict[str, Any]:
        settings = super()._env_settings()
        self.device = settings.pop(DEVICE, "cpu")
        return settings | {"backend": Backend("torch", "float32", self.device)}

    def make_module(self) -> None:
        super().make_module()
        self.module.to(self.device)

    def _reset(self, stagger: bool) -> None:
        super()._reset(stagger)
        self._first, self._state = self._first.to(self.device), self._state.to(self.device)
        self._returns, self._lengths = torch.zeros(2, self.num_envs, dtype=torch.float64, device=self.device)
        self._generator = torch.Generator(self.device).manual_seed(self._env_seed() or 0)

    def sampling_state(self) -> dict[str, Any] | None:
        state = super().sampling_state()
        return None if state is None else state | {"generator": self._generator.get_state().numpy().copy()}

    def set_sampling_state(self, state: dict[str, Any]) -> None:
        super().set_sampling_state(state)
        self._generator.set_state(torch.from_numpy(state["generator"].copy()))

    @torch.no_grad()
    def _roll(self, steps: int, explore: bool, random_actions: bool) -> Rollout:
        network, connector = self.module.actor_critic, self._normalizer()
        if explore and connector is not None and connector.count == 0:
            connector.learn(self._obs.cpu().numpy())
        normalized = _normalization(connector, self.device)
        length = segment_length(steps, network.config.sequence_length)
        columns: dict[str, list[Tensor]] = {name: [] for name in _STEP_COLUMNS}
        if network.config.critic is not None:
            columns["quantiles"] = []
        states, seen, ended = [], [], EpisodeSums()
        for t in range(steps):
            if t % length == 0:
                states.append(self._state)
            seen.append(self._obs)
            obs = normalized(self._obs)
            out, distribution, actions = self._act(obs, explore, random_actions)
            after = self.env.advance(actions, self._generator)
            done = after.terminated | after.truncated
            row = (obs, self._first, actions, out.params, distribution.log_prob(actions), out.value, after.reward, done)
            row += (after.truncated, after.final_obs, out.state)
            row += () if out.quantiles is None else (out.quantiles,)
            for column, values in zip(columns.values(), row, strict=True):
                column.append(values)
            self._count_on_device(after.reward, done, after.summary, ended)
            self._obs, self._first, self._state = after.obs, done, out.state
        stacked = {name: torch.stack(rows) for name, rows in columns.items()}
        last = _last_outputs(network, normalized, stacked)
        next_columns = following(stacked, network(normalized(self._obs), self._state, self._first), last)
        if self._drawdown_entry is not None:
            stacked["drawdown"] = torch.stack(seen)[..., self._drawdown_entry]
        if explore and connector is not None:
            connector.merge(_moments(torch.stack(seen), connector.clip))
        self._report(ended)
        return Rollout(**stacked, **next_columns, states=torch.stack(states))

    def _count_on_device(self, reward: Tensor, done: Tensor, summary: dict[str, Tensor], ended: EpisodeSums) -> None:
        self._returns = self._returns + reward
        self._lengths = self._lengths + 1
        ended.add(done, summary | {EPISODE_RETURN_MEAN: self._returns, EPISODE_LEN_MEAN: self._lengths})
        self._returns = torch.where(done, 0.0, self._returns)
        self._lengths = torch.where(done, 0.0, self._lengths)

    def _report(self, ended: EpisodeSums) -> None:
        """The one crossing to the host: how many episodes ended and their mean figures."""
        count, means = ended.means()
        if count:
            self._ended.extend([means] * min(count, self._window))
            self._num_ended += count


class EpisodeSums:
    """Figures of ended episodes, summed where they are."""

    def __init__(self) -> None:
        self.count: Tensor | float = 0.0
        self.sums: dict[str, Tensor] = {}

    def add(self, done: Tensor, figures: dict[str, Tensor]) -> None:
        self.count = self.count + done.sum()
        for name, values in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + torch.where(done, values, 0.0).sum()

    def means(self) -> tuple[int, dict[str, float]]:
        table = torch.stack(
            [torch.as_tensor(self.count, dtype=torch.float64), *(s.double() for s in self.sums.values())]
        ).tolist()
        count = int(table[0])
        return count, {name: total / max(count, 1) for name, total in zip(self.sums, table[1:], strict=True)}


_STEP_COLUMNS = (
    "obs",
    "first",
    "actions",
    "params",
    "log_prob",
    "value",
    "reward",
    "done",
    "truncated",
    "final_obs",
    "state_after",
)


def _normalization(connector, device):
    """The connector's statistics as a function on the device."""
    if connector is None:
        return lambda obs: obs
    statistics = connector.normalizer
    mean = torch.as_tensor(statistics.centre, dtype=torch.float32, device=device)
    inverse = torch.as_tensor(1.0 / statistics.std, dtype=torch.float32, device=device)
    return lambda obs: ((obs - mean) * inverse).clamp(-statistics.clip, statistics.clip)


def _moments(obs: Tensor, clip: float) -> ObservationNormalizer:
    """Count, mean and squared deviations of (T, B, D), taken on the device."""
    rows = obs.flatten(0, 1).double()
    mean = rows.mean(0)
    m2 = ((rows - mean) ** 2).sum(0)
    return ObservationNormalizer.from_state(
        {"count": len(rows), "clip": clip, "mean": mean.cpu().numpy(), "m2": m2.cpu().numpy()}
    )


def _last_outputs(network, normalized, stacked: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the critic says of truncated episodes' last observations, 0 elsewhere (T, B, …)."""
    truncated, final_obs, after = (stacked.pop(name) for name in ("truncated", "final_obs", "state_after"))
    last = {name: torch.zeros_like(stacked[name]) for name in critic_columns(network)}
    where = truncated.nonzero(as_tuple=True)
    out = network(normalized(final_obs[where]), after[where])
    for name, values in last.items():
        values[where] = getattr(out, name)
    return last
