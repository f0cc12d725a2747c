"""Does the way of choosing among trials overfit? Combinatorially symmetric cross-validation (CSCV)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.metrics import finite_or_none

Array = np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Overfitting:
    """What became of the best trial of one half of the history in the other half, over all ways to halve it.

    Attributes:
        probability: PBO, share of the splits in which the chosen trial fell to the median of all or below it. 0.5 is what
            choosing by lot would give.
        chosen: annualised Sharpe ratio of the chosen trial where it was chosen, mean over splits.
        kept: the same trial's in the other half; NaN where no split has one.
        loss_probability: share of the splits in which the chosen trial lost money in the other half.
        logits: (splits,) ln(ω / (1 − ω)), ω the chosen trial's relative rank in the other half.
        trials, blocks, bars: counted.
    """

    probability: float
    chosen: float
    kept: float
    loss_probability: float
    logits: Array
    trials: int
    blocks: int
    bars: int

    @property
    def splits(self) -> int:
        return len(self.logits)

    def to_dict(self) -> dict:
        names = ("probability", "chosen", "kept", "loss_probability", "trials", "blocks", "bars", "splits")
        return {name: finite_or_none(getattr(self, name)) for name in names}


def backtest_overfitting(returns: Array, blocks: int = 16, bars_per_year: int = 252) -> Overfitting:
    """Probability of backtest overfitting of choosing the trial with the highest Sharpe ratio.

    History is cut into `blocks` of equal length (the first bars that do not fill one are left out). For every choice of half
    of them, the best trial there is found and its rank ω among all N trials in the other half, as rank / (N + 1) with the
    lowest at 1/(N + 1). PBO is the share of the C(blocks, blocks/2) splits with ω ≤ 1/2. Every trial whose returns do not
    vary ranks last.
    Source: Bailey, Borwein, López de Prado and Zhu (2015), "The probability of backtest overfitting", §2.2.

    Args:
        returns: (T, N) simple returns of all trials on the same bars, good and bad: to leave some out is to overfit.
        blocks: even, from 2 to 20.

    Raises:
        ShapeError: not a matrix, or fewer than two trials.
        ConfigError: blocks odd or out of range, too few bars, or a return is missing.
    """
    returns = _checked(returns, blocks)
    length = len(returns) // blocks
    used = returns[len(returns) - length * blocks :].reshape(blocks, length, -1)
    halves = _halves(blocks)
    inside = _sharpes(used, halves, bars_per_year)
    outside = _sharpes(used, 1.0 - halves, bars_per_year)
    best = inside.argmax(1)
    rows = np.arange(len(halves))
    ranks = _rank_of(outside, best) / (returns.shape[1] + 1.0)
    kept = outside[rows, best]
    return Overfitting(
        probability=float((ranks <= 0.5 + 1e-12).mean()),
        chosen=_finite_mean(inside[rows, best]),
        kept=_finite_mean(kept),
        loss_probability=float((np.isfinite(kept) & (kept < 0)).mean()),
        logits=np.log(ranks / (1.0 - ranks)),
        trials=returns.shape[1],
        blocks=blocks,
        bars=length * blocks,
    )


def _checked(returns: Array, blocks: int) -> Array:
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 2 or returns.shape[1] < 2:
        raise ShapeError(f"backtest_overfitting: returns have shape {returns.shape}; expected (bars, trials ≥ 2).")
    if not 2 <= blocks <= 20 or blocks % 2:
        raise ConfigError(f"blocks = {blocks}; expected an even number from 2 to 20.")
    if len(returns) < 2 * blocks:
        raise ConfigError(f"{len(returns)} bars in {blocks} blocks; each needs at least 2. Give more bars or fewer blocks.")
    missing = ~np.isfinite(returns)
    if missing.any():
        row, column = map(int, np.argwhere(missing)[0])
        raise ConfigError(
            f"returns[{row}, {column}] is {returns[row, column]} ({missing.sum()} such cells); every trial needs every bar. "
            "Leave out trials that have not ended."
        )
    return returns


def _halves(blocks: int) -> Array:
    """(splits, blocks) of 0 and 1: every way to choose half of the blocks."""
    chosen = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(chosen), blocks))
    np.put_along_axis(halves, chosen, 1.0, axis=1)
    return halves


def _sharpes(blocks: Array, halves: Array, bars_per_year: int) -> Array:
    """(splits, N) annualised Sharpe ratios over the chosen blocks, from each block's sums; −∞ without volatility."""
    centre = blocks.mean((0, 1))  # sums of squares around the mean: no cancellation
    count = halves.sum(1, keepdims=True) * blocks.shape[1]
    mean = halves @ (blocks - centre).sum(1) / count
    square = halves @ ((blocks - centre) ** 2).sum(1)
    deviation = np.sqrt(np.maximum(square - count * mean**2, 0.0) / (count - 1.0))
    varies = deviation > 1e-14
    return np.where(varies, math.sqrt(bars_per_year) * (mean + centre) / np.where(varies, deviation, 1.0), -np.inf)


def _rank_of(values: Array, chosen: Array) -> Array:
    """Rank from 1, the lowest, of each row's chosen column; ties share their mean rank."""
    own = values[np.arange(len(values)), chosen][:, None]
    return (values < own).sum(1) + ((values == own).sum(1) + 1.0) / 2.0


def _finite_mean(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
