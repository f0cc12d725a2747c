"""MarketWindows: accounts that live from window to window, with gradients inside each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from envs.accounts import Accounts, StepRecord, TradingTask
from envs.backend import Backend
from envs.normalizer import ObservationNormalizer
from envs.starts import start_rows
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.distributions import ActionDistribution

FIGURES = ("return", "length")


class Window(NamedTuple):
    """T bars of B accounts. Time first; the mean of `objective` is what learns."""

    objective: Tensor  # (T, B) float64, with gradient: the reward, or what has its gradient in the mean
    reward: Tensor  # (T, B) float64, no gradient
    terms: dict[str, Tensor]  # (T, B) each, no gradient; they sum to the reward before clipping
    turnover: Tensor  # (T, B) no gradient [fraction of wealth]
    obs: Tensor  # (T, B, D) as the environment gives them, no gradient
    first: Tensor  # (T, B) bool, an episode begins
    params: Tensor  # (T, B, P) of the action distribution
    episodes: list[dict[str, float]]  # figures of those that ended


class MarketWindows:
    """B accounts on the training rows, driven by the mode of a policy.

    Accounts are those of the environment itself (`envs.accounts.Accounts` on torch): what the policy sees, what a trade costs
    and what it earns are the environment's own code. Episodes begin where the environment would begin them, the first ones cut
    short at random so that they do not all end together, and begin anew inside a window when they end.

    With `block_bars` the market jumps: after every bar, with probability 1 / block_bars, an account goes on at another
    training row drawn at random (stationary bootstrap; Politis & Romano 1994). Features and returns of a row stay together, so
    what a row says of the next bar is kept. Broken is memory across a jump: of the policy, and of the rows' own trailing
    windows, which look back on the row's true past.

    Args:
        task: environment on the rows that a training may see.
        rows: first and last of them.
        num_accounts: of all learners; draws are made for all of them, whoever holds an account.
        share: which of them live here.
        generator: on the CPU; the only source of draws.
        given: observations carry no gradient.
    """

    def __init__(
        self,
        task: TradingTask,
        rows: tuple[int, int],
        num_accounts: int,
        generator: Generator,
        share: slice = slice(None),
        device: str = "cpu",
        block_bars: int | None = None,
        given: bool = False,
    ) -> None:
        self._given = given
        self._all, self._share, self._generator, self._block_bars = num_accounts, share, generator, block_bars
        self.size = len(range(num_accounts)[share])
        self.accounts = Accounts(task, self.size, rows, Backend("torch", "float32", device))
        self.device = device
        self._targets = torch.from_numpy(start_rows(task.tape, rows, 1)).to(device)  # of jumps
        everyone = torch.ones(self.size, dtype=torch.bool, device=device)
        self.accounts.reset(everyone, self._start_rows())
        self.accounts.shorten(self._draw(1, self.accounts.length + 1).cpu().numpy())
        self.first = everyone
        self.state: Tensor | None = None
        self._figures = {name: torch.zeros(self.size, dtype=torch.float64, device=device) for name in FIGURES}

    def observe(self) -> Tensor:
        """Observations (B, D) of the bar that comes next."""
        return self.accounts.observe()

    def roll(self, network: ActorCritic, normalizer: ObservationNormalizer | None, bars: int) -> Window:
        """The next `bars` bars under the network's mode."""
        self._forget_gradients(network)
        normalized = normalization(normalizer, self.device)
        rewards, terms, turnover, seen, firsts, params, ended = [], [], [], [], [], [], []
        for _ in range(bars):
            obs = self.accounts.observe()
            obs = obs.detach() if self._given else obs
            out = network(normalized(obs), self.state, self.first)
            record = self.accounts.advance(self._act(network.head.distribution(out.params)))
            seen.append(obs.detach())
            firsts.append(self.first)
            params.append(out.params)
            rewards.append(record.reward.double())
            terms.append({name: value.detach() for name, value in record.terms.items()})
            turnover.append(record.step.turnover.detach())
            self.state = out.state
            ended += self._move_on(record)
        columns = {name: torch.stack([row[name] for row in terms]) for name in terms[0]}
        stacked = (torch.stack(rows) for rows in (turnover, seen, firsts, params))
        reward = torch.stack(rewards)
        return Window(reward, reward.detach(), columns, *stacked, ended)

    def _act(self, distribution: ActionDistribution) -> Tensor:
        """Actions (B, …)."""
        return distribution.mode()

    def _forget_gradients(self, network: ActorCritic) -> None:
        """Back-propagation ends here; what accounts and network remember goes on."""
        self.state = network.initial_state(self.size) if self.state is None else self.state.detach()
        self.accounts.set_state(self.accounts.state())

    def _move_on(self, record: StepRecord) -> list[dict[str, float]]:
        """Begin ended episodes anew, let the market jump; figures of the ended ones."""
        done, episodes, start = record.terminated | record.truncated, [], self._start_rows()
        self._figures["return"] = self._figures["return"] + record.reward.detach()
        self._figures["length"] = self._figures["length"] + 1
        self._jump()
        if bool(done.any()):
            episodes = self._ended(done)
            self.accounts.reset(done, start)
            self._figures = {name: torch.where(done, 0.0, values) for name, values in self._figures.items()}
        self.first = done
        return episodes

    def _ended(self, done: Tensor) -> list[dict[str, float]]:
        summary = {name: values.detach() for name, values in self.accounts.summary().items()}
        table = {name: values[done].tolist() for name, values in (self._figures | summary).items()}
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]

    def _jump(self) -> None:
        if self._block_bars is None:
            return
        jump = self._draw(0, self._block_bars) == 0
        rows = self._targets[self._draw(0, len(self._targets))]
        self.accounts.relocate(jump | self.accounts.leaves[self.accounts.row], rows)

    def _start_rows(self) -> Tensor:
        """For every account, needed or not: learners that share the draws must make the same ones."""
        many = len(self.accounts.starts) if self.accounts.config.episode.random_start else 1
        return self.accounts.starts[self._draw(0, many)]

    def _draw(self, low: int, high: int) -> Tensor:
        return torch.randint(low, high, (self._all,), generator=self._generator)[self._share].to(self.device)

    def snapshot(self) -> dict[str, Any]:
        """All that the next windows depend on, beside settings and draws; plain arrays."""
        state = None if self.state is None else self.state.detach().cpu().numpy().copy()
        figures = {name: values.cpu().numpy().copy() for name, values in self._figures.items()}
        return {"accounts": self.accounts.state(), "first": self.first.cpu().numpy().copy(), "figures": figures} | (
            {} if state is None else {"state": state}
        )

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on as when `snapshot()` gave this."""
        self.accounts.set_state(snapshot["accounts"])
        self.first = self._tensor(snapshot["first"])
        self.state = self._tensor(snapshot["state"]) if "state" in snapshot else None
        self._figures = {name: self._tensor(values) for name, values in snapshot["figures"].items()}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.copy()).to(self.device)


def normalization(normalizer: ObservationNormalizer | None, device: str):
    """A normalizer's statistics as a differentiable function on the device; as they are if there is none."""
    if normalizer is None:
        return lambda obs: obs
    centre = torch.as_tensor(normalizer.centre, dtype=torch.float32, device=device)
    inverse = torch.as_tensor(normalizer.factors, dtype=torch.float32, device=device)
    return lambda obs: ((obs - centre) * inverse).clamp(-normalizer.clip, normalizer.clip)
