"""The ledger: what trading does to money.

Pure functions on arrays whose last axis is assets, one source for numpy and torch. Order of a step: `project` makes
weights feasible, `solve_cost` says what moving there costs, `hold` carries them to the next close. `step` is the three
together; `path` is a whole path of known targets in one vectorised pass.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from envs.errors import ShapeError
from envs.terms import CapsConfig, CostConfig, FinancingConfig

Array = Any  # numpy.ndarray or torch.Tensor; both sides of a call are of the same kind


class Holding(NamedTuple):
    """One bar of holding: all (B,) fractions of wealth after trading, but `weights` (B, N)."""

    portfolio_return: Array  # R, net of the three below
    interest: Array
    financing: Array
    borrow_fee: Array
    weights: Array  # drifted to the next close


class LedgerStep(NamedTuple):
    """One step of B accounts. Fractions (B,) are of wealth before trading, unless said otherwise."""

    wealth: Array  # at the next close [units of initial wealth]
    weights: Array  # (B, N) drifted to the next close
    target: Array  # (B, N) held over the bar
    cost: Array  # κ
    turnover: Array  # Σ|Δw|
    portfolio_return: Array  # R [fraction of wealth after trading]
    interest: Array  # [fraction of wealth after trading]
    financing: Array  # [fraction of wealth after trading]
    borrow_fee: Array  # [fraction of wealth after trading]


class Trade(NamedTuple):
    """One trade in money."""

    wealth: Array  # after the trade
    cost: Array  # paid [same unit as wealth]
    turnover: Array  # traded value as a fraction of wealth before


def _namespace(array: Array):
    return torch if isinstance(array, torch.Tensor) else np


def _detached(array: Array) -> Array:
    return array.detach() if isinstance(array, torch.Tensor) else array


def total(values: Array) -> Array:
    """Σ over assets, the last axis. By BLAS on numpy, ten times faster there than a reduction along a short axis."""
    return values.sum(-1) if isinstance(values, torch.Tensor) else values.dot(_ones(values.shape[-1], values.dtype))


@lru_cache(maxsize=64)
def _ones(size: int, dtype: np.dtype) -> np.ndarray:
    return np.ones(size, dtype)


def at_least(values: Array, floor: float) -> Array:
    """max(values, floor); half the time of `clip` for one account."""
    return values.clip(floor) if isinstance(values, torch.Tensor) else np.maximum(values, floor)


def at_most(values: Array, ceiling: float) -> Array:
    """min(values, ceiling)."""
    return values.clip(None, ceiling) if isinstance(values, torch.Tensor) else np.minimum(values, ceiling)


def project(weights: Array, caps: CapsConfig, gross_cap: Array | None = None) -> Array:
    """Nearest-in-spirit feasible weights: clip each asset, then scale the legs.

    Idempotent, sort-free, the identity inside the feasible set, differentiable almost everywhere. Cash is 1 − Σₙ.
    The gross cap scales both legs alike; the net cap then shrinks the larger leg only, so gross never grows.

    Args:
        weights: (B, N) [fraction of wealth].
        caps: the feasible set.
        gross_cap: () or (B,) ≥ 0 overrides `caps.gross`, for instance by time of day or by a guard.

    Returns:
        (B, N) feasible weights.
    """
    cap = caps.gross if gross_cap is None else gross_cap
    w = at_most(at_least(weights, 0.0 if caps.long_only else -caps.per_asset), caps.per_asset)
    if caps.long_only:
        return w * _shrink(total(w), min(cap, caps.net) if isinstance(cap, (float, int)) else at_most(cap, caps.net))
    w = w * _shrink(total(abs(w)), cap)
    if gross_cap is None and caps.net >= caps.gross:
        return w
    longs = at_least(w, 0.0)
    shorts = w - longs
    long, short = total(longs), -total(shorts)
    return longs * _shrink(long, short + caps.net) + shorts * _shrink(short, long + caps.net)


def _shrink(exposure: Array, cap: Array | float) -> Array:
    """min(1, cap/exposure) as (…, 1); exactly 1 inside the cap, and finite, with finite slopes, at exposure 0."""
    if isinstance(cap, (float, int)):
        return (cap / at_least(exposure, max(cap, 1e-30)))[..., None]
    return (cap / _namespace(exposure).maximum(exposure, cap).clip(1e-30))[..., None]


NEWTON_STEPS = 4  # that torch takes, the last one with gradients; numpy takes as many as it needs, up to three times that
SOLVED = {8: 1e-16, 4: 1e-9}  # by bytes a number: an excess this close below zero is rounding [fraction of wealth]


def solve_cost(
    wealth: Array,
    held: Array,
    target: Array,
    costs: CostConfig,
    half_spread_bps: Array | float = 0.0,
    impact_scale: Array | float = 1.0,
) -> Array:
    """Fraction of wealth that moving from `held` to `target` weights costs.

    The target is a fraction of wealth AFTER cost, so the cost appears on both sides:

        κ = Σₙ (cₙ dₙ + kₙ √W dₙ^1.5),    dₙ = |targetₙ (1 − κ) − heldₙ|

    The cost is convex in κ, so Newton from κ = 0 rises to the smallest root; three steps reach 1e-12. On torch the
    iterates are detached and one last step is attached, with √(d + 1e-18), so gradients are finite at zero trades; numpy,
    which has no gradients, stops as soon as the equation holds to rounding. No root below 1 means that the trade costs
    more than the account has: κ = 1, and nothing is left.
    Source: Almgren et al. (2005) for the square-root term; proportional part as in Boyd et al. (2017) §2.3.

    Args:
        wealth: W (B,) [units of initial wealth], before trading.
        held, target: (B, N) [fraction of wealth]; cash is 1 − Σₙ.
        costs: `proportional_bps` c [bp of traded value], `impact` k [fraction at W = 1, d = 1].
        half_spread_bps: (N,) or (B, N), added to c [bp of traded value].
        impact_scale: (N,) or (B, N), multiplies k.

    Returns:
        κ (B,) in [0, 1].

    Raises:
        ShapeError: held and target disagree on (accounts, assets).
    """
    return _trade(wealth, held, target, costs, half_spread_bps, impact_scale)[0]


def _trade(wealth: Array, held: Array, target: Array, costs: CostConfig, half_spread_bps, impact_scale) -> tuple[Array, Array]:
    """κ and the turnover Σₙ dₙ that belongs to it."""
    if held.shape != target.shape:
        raise ShapeError(f"held weights have shape {tuple(held.shape)} and target {tuple(target.shape)}; they must agree.")
    xp = _namespace(target)
    c, k = _cost_rates(wealth, target, costs, half_spread_bps, impact_scale)
    linear = k is None and isinstance(c, float)
    steps = NEWTON_STEPS if xp is torch else 3 * NEWTON_STEPS
    h, t = _detached(held), _detached(target)
    delta, kappa = t - h, 0.0
    for left in range(steps, 0, -1):
        d = abs(delta)
        turnover = total(d)
        rate, marginal = (c, c) if linear else _marginal_rates(xp, d, c, k)
        excess = kappa - (c * turnover if linear else total(rate * d))
        if xp is np and left < steps and excess.min() >= -SOLVED[excess.dtype.itemsize]:
            return kappa, turnover
        slope = 1.0 + total(marginal * xp.sign(delta) * t)
        kappa = at_most(kappa - excess / at_least(slope, 1e-9), 1.0)
        if left == 2:
            h, t = held, target
        delta = t * (1.0 - kappa)[..., None] - h
    return kappa, total(abs(delta))


def cost_by_asset(
    wealth: Array,
    held: Array,
    target: Array,
    cost: Array,
    costs: CostConfig,
    half_spread_bps: Array | float = 0.0,
    impact_scale: Array | float = 1.0,
) -> Array:
    """The terms of κ per asset, (B, N): cₙ dₙ + kₙ √W dₙ^1.5; they sum to `cost` = κ."""
    c, k = _cost_rates(wealth, target, costs, half_spread_bps, impact_scale)
    d = abs(target * (1.0 - cost)[..., None] - held)
    return _marginal_rates(_namespace(target), d, c, k)[0] * d


def _cost_rates(wealth: Array, target: Array, costs: CostConfig, half_spread_bps, impact_scale):
    """c [fraction of traded value] and k √W in the precision of `target`, or None without impact."""
    c = (costs.proportional_bps + half_spread_bps) * 1e-4
    if costs.impact == 0:
        return c, None
    root = at_least(wealth, 1e-30) ** 0.5  # not 0: the slope of √W is infinite there
    root = root.to(target.dtype) if isinstance(root, torch.Tensor) else root.astype(target.dtype)
    return c, costs.impact * impact_scale * root[..., None]


def _marginal_rates(xp, d: Array, c: Array | float, k: Array | None) -> tuple[Array | float, Array | float]:
    """Average and marginal cost per unit traded: c + k√(Wd) and c + 1.5 k√(Wd)."""
    if k is None:
        return c, c
    impact = k * xp.sqrt(d + 1e-18)
    return c + impact, c + 1.5 * impact


def hold(target: Array, gross_next: Array, financing: FinancingConfig) -> Holding:
    """Carry target weights to the next close.

        R = Σ targetₙ rₙ + interest − financing − borrow fee,    r = gross − 1

    The free part is 1 − Σ|w| (basis "gross") or the cash 1 − Σw (basis "debit"): above zero it earns the cash rate,
    below zero it is financed. Weights drift to target·(1 + r)/(1 + R).

    Args:
        target: (B, N) [fraction of wealth after trading].
        gross_next: (N,) or (B, N) `P_{t+1} / P_t`.
        financing: rates.
    """
    xp = _namespace(target)
    per_bar = 1.0 / financing.bars_per_year
    portfolio_return = total(target * (gross_next - 1.0))
    interest = financed = borrow_fee = 0.0 * portfolio_return
    if financing.rate_annual or financing.cash_rate_annual:
        borrowed = total(abs(target) if financing.basis == "gross" else target) - 1.0
        financed = at_least(borrowed, 0.0) * (financing.rate_annual * per_bar)
        portfolio_return = portfolio_return - financed
        if financing.cash_rate_annual:
            interest = at_least(-borrowed, 0.0) * (financing.cash_rate_annual * per_bar)
            portfolio_return = portfolio_return + interest
    if financing.borrow_fee_annual:
        borrow_fee = total(at_least(-target, 0.0)) * (financing.borrow_fee_annual * per_bar)
        portfolio_return = portfolio_return - borrow_fee
    growth = 1.0 + portfolio_return
    # A ruined account holds nothing: dividing by infinity makes its weights, and their gradients, zero.
    drift = gross_next * target / xp.where(growth > 0, growth, float("inf"))[..., None]
    return Holding(portfolio_return, interest, financed, borrow_fee, drift)


def step(
    wealth: Array,
    held: Array,
    target: Array,
    gross_next: Array,
    costs: CostConfig,
    financing: FinancingConfig,
    half_spread_bps: Array | float = 0.0,
    impact_scale: Array | float = 1.0,
) -> LedgerStep:
    """Trade from `held` to feasible `target` at this close, hold to the next:  W' = W (1 − κ)(1 + R).

    Args and shapes: see `solve_cost` and `hold`.
    """
    cost, turnover = _trade(wealth, held, target, costs, half_spread_bps, impact_scale)
    held_bar = hold(target, gross_next, financing)
    return LedgerStep(
        wealth=wealth * ((1.0 - cost) * (1.0 + held_bar.portfolio_return)),
        weights=held_bar.weights,
        target=target,
        cost=cost,
        turnover=turnover,
        portfolio_return=held_bar.portfolio_return,
        interest=held_bar.interest,
        financing=held_bar.financing,
        borrow_fee=held_bar.borrow_fee,
    )


def path(
    targets: Array,
    gross_next: Array,
    costs: CostConfig,
    financing: FinancingConfig,
    initial: Array | None = None,
    half_spread_bps: Array | float = 0.0,
    impact_scale: Array | float = 1.0,
) -> LedgerStep:
    """A whole path of known feasible targets in one vectorised pass.

    Post-trade weights ARE the target, so the weights held before trade s + 1 follow from target s alone. Impact is on
    reference wealth W = 1 (the exact path would need wealth first); without impact the result equals `step` in a loop.
    An account that falls to zero or below stays where it fell; its later bars say what they would have cost.

    Args:
        targets: (S, B, N) feasible weights decided at S successive closes.
        gross_next: (S, N) or (S, B, N) returns from each of those closes to the next.
        initial: (B, N) weights held before the first trade; cash only if not given.
        half_spread_bps, impact_scale: (S, 1, N) or scalars, see `solve_cost`.

    Returns:
        LedgerStep with a leading axis S; `wealth` (S, B) float64 starts from 1 and is the wealth after each bar.
    """
    xp = _namespace(targets)
    gross_next = gross_next if gross_next.ndim == targets.ndim else gross_next[:, None, :]
    drifted = hold(targets, gross_next, financing).weights
    first = xp.zeros_like(targets[:1]) if initial is None else initial[None]
    held = xp.concatenate([first, drifted[:-1]])
    steps = step(xp.ones_like(targets[..., 0]), held, targets, gross_next, costs, financing, half_spread_bps, impact_scale)
    ruined = steps.wealth <= 0
    earlier = xp.cumsum(ruined, 0) > 1.0 * ruined  # ruined on a bar before this one
    return steps._replace(wealth=xp.cumprod(xp.where(earlier, 1.0, steps.wealth), 0, dtype=xp.float64))


def trade(wealth: float | Array, target: Array, costs: CostConfig, held: Array | None = None) -> Trade:
    """One trade in money, for questions such as "what does buying half the account cost?".

    `costs.impact` is then per √(money unit): k [fraction at W = 1 unit, d = 1].
    """
    target = np.asarray(target, dtype=np.float64)
    wealth = np.asarray(wealth, dtype=np.float64)
    held = np.zeros_like(target) if held is None else np.asarray(held, dtype=np.float64)
    cost, turnover = _trade(wealth, held, target, costs, 0.0, 1.0)
    return Trade(wealth * (1.0 - cost), wealth * cost, turnover)
