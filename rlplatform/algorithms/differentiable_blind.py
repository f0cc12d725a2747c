"""BlindWindows: the windows of a policy that does not see its own account, each in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.account_path import AccountPath, account_path
from envs.normalizer import ObservationNormalizer
from rlplatform.algorithms.differentiable_windows import MarketWindows, Window, normalization
from rlplatform.models.actor_critic import ActorCritic


class BlindWindows(MarketWindows):
    """MarketWindows where only the market decides what is seen: rows are drawn first, then network and ledger take the whole
    (T, B) at once.

    The account's columns of observations are 0. A ruined account goes on with wealth 1 where it stands, where the environment
    would begin an episode elsewhere.
    """

    def observe(self) -> Tensor:
        return self.accounts.backend.rows(self.accounts.market_table, self.accounts.row)

    def roll(self, network: ActorCritic, normalizer: ObservationNormalizer | None, bars: int) -> Window:
        self.state = network.initial_state(self.size) if self.state is None else self.state.detach()
        rows, first, done = self._rows(bars)
        obs = self.accounts.market_table[rows]
        out = network.forward_sequence(normalization(normalizer, self.device)(obs), first, self.state)
        self.state = out.state.detach()
        path = account_path(self.accounts, network.head.distribution(out.params).mode(), rows, first)
        reward = sum(path.terms.values())
        clip = self.accounts.config.reward.clip
        reward = (reward if clip is None else reward.clip(-clip, clip)).view_as(rows).double()
        terms = {name: values.detach().view_as(rows) for name, values in path.terms.items()}
        turnover = path.step.turnover.detach().view_as(rows)
        done = done | (path.wealth.detach() <= self.accounts.config.episode.wealth_floor)
        episodes = self._count(reward.detach(), terms, path, done)
        self._carry(path)
        return Window(reward, reward.detach(), terms, turnover, obs, first, out.params, episodes)

    def _rows(self, bars: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of decisions, whether an episode begins with them, whether one ends after them, (T, B) each; moves on."""
        rows, firsts, ends, accounts = [], [], [], self.accounts
        for _ in range(bars):
            rows.append(accounts.row)
            firsts.append(self.first)
            accounts.row = accounts.row + 1
            done, start = accounts.row >= accounts.end_row, self._start_rows()
            self._jump()
            accounts.row = torch.where(done, start, accounts.row)
            accounts.end_row = torch.where(done, start + accounts.length, accounts.end_row)
            ends.append(done)
            self.first = done
        return torch.stack(rows), torch.stack(firsts), torch.stack(ends)

    def _carry(self, path: AccountPath) -> None:
        """Wealth, peak and weights after the window; an account that begins anew with the next one is fresh."""
        accounts, pick = self.accounts, self.accounts.backend.select
        accounts.wealth = pick(self.first, 1.0, path.wealth[-1].detach())
        accounts.peak = pick(self.first, 1.0, path.peak.detach())
        accounts.weights = pick(self.first, 0.0, path.weights.detach())

    def _count(self, reward: Tensor, terms: dict[str, Tensor], path: AccountPath, done: Tensor) -> list[dict[str, float]]:
        """Figures of the episodes that ended, as the environment sums them up; those under way are kept."""
        bars = {
            name: values.detach().view_as(reward)
            for name, values in (("cost_paid", path.step.cost), ("turnover_paid", path.step.turnover))
        }
        bars |= {"return": reward, "length": torch.ones_like(reward), **terms}
        sums = {**self.accounts.sums, **self._figures}
        running = {name: sums[name] + values.cumsum(0) for name, values in bars.items()}
        episodes = []
        for time in done.any(1).nonzero()[:, 0].tolist():
            ended, now = done[time], {name: values[time] for name, values in running.items()}
            table = {name: values[ended].tolist() for name, values in now.items()}
            table["total_return"] = (path.wealth[time].detach()[ended] - 1.0).tolist()
            episodes += [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            running = {name: values - torch.where(ended, now[name], 0.0) for name, values in running.items()}
        last = {name: values[-1] for name, values in running.items()}
        self._figures = {name: last.pop(name) for name in self._figures}
        self.accounts.sums = last
        return episodes
