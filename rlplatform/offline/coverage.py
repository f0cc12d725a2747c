"""Coverage: what a dataset holds, and what each algorithm can do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs.indicators import REGIME_NAMES
from envs.regime import action_names
from envs.spaces import Simplex
from rlplatform.offline.columns import total_returns
from rlplatform.offline.episodes import Episodes, joined
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.manifest import DatasetManifest, statistics
from rlplatform.offline.reading import DatasetReader

Array = np.ndarray

BINS = 10  # of each action entry, for occupancy
VISITED = 1e-3  # share of rows from which a bin or an action counts as visited
NARROW = 0.2  # share of bins or actions visited below which values of other actions are guesses
RULED = 0.9  # largest likelihood of a logged action (discrete) at which data count as nearly deterministic
ALGORITHMS = ("bc", "marwil", "cql", "iql", "discrete_cql", "off-policy estimators")


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What one algorithm can do with a dataset.

    Attributes:
        usable: whether it runs and means something.
        why: why not, or what to expect.
    """

    algorithm: str
    usable: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """A dataset looked at.

    Attributes:
        problems: whatever reading refuses, and what makes training pointless.
        actions: per action or action entry: mean, std, share of bins (or of rows) it takes.
        action_coverage: mean share of bins (or of actions) visited, 0 … 1.
        behaviour_entropy: −mean log-probability of logged actions [nats]; None without.
        regimes: share of rows per market state; empty without the column.
        days: {"decided": distinct days with a decision, "period": days of the period, "share"}.
        observations: names of entries that never change, and the largest |value|.
        returns: statistics of episode returns and of total return.
    """

    path: str
    env_id: str
    episodes: int
    rows: int
    bytes: int
    problems: tuple[str, ...]
    actions: tuple[dict[str, Any], ...] = ()
    action_coverage: float | None = None
    behaviour_entropy: float | None = None
    regimes: dict[str, float] | None = None
    days: dict[str, float] | None = None
    observations: dict[str, Any] | None = None
    returns: dict[str, dict[str, float]] | None = None
    capabilities: tuple[Capability, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}


def check_dataset(directory: Path | str) -> DatasetReport:
    """Read all of a dataset, bad episodes left out, and say what is in it.

    Raises:
        DatasetError: there is no dataset, or its manifest cannot be read.
    """
    reader = DatasetReader(directory, skip_bad=True)
    manifest = reader.manifest
    problems: list[str] = []
    try:
        parts = list(reader)
    except DatasetError as error:
        parts, problems = [], [str(error)]
    problems += reader.left_out
    general = {
        "path": str(directory),
        "env_id": manifest.env_id,
        "bytes": sum(record.bytes for record in manifest.files),
    }
    if not parts:
        return DatasetReport(**general, episodes=0, rows=0, problems=(*problems, "no episode can be read."))
    episodes = joined(parts)
    actions, coverage = action_coverage(episodes, manifest)
    entropy = behaviour_entropy(episodes)
    totals = total_returns(episodes)
    returns = {"episode_return": statistics(episodes.returns())} | (
        {} if totals is None else {"total_return": statistics(totals)}
    )
    return DatasetReport(
        **general,
        episodes=len(episodes),
        rows=episodes.num_rows,
        problems=tuple(problems),
        actions=tuple(actions),
        action_coverage=coverage,
        behaviour_entropy=entropy,
        regimes=_regimes(episodes),
        days=_days(episodes, manifest),
        observations=_observations(episodes, manifest.observation_names),
        returns=returns,
        capabilities=tuple(capabilities(episodes, manifest, coverage)),
    )


def action_coverage(episodes: Episodes, manifest: DatasetManifest) -> tuple[list[dict[str, Any]], float]:
    """How much of the action space the rows visit.

    Returns:
        One entry an action (its share of rows) or an action entry (mean, std, share of `BINS` equal bins visited by more
        than one row in a thousand), and the mean share visited.
    """
    space, names = manifest.space, action_labels(manifest)
    if isinstance(space, gym.spaces.Discrete):
        share = np.bincount(episodes.actions, minlength=int(space.n)) / episodes.num_rows
        table = [{"action": name, "share": float(s)} for name, s in zip(names, share, strict=True)]
        return table, float((share > VISITED).mean())
    table = []
    for i, name in enumerate(names):
        values = episodes.actions[:, i].astype(np.float64)
        counts = np.histogram(values, bins=BINS, range=(float(space.low[i]), float(space.high[i])))[0]
        visited = float((counts > VISITED * len(values)).mean())
        table.append({"action": name, "mean": float(values.mean()), "std": float(values.std()), "visited": visited})
    return table, float(np.mean([entry["visited"] for entry in table]))


