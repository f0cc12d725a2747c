"""What is made of repeated measurements: medians, spreads, ratios and the limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing.

    Attributes:
        median, low, high: of the measurements; low and high are the least and the largest.
        count: how many.
    """

    median: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def spread_of(values: Sequence[float]) -> Spread | None:
    """None when nothing was measured."""
    return Spread(median(values), min(values), max(values), len(values)) if values else None


def ratio(rounds: Sequence[float | None], others: Sequence[float | None]) -> float | None:
    """Median over rounds of `rounds[i] / others[i]`.

    Both sides of a quotient were measured within the same round, minutes apart at most, so what else the machine does
    moves them alike. None when no round measured both.
    """
    both = [(a, b) for a, b in zip(rounds, others, strict=False) if a is not None and b is not None]
    return median(a / b for a, b in both) if both else None


def arithmetic_limit(forward: float, forward_backward: float, env: float, epochs: int) -> float:
    """Env steps a second of a training that does nothing but the arithmetic nobody can avoid.

        1 / (1/forward + epochs/(forward+backward) + 1/env)

    Each transition is stepped once by the env, read once by the network to act, and once forward and backward an epoch.

    Args:
        forward, forward_backward, env: transitions a second, each measured alone.
        epochs: passes over each batch.
    """
    return 1.0 / (1.0 / forward + epochs / forward_backward + 1.0 / env)


def fastest(rates: dict[str, float | None]) -> tuple[str, float]:
    """Name and rate of the fastest that was measured.

    Raises:
        ValueError: none was.
    """
    measured = {name: rate for name, rate in rates.items() if rate is not None}
    if not measured:
        raise ValueError(f"nothing was measured of {', '.join(rates)}.")
    best = max(measured, key=measured.__getitem__)
    return best, measured[best]


def short(rate: float | None) -> str:
    """Three digits and a unit for a table: 13.4k, 2.10M; a dash for what was not measured."""
    if rate is None or not math.isfinite(rate):
        return "–"
    for unit, size in (("M", 1e6), ("k", 1e3), ("", 1.0)):
        if rate >= size or not unit:
            number = rate / size
            return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}{unit}"
    raise AssertionError
