"""A whole window of accounts in one pass, where what they hold does not decide what they do next."""

from __future__ import annotations

from typing import NamedTuple

from envs import ledger
from envs.accounts import Accounts
from envs.backend import Array
from envs.ledger import LedgerStep

IMPACT_PASSES = 3


class AccountPath(NamedTuple):
    """T bars of B accounts. Time first."""

    step: LedgerStep  # each (T·B,) or (T·B, N), time first; `wealth` W' at each close
    terms: dict[str, Array]  # (T·B,) each, of the reward
    wealth: Array  # (T, B) after each bar
    peak: Array  # (B,) after the last bar
    weights: Array  # (B, N) after the last bar, drifted


def account_path(accounts: Accounts, actions: Array, rows: Array, first: Array) -> AccountPath:
    """What `Accounts.advance` would make of these actions, without its loop. Torch; differentiable in the actions; no guards,
    no turnover budget and no liquidity limit.

    Post-trade weights are the target, so those held before a trade follow from the target of the bar before alone. Only wealth
    needs a loop, of a few small operations a bar. With `costs.impact` each cost takes the wealth of the pass before: the
    error falls with every pass by about the share of wealth that impact costs. A ruined account goes on where it stands, its
    wealth set to 1.

    Args:
        accounts: where they stand before the first bar; not changed.
        actions: (T, B, …) inside the action space.
        rows: (T, B) of each decision.
        first: (T, B) bool, an account begins anew, all cash, with this decision.
    """
    times, size = rows.shape
    now, backend, config = rows.reshape(-1), accounts.backend, accounts.config
    asked = accounts.task.target_weights(actions.reshape(times * size, *actions.shape[2:]), accounts)
    if accounts.constraints is None:
        target = ledger.project(asked, config.caps, accounts.gross_cap_at(now))
    else:
        target = accounts.constraints.feasible(asked, accounts.gross_cap_at(now))
    gross_next = backend.rows(accounts.gross, now + 1)
    drifted = ledger.hold(target, gross_next, accounts.financing).weights.view(times, size, -1)
    held = backend.xp.cat([accounts.weights[None], drifted[:-1]])
    held = backend.xp.where(first[..., None], 0.0, held).view_as(target)
    rates = accounts.rates_at(now)
    arguments = (held, target, gross_next, config.costs, accounts.financing)
    ones = backend.xp.ones_like(now, dtype=accounts.wealth.dtype)
    step = ledger.step(ones, *arguments, **rates)
    for _ in range(IMPACT_PASSES if config.costs.impact > 0 else 0):
        before = _wealth(accounts, step.wealth.view(times, size), first)[1].reshape(-1)
        step = ledger.step(before, *arguments, **rates)
        step = step._replace(wealth=step.wealth / before)
    grown = step.wealth.view(times, size)
    remembered = "drawdown" in config.reward.terms  # the only term that depends on wealth before the bar
    wealth, starts, peaks = _wealth(accounts, grown if remembered else grown.detach(), first)
    step = step._replace(wealth=starts.reshape(-1) * step.wealth)
    terms = accounts.reward_terms(step, starts.reshape(-1), peaks.reshape(-1), gross_next, now)
    return AccountPath(step, terms, wealth, peaks[-1], drifted[-1])


def _wealth(accounts: Accounts, growth: Array, first: Array) -> tuple[Array, Array, Array]:
    """After each bar; before each bar, 1 where an account begins; its peak after each bar. All (T, B)."""
    xp, floor = accounts.backend.xp, accounts.config.episode.wealth_floor
    wealth, peak = accounts.wealth, accounts.peak
    starts, after, peaks = [], [], []
    for factor, begins in zip(growth, first, strict=True):
        fresh = begins | (wealth <= floor)
        start = xp.where(fresh, 1.0, wealth)
        wealth = start * factor
        peak = xp.maximum(xp.where(fresh, 1.0, peak), wealth)
        starts.append(start)
        after.append(wealth)
        peaks.append(peak)
    return xp.stack(after), xp.stack(starts), xp.stack(peaks)