def action_labels(manifest: DatasetManifest) -> list[str]:
    """A name for each action of a discrete space, or for each entry of a continuous one."""
    space = manifest.space
    symbols = [name.removeprefix("weight_") for name in manifest.observation_names if name.startswith("weight_")]
    if isinstance(space, gym.spaces.Discrete):
        named = list(action_names(tuple(symbols))) if len(symbols) == 3 else []
        return named if len(named) == space.n else [str(i) for i in range(int(space.n))]
    labels = ["cash", *symbols] if isinstance(space, Simplex) else symbols
    return [*labels, "leverage"][: space.shape[0]]


def behaviour_entropy(episodes: Episodes) -> float | None:
    """−mean log-probability [nats] of what was done; None where rows have none."""
    known = episodes.log_prob[np.isfinite(episodes.log_prob)]
    return float(-known.mean(dtype=np.float64)) if len(known) == episodes.num_rows else None


def capabilities(episodes: Episodes, manifest: DatasetManifest, coverage: float) -> list[Capability]:
    """Each algorithm of `ALGORITHMS`, whether it can be used, and why."""
    discrete = manifest.is_discrete
    varied = bool(np.ptp(episodes.rewards) > 0)
    # Of many weights that sum to one most bins are out of reach: what has a density is not called narrow.
    narrow = coverage < NARROW and (discrete or bool(np.isnan(episodes.log_prob).any()))
    guess = f"only {coverage:.0%} of the action space is visited: values elsewhere are guesses; add epsilon or noise"
    needs_box = "acts in a box only; the actions are discrete: use discrete_cql"
    needs_discrete = "acts on discrete actions only; use cql or iql"
    better = "weighs what returned more higher" if varied else "every reward is the same: nothing to prefer, as bc"
    about_values = guess if narrow else "rows cover the actions well enough to compare them"
    return [
        Capability(algorithm="bc", usable=True, why="copies the behaviour; no better than it"),
        Capability(algorithm="marwil", usable=True, why=better),
        Capability(algorithm="cql", usable=not discrete, why=needs_box if discrete else about_values),
        Capability(algorithm="iql", usable=not discrete, why=needs_box if discrete else about_values),
        Capability(algorithm="discrete_cql", usable=discrete, why=about_values if discrete else needs_discrete),
        _estimators(episodes, discrete),
    ]


def _estimators(episodes: Episodes, discrete: bool) -> Capability:
    name = ALGORITHMS[-1]
    unknown = np.isnan(episodes.log_prob).mean()
    if unknown:
        why = f"{unknown:.0%} of the rows have no log-probability: importance sampling cannot; fitted Q evaluation can"
        return Capability(algorithm=name, usable=False, why=why)
    likelihood = np.exp(episodes.log_prob.astype(np.float64)) if discrete else None
    if likelihood is not None and np.median(likelihood) > RULED:
        why = f"half of the rows did what the rule does with p > {RULED:g}: few weights will carry the estimate"
        return Capability(algorithm=name, usable=bool((likelihood < 1).any()), why=why)
    return Capability(algorithm=name, usable=True, why="rows carry the behaviour's log-probability")


def _regimes(episodes: Episodes) -> dict[str, float] | None:
    if "regime_label" not in episodes.extras:
        return None
    counts = np.bincount(episodes.extras["regime_label"].astype(np.int64), minlength=len(REGIME_NAMES))
    return {name: float(count) / episodes.num_rows for name, count in zip(REGIME_NAMES, counts, strict=True)}


def _days(episodes: Episodes, manifest: DatasetManifest) -> dict[str, float] | None:
    if "date" not in episodes.extras:
        return None
    decided, period = len(np.unique(episodes.extras["date"])), int(manifest.period["days"])
    # Nothing is decided on the last close of the period: it only values.
    return {"decided": decided, "period": period, "share": decided / max(period - 1, 1)}


def _observations(episodes: Episodes, names: Sequence[str]) -> dict[str, Any]:
    low, high = episodes.obs.min(0), episodes.obs.max(0)
    constant = [name for name, still in zip(names, low == high, strict=True) if still]
    widest = int(np.maximum(abs(low), abs(high)).argmax())
    return {
        "entries": len(names),
        "constant": constant,
        "largest": names[widest],
        "largest_value": float(max(abs(low[widest]), abs(high[widest]))),
    }
