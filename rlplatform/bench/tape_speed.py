"""A whole path of known targets: `ledger.path` in one pass against `ledger.step` in a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from envs import ledger
from envs.terms import CostConfig, FinancingConfig
from rlplatform.bench.stopwatch import timed

SIZES = ((1_256, 1, 3), (1_256, 1, 30), (1_256, 64, 3), (1_256, 64, 30), (256, 1_024, 3))  # bars, accounts, assets
COSTS, FINANCING = CostConfig(), FinancingConfig()


def tape_rows(seconds: float, sizes=SIZES) -> list[dict[str, Any]]:
    """For each size, bars × accounts a CPU second both ways, in float64."""
    return [_row(*size, seconds) for size in sizes]


def _row(bars: int, accounts: int, assets: int, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    targets = rng.dirichlet(np.ones(assets + 1), size=(bars, accounts))[..., 1:]
    gross = np.exp(rng.normal(0, 0.01, size=(bars, assets)))
    rates = {name: timed(work, seconds).steps_per_cpu_s for name, work in _ways(targets, gross).items()}
    return {"bars": bars, "accounts": accounts, "assets": assets, **rates}


def _ways(targets: np.ndarray, gross: np.ndarray) -> dict[str, Callable[[], int]]:
    steps = targets.shape[0] * targets.shape[1]

    def path() -> int:
        ledger.path(targets, gross, COSTS, FINANCING)
        return steps

    def loop() -> int:
        wealth, held = np.ones(targets.shape[1]), np.zeros_like(targets[0])
        for target, gross_next in zip(targets, gross, strict=True):
            after = ledger.step(wealth, held, target, gross_next, COSTS, FINANCING)
            wealth, held = after.wealth, after.weights
        return steps

    return {"path_steps_per_cpu_s": path, "loop_steps_per_cpu_s": loop}
