"""Reward terms: each has a name, a weight and its own line in the logs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import torch

from envs.errors import ConfigError
from envs.ledger import LedgerStep, at_least, total

Array = Any

MIN_GROWTH = 1e-6  # a ruined account's bar counts as losing all but a millionth, so that log growth stays finite


class RewardInputs(NamedTuple):
    """What a reward may depend on: one step of B accounts and the market row it happened on."""

    step: LedgerStep
    wealth_before: Array  # (B,)
    peak: Array  # (B,) highest wealth so far, this close included
    gross_next: Array  # (B, N)
    forecast_cvar: Array | None  # (B, N), known before the decision; None where no term asks for it
    forecast_uncertainty: Array | None  # (B, N), likewise


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """reward = clip(scale · Σ weight × term). A weight of 0 leaves its term out.

    | term | value a bar |
    |---|---|
    | log_growth | log(W'/W), after costs and financing |
    | excess_log_growth | log(W'/W) − log growth of equal weights of cash and all assets, before costs |
    | alpha | portfolio return before trading cost, minus the equal-weight return of the assets |
    | trading_cost | −κ |
    | turnover | −Σ\\|Δw\\| |
    | drawdown | −(1 − W'/peak) |
    | predicted_cvar | −Σ\\|w\\|·forecast CVaR |
    | forecast_uncertainty | −Σ\\|w\\|·(q90 − q10) of the forecast |

    Attributes:
        scale: multiplies the sum; 100 makes the unit percent.
        clip: largest |reward|; none if not given.
    """

    log_growth: float = 0.0
    excess_log_growth: float = 0.0
    alpha: float = 0.0
    trading_cost: float = 0.0
    turnover: float = 0.0
    drawdown: float = 0.0
    predicted_cvar: float = 0.0
    forecast_uncertainty: float = 0.0
    scale: float = 100.0
    clip: float | None = None

    def __post_init__(self) -> None:
        for name, weight in self.weights().items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(
                    f"reward.{name} = {weight}; a weight is finite and ≥ 0 (penalties carry their own minus sign)."
                )
        if not any(self.weights().values()):
            raise ConfigError(f"reward has no term with a weight above 0. Set one of {', '.join(TERMS)}.")
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"reward.scale = {self.scale}; expected a finite number > 0.")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"reward.clip = {self.clip}; expected > 0, or nothing for no clip.")

    def weights(self) -> dict[str, float]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("scale", "clip")}

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that count."""
        return tuple(self.factors)

    @cached_property
    def factors(self) -> dict[str, float]:
        """weight × scale of each term that counts."""
        return {name: weight * self.scale for name, weight in self.weights().items() if weight}


def _log_growth(x: RewardInputs) -> Array:
    xp = torch if isinstance(x.step.wealth, torch.Tensor) else np
    return xp.log(at_least(x.step.wealth / x.wealth_before, MIN_GROWTH))


def _excess_log_growth(x: RewardInputs) -> Array:
    """The same optimum as log growth, for no action moves the subtrahend; but the market's own noise is gone from it."""
    xp = torch if isinstance(x.step.wealth, torch.Tensor) else np
    neutral = (1.0 + total(x.gross_next)) * (1.0 / (x.gross_next.shape[-1] + 1))
    return _log_growth(x) - xp.log(neutral)


def _alpha(x: RewardInputs) -> Array:
    return x.step.portfolio_return + 1.0 - total(x.gross_next) * (1.0 / x.gross_next.shape[-1])


def _drawdown(x: RewardInputs) -> Array:
    return x.step.wealth / x.peak - 1.0


TERMS = {
    "log_growth": _log_growth,
    "excess_log_growth": _excess_log_growth,
    "alpha": _alpha,
    "trading_cost": lambda x: -x.step.cost,
    "turnover": lambda x: -x.step.turnover,
    "drawdown": _drawdown,
    "predicted_cvar": lambda x: -total(abs(x.step.target) * x.forecast_cvar),
    "forecast_uncertainty": lambda x: -total(abs(x.step.target) * x.forecast_uncertainty),
}


def reward_terms(inputs: RewardInputs, config: RewardConfig) -> dict[str, Array]:
    """Each term that counts, (B,), weighted and scaled: they sum to the reward before clipping."""
    return {name: TERMS[name](inputs) * factor for name, factor in config.factors.items()}


def total_reward(terms: dict[str, Array], config: RewardConfig) -> Array:
    """Sum of the terms, clipped."""
    reward = reduce(add, terms.values())
    return reward if config.clip is None else reward.clip(-config.clip, config.clip)
