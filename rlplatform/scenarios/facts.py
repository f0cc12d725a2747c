"""Stylised facts of joint returns, and whether generated returns have them within stated bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from envs.indicators import realised_volatility
from rlplatform.scenarios.blocks import block_rows

Array = np.ndarray

BARS_PER_YEAR = 252
RESAMPLES, RESAMPLE_BLOCK = 200, 126  # of the real history behind a band; half a year keeps volatility's memory
TAIL = 0.05  # share of the days that a tail index looks at
STORMY = 0.8  # a day is stormy where the market's 21-day volatility is among its highest fifth


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A figure that returns of markets are known by.

    Attributes:
        name: of it.
        meaning: one line.
        measure: log returns (T, N) → number.
        allowance: half width of the band that is granted in any case, in units of the figure; beyond it the real history's own
            uncertainty counts.
        relative: the same as a share of the real figure; the larger one counts.
    """

    name: str
    meaning: str
    measure: Callable[[Array], float]
    allowance: float = 0.0
    relative: float = 0.0


def volatility(x: Array) -> float:
    """Mean over assets of the standard deviation [fraction a year]."""
    return float(x.std(axis=0).mean() * np.sqrt(BARS_PER_YEAR))


def excess_kurtosis(x: Array) -> float:
    """Median over assets of m₄ / m₂² − 3; 0 for a normal distribution."""
    centred = x - x.mean(axis=0)
    return float(np.median((centred**4).mean(axis=0) / np.maximum((centred**2).mean(axis=0), 1e-24) ** 2 - 3.0))


def tail_index(x: Array) -> float:
    """Hill's α of the market's losses in their worst 5 %: P(loss > l) ~ l^−α. Source: Hill (1975)."""
    losses = np.sort(-x.mean(axis=1))[::-1]
    count = max(int(TAIL * len(losses)), 10)
    beyond = losses[: count + 1]
    if beyond[count] <= 0:
        return float("inf")
    return float(1.0 / np.log(beyond[:count] / beyond[count]).mean())


def autocorrelation(x: Array, lag: int) -> float:
    """Mean over assets of corr(x_t, x_{t+lag})."""
    centred = x - x.mean(axis=0)
    return float(((centred[lag:] * centred[:-lag]).mean(axis=0) / np.maximum((centred**2).mean(axis=0), 1e-24)).mean())


def leverage(x: Array) -> float:
    """corr(m_t, mean |m| of the next 5 bars) of the market: below 0 where falls are followed by storms."""
    market = x.mean(axis=1) - x.mean()
    following = np.convolve(np.abs(market), np.ones(5) / 5, "valid")[1:]
    return float(np.corrcoef(market[: len(following)], following)[0, 1])


def correlation(x: Array) -> float:
    """Mean over pairs; 1 for a single asset."""
    count = x.shape[1]
    if count == 1:
        return 1.0
    return float((np.corrcoef(x.T).sum() - count) / (count * (count - 1)))


def correlation_rise(x: Array) -> float:
    """Mean pair correlation on stormy days less that on others; 0 for a single asset.

    Whether a day is stormy is known the day before: days chosen by their own size would be correlated whatever the law
    (Forbes & Rigobon 2002).
    """
    storm = realised_volatility(np.exp(x.mean(axis=1)), 21)[:-1]
    stormy = storm >= np.quantile(storm, STORMY)
    return correlation(x[1:][stormy]) - correlation(x[1:][~stormy])


def drawdown(x: Array) -> float:
    """Median over stretches of a year of the market's deepest fall [fraction, ≤ 0]."""
    years = max(len(x) // BARS_PER_YEAR, 1)
    paths = np.cumsum(x.mean(axis=1)[: years * BARS_PER_YEAR].reshape(years, -1), axis=1)
    peaks = np.maximum.accumulate(np.maximum(paths, 0.0), axis=1)
    return float(np.median(np.expm1((paths - peaks).min(axis=1))))


FACTS = (
    Fact(name="volatility", meaning="standard deviation a year, mean of assets", measure=volatility, relative=0.1),
    Fact(name="excess kurtosis", meaning="fat tails: 0 if normal", measure=excess_kurtosis, relative=0.25),
    Fact(name="tail index", meaning="of the market's worst 5 %, Hill; lower is fatter", measure=tail_index, relative=0.2),
    Fact(name="memory of r, 1 bar", meaning="autocorrelation", measure=lambda x: autocorrelation(x, 1), allowance=0.03),
    *(
        Fact(
            name=f"memory of |r|, {lag} bar{'s' if lag > 1 else ''}",
            meaning="volatility clusters: autocorrelation of |r|",
            measure=lambda x, lag=lag: autocorrelation(np.abs(x), lag),
            allowance=0.03,
        )
        for lag in (1, 5, 20)
    ),
    Fact(name="leverage", meaning="corr(market, its |r| over the next 5 bars)", measure=leverage, allowance=0.03),
    Fact(name="correlation", meaning="mean of pairs", measure=correlation, allowance=0.03),
    Fact(name="correlation rise", meaning="stormy fifth of days less others", measure=correlation_rise, allowance=0.05),
    Fact(name="drawdown", meaning="market's deepest fall in a year, median", measure=drawdown, relative=0.2),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FactRow:
    """One fact, real and generated.

    Attributes:
        fact, meaning: see `Fact`.
        real: of history.
        low, high: the band.
        generated: mean over paths.
        spread: standard deviation over paths.
        passed: whether `generated` lies in the band.
    """

    fact: str
    meaning: str
    real: float
    low: float
    high: float
    generated: float
    spread: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bands(gross: Array, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, tuple[float, float, float]]:
    """Fact → its real value, and the band [low, high] that a model's must fall into.

    The band holds the 95 % interval of the figure over stationary bootstraps of the real history (blocks of half a year on
    average) and the fact's own allowance around the real value, whichever reaches further on each side.

    Args:
        gross: (T, N) real gross returns.
        resamples: behind the interval.
    """
    logs, rng = np.log(gross), np.random.default_rng(seed)
    resamples = [logs[block_rows(np.arange(len(logs)), len(logs), RESAMPLE_BLOCK, rng)] for _ in range(resamples)]
    found = {}
    for fact in FACTS:
        real = fact.measure(logs)
        low, high = np.quantile([fact.measure(each) for each in resamples], (0.025, 0.975))
        granted = max(fact.allowance, fact.relative * abs(real))
        found[fact.name] = (real, float(min(low, real - granted)), float(max(high, real + granted)))
    return found


def check_facts(generated: Array, known: Mapping[str, tuple[float, float, float]]) -> list[FactRow]:
    """Each fact of paths (S, T, N) of gross returns, held against `bands`; paths should be as long as the real history."""
    logs = np.log(generated)
    rows = []
    for fact in FACTS:
        values = np.array([fact.measure(path) for path in logs])
        real, low, high = known[fact.name]
        mean = float(values.mean())
        rows.append(
            FactRow(
                fact=fact.name,
                meaning=fact.meaning,
                real=real,
                low=low,
                high=high,
                generated=mean,
                spread=float(values.std()),
                passed=bool(low <= mean <= high),
            )
        )
    return rows
