"""Our environment alone: steps a CPU second, microseconds of a single account, memory."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs import make, make_vec
from envs.backend import Backend
from envs.catalog import demo_tape
from envs.portfolio import PortfolioConfig
from rlplatform.bench.stopwatch import Lap, timed

ACCOUNTS, ASSETS, LIBRARIES = (1, 64, 1_024, 8_192), (3, 30, 500), ("numpy", "torch")
MOST_WEIGHTS = 2**20  # of all accounts together; more would take over a second a step
MEMORY_ACCOUNTS, MEMORY_ASSETS = 1_024, 500


def env_rows(seconds: float, accounts=ACCOUNTS, assets=ASSETS, libraries=LIBRARIES) -> list[dict[str, Any]]:
    """One row for each combination on Portfolio-v0: its lap, or why it was left out.

    A single account on numpy is `TradingEnv` in float64; all others are `TradingVectorEnv` in float32.
    """
    torch.set_num_threads(1)
    return [_row(library, b, n, seconds) for n in assets for b in accounts for library in libraries]


def _row(library: str, num_accounts: int, num_assets: int, seconds: float) -> dict[str, Any]:
    row = {"library": library, "accounts": num_accounts, "assets": num_assets}
    if num_accounts * num_assets > MOST_WEIGHTS:
        return row | {"note": f"left out: {num_accounts * num_assets / 1e6:.1f}M weights a step"}
    return row | env_lap(library, num_accounts, num_assets, seconds).to_dict()


def env_lap(library: str, num_accounts: int, num_assets: int, seconds: float, device: str = "cpu") -> Lap:
    """Steps of all accounts with actions drawn beforehand."""
    return timed(stepper(library, num_accounts, num_assets, device), seconds)


def stepper(library: str, num_accounts: int, num_assets: int, device: str) -> Callable[[], int]:
    """A call that steps all accounts once (a single one: for an episode) and returns the steps it did."""
    tape, config = demo_tape(num_assets), PortfolioConfig()
    actions = np.random.default_rng(0).dirichlet(np.ones(num_assets + 1), size=num_accounts).astype(np.float32)
    if library == "numpy" and num_accounts == 1:
        return _single_stepper(make(config, tape), actions[0])
    backend = Backend(library, "float32", device)
    env = make_vec(config, tape, num_accounts, backend=backend, autoreset_mode="same_step")
    env.reset(seed=0, options={"stagger": True})
    if library == "torch":
        actions = torch.from_numpy(actions).to(device)

    def step() -> int:
        env.step(actions)
        return num_accounts

    return step


def _single_stepper(env, action: np.ndarray) -> Callable[[], int]:
    env.reset(seed=0)

    def episode() -> int:
        env.reset()
        steps, ended = 0, False
        while not ended:
            *_, terminated, truncated, _ = env.step(action)
            steps, ended = steps + 1, terminated or truncated
        return steps

    return episode


def peak_memory() -> dict[str, Any]:
    """Peak memory of this process, which does nothing but step 1,024 accounts of 500 assets 64 times [MiB]."""
    before = _peak_mib()
    env = make_vec(PortfolioConfig(), demo_tape(MEMORY_ASSETS), MEMORY_ACCOUNTS, autoreset_mode="same_step")
    env.reset(seed=0, options={"stagger": True})
    actions = np.full((MEMORY_ACCOUNTS, MEMORY_ASSETS + 1), 1.0 / (MEMORY_ASSETS + 1), np.float32)
    for _ in range(64):
        env.step(actions)
    return {"peak_mib": _peak_mib(), "imports_mib": before}


def _peak_mib() -> float:
    """Of this program alone. On Linux `ru_maxrss` would count the parent too, where it was larger when it started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
