"""CPU and wall seconds of repeated work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Lap:
    """Work done, and what it took.

    Attributes:
        steps: env steps, or transitions.
        cpu_seconds: of all threads of this process, and of what `clock` adds to it.
        wall_seconds: that passed.
    """

    steps: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def steps_per_cpu_s(self) -> float:
        return self.steps / max(self.cpu_seconds, 1e-9)

    @property
    def steps_per_s(self) -> float:
        return self.steps / max(self.wall_seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"steps_per_cpu_s": self.steps_per_cpu_s, "steps_per_s": self.steps_per_s}


def timed(
    work: Callable[[], int],
    seconds: float,
    warm_up: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> Lap:
    """Repeat `work` until `seconds` have passed, at least once, after `warm_up` calls that do not count.

    Args:
        work: returns the steps it did.
        clock: CPU seconds so far; with remote processes the sum over all of them.
    """
    for _ in range(warm_up):
        work()
    cpu, start, steps = clock(), time.perf_counter(), 0
    while True:
        steps += work()
        wall = time.perf_counter() - start
        if wall >= seconds:
            return Lap(steps=steps, cpu_seconds=clock() - cpu, wall_seconds=wall)
