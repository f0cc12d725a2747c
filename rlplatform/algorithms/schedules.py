"""Schedules: settings that change with the env steps done."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from envs.errors import ConfigError

Schedule = tuple[tuple[float, float], ...]
"""Points ((0, a), (env_steps, b), …): linear between them, constant after the last."""


def scheduled(value: float | Schedule, env_steps: int) -> float:
    """A schedule's value: linear between its points, constant after the last."""
    if isinstance(value, float):
        return value
    for (start, low), (end, high) in pairwise(value):
        if env_steps < end:
            return low + (high - low) * (env_steps - start) / (end - start)
    return value[-1][1]


def rllib_schedule(value: float | Schedule) -> float | list[list[float]]:
    """A number or a schedule in RLlib's form."""
    return value if isinstance(value, int | float) else [[int(step), y] for step, y in value]


def checked_schedule(name: str, value: Any) -> float | Schedule:
    """A setting that is a number, or points of a schedule; as floats."""
    if isinstance(value, int | float):
        _expect(name, value, value >= 0, "0 or more")
        return float(value)
    points = tuple((float(step), float(y)) for step, y in value)
    steps = [step for step, _ in points]
    rising = all(earlier < later for earlier, later in pairwise(steps))
    ok = len(points) >= 2 and steps[0] == 0 and rising and all(y >= 0 for _, y in points)
    _expect(name, value, ok, "a number, or at least two points [env_steps, value] from step 0 on, steps rising, values ≥ 0")
    return points


def _expect(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"training.{name} = {value}; expected {expected}.")
