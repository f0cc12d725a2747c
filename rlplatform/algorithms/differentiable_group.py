"""GroupWindows: actions are drawn, and judged against others from the same state on the same market."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.differentiable_windows import MarketWindows, Window
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.distributions import ActionDistribution

MIN_STD = 1e-6  # of a group's rewards; below it nobody did better


class GroupWindows(MarketWindows):
    """Accounts in groups of G that start each window from one state, see one market, and draw actions of their own.

        objective = A log π(a_t | o_t),    A = (R_t − mean_group R_t) / std_group R_t,    R_t = Σ_{s ≥ t} r_s

    R ends with the episode or the window. The group's mean is the baseline (group relative policy optimisation, Shao et al.
    2024; here with reward to go, and one step a rollout, so no ratio and no clip): the market's own luck is the same for all of
    a group and drops out. No gradient goes through the ledger, so actions may be numbered and rewards need not be smooth. After
    each window a group goes on from the state of its first account.

    Args:
        group_size: G.
        seed: of the actions' draws.
        others: see `MarketWindows`.
    """

    def __init__(self, group_size: int, seed: int, *others: Any, **settings: Any) -> None:
        self._group_size = group_size
        super().__init__(*others, **settings)
        self._noise = Generator(self.device).manual_seed(seed)
        self._leader = torch.arange(self.size) // group_size * group_size
        self._log_probs: list[Tensor] = []

    def roll(self, network: ActorCritic, normalizer: ObservationNormalizer | None, bars: int) -> Window:
        self._gather()
        self._log_probs = []
        window = super().roll(network, normalizer, bars)
        advantage = self._advantage(window)
        return window._replace(objective=advantage * torch.stack(self._log_probs).double())

    def _gather(self) -> None:
        """Every account becomes its group's first one."""
        leader = self._leader.numpy()
        self.accounts.set_state({name: array[leader] for name, array in self.accounts.state().items()})
        on_device = self._leader.to(self.device)
        self.first = self.first[on_device]
        self._figures = {name: values[on_device] for name, values in self._figures.items()}
        self.state = None if self.state is None else self.state[on_device]

    def _advantage(self, window: Window) -> Tensor:
        """A (T, B): reward to go against the group's."""
        going, to_go = torch.zeros_like(window.reward[0]), []
        ends = torch.cat([window.first[1:], torch.ones_like(window.first[:1])])  # after each bar
        for reward, end in zip(window.reward.flip(0), ends.flip(0), strict=True):
            going = reward + torch.where(end, 0.0, going)
            to_go.append(going)
        grouped = torch.stack(to_go[::-1]).unflatten(1, (-1, self._group_size))
        spread = grouped.std(-1, keepdim=True, correction=0)
        return ((grouped - grouped.mean(-1, keepdim=True)) / spread.clamp_min(MIN_STD)).flatten(1)

    def _act(self, distribution: ActionDistribution) -> Tensor:
        action = distribution.sample(self._noise)
        self._log_probs.append(distribution.log_prob(action))
        return action

    def _draw(self, low: int, high: int) -> Tensor:
        """One draw a group."""
        draws = torch.randint(low, high, (self._all // self._group_size,), generator=self._generator)
        return draws.repeat_interleave(self._group_size)[self._share].to(self.device)

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"noise": self._noise.get_state().numpy().copy()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        super().restore(snapshot)
        self._noise.set_state(torch.from_numpy(snapshot["noise"].copy()))
