"""Why a policy decided as it did: Shapley values of groups of observation columns for its target weights.

What is explained is the whole way from observations to weights. Of a coalition of groups, the policy sees the real values
of the groups in it and a baseline (the mean of training) in place of all others, at every bar from the first on, so that
its recurrent state has not seen them either. What the account holds is that of the path as it was: the question is "what
would you have chosen here", not "where would you have ended". Weights are those asked for within the caps, before guards.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import ledger
from envs.accounts import TradingTask
from envs.errors import ConfigError, ShapeError
from envs.observation import ACCOUNT_COLUMNS
from envs.trading_env import TradingEnv
from rlplatform.evaluation.backtest import Policy, gross_caps
from rlplatform.evaluation.scoretable import percent
from rlplatform.features.context.schema import entry_of
from rlplatform.features.technical import ASSET_FEATURES, MARKET_FEATURES

Array = np.ndarray
OWN_WEIGHTS, OWN_RESULT, FORECASTS, OTHER = "own weights", "own result", "forecasts", "other"
# Families of columns that environments build themselves; all others stand in the catalogue of features.
_FAMILIES = {
    "relative_price": "returns",
    "return": "returns",
    "ma_distance": "trend",
    "spread": "cross_section",
    "spread_bps": "market",
    "vix": "market",
    "vix_change": "market",
    "vix_zscore": "market",
    "market_ma_distance": "market",
} | {entry.name: entry.group for entry in (*ASSET_FEATURES, *MARKET_FEATURES)}


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """How exactly.

    Attributes:
        exact_groups: up to so many groups every coalition is asked (2^G); of more, permutations are drawn.
        permutations: drawn, in pairs of one and its reverse; two halves of the pairs tell how far they can be trusted.
        seed: of the draw.
    """

    exact_groups: int = 8
    permutations: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.permutations < 4 or self.permutations % 4:
            raise ConfigError(f"explain.permutations = {self.permutations}; expected a multiple of 4: two halves of pairs.")
        if not 1 <= self.exact_groups <= 12:
            raise ConfigError(f"explain.exact_groups = {self.exact_groups}; expected 1 to 12 (2^12 coalitions).")


@dataclass(frozen=True, eq=False)
class Coalitions:
    """Which groups are seen together, and how their values make Shapley values.

    Attributes:
        masks: (C, G) bool; the first row sees nothing, the last everything.
        weights: (2, G, C): value of coalition → Shapley value, from each half of the permutations; both the same where
            every coalition is asked.
        exact: whether every coalition is.
    """

    masks: Array
    weights: Array
    exact: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What each group of columns did to the target weights, bar by bar.

    Attributes:
        groups: G names.
        columns: group → number of columns of the observation.
        symbols: N names.
        dates: (S,) of the decisions.
        effects: (S, G, N) Shapley values [fraction of wealth]; Σ over groups = weights − base.
        base: (S, N) weights asked for by the policy that sees the baseline only.
        weights: (S, N) weights it asks for when it sees all.
        coalitions: asked.
        exact: whether those were all there are.
        sampling_error: root mean square standard error of `mean_effects`, from two halves of the draw; 0 if exact.
        baseline: where the baseline is from, in words.
    """

    groups: tuple[str, ...]
    columns: Mapping[str, int]
    symbols: tuple[str, ...]
    dates: Array
    effects: Array
    base: Array
    weights: Array
    coalitions: int
    exact: bool
    sampling_error: float
    baseline: str

    @property
    def sizes(self) -> Array:
        """(G,) meanₜ Σₙ |effect|: how much of wealth a group moves at a bar, on average."""
        return np.abs(self.effects).sum(2).mean(0)

    @property
    def mean_effects(self) -> Array:
        """(G, N) mean over the bars, with sign: whether a group raised or lowered the weight of an asset."""
        return self.effects.mean(0)

    @property
    def order(self) -> list[int]:
        """Groups by size, largest first."""
        return [int(i) for i in np.argsort(-self.sizes, kind="stable")]

    def rows(self, most: int = 6) -> list[dict[str, str]]:
        """For print: one row a group; mean effect with its sign for each of the `most` assets that are moved most."""
        sizes, total = self.sizes, float(self.sizes.sum())
        assets = np.argsort(-np.abs(self.effects).sum((0, 1)), kind="stable")[:most]
        return [
            {
                "group": self.groups[g],
                "columns": str(self.columns[self.groups[g]]),
                "mean |effect|": percent(float(sizes[g]), 2),
                "share": percent(float(sizes[g] / total), 0) if total > 0 else "–",
            }
            | {self.symbols[n]: percent(float(self.mean_effects[g, n]), 2, sign=True) for n in assets}
            for g in self.order
        ]

    @property
    def sentence(self) -> str:
        """What matters most, and how it was found."""
        start, end = str(self.dates[0])[:10], str(self.dates[-1])[:10]
        ways = f"all {self.coalitions:,}" if self.exact else f"{self.coalitions:,} sampled"
        accuracy = "" if self.exact else f", standard error of a mean effect {percent(self.sampling_error, 3)}"
        total = float(self.sizes.sum())
        if total < 1e-9:
            return f"{start} to {end}: nothing that it sees moves its weights ({ways} coalitions{accuracy})."
        first = self.order[0]
        return (
            f"{start} to {end}: {self.groups[first]} moves its weights most, {percent(float(self.sizes[first] / total), 0)} of "
            f"all effects ({ways} coalitions{accuracy}; baseline: {self.baseline})."
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "baseline": self.baseline,
            "coalitions": self.coalitions,
            "exact": self.exact,
            "sampling_error": self.sampling_error,
            "base_weights": dict(zip(self.symbols, map(float, self.base.mean(0)), strict=True)),
            "mean_weights": dict(zip(self.symbols, map(float, self.weights.mean(0)), strict=True)),
            "groups": [
                {
                    "group": self.groups[g],
                    "columns": self.columns[self.groups[g]],
                    "size": float(self.sizes[g]),
                    "mean_effect": dict(zip(self.symbols, map(float, self.mean_effects[g]), strict=True)),
                    "mean_absolute_effect": dict(
                        zip(self.symbols, map(float, np.abs(self.effects[:, g]).mean(0)), strict=True)
                    ),
                }
                for g in self.order
            ],
        }


def feature_groups(task: TradingTask) -> dict[str, Array]:
    """Group → indices of its columns in the observation: the features' own groups, forecasts, and the account's state."""
    own = {name: OWN_WEIGHTS if "weight" in name else OWN_RESULT for name in (*ACCOUNT_COLUMNS, *task.account_names)}
    market, groups = set(task.market_names), dict[str, list[int]]()
    for index, name in enumerate(task.observation_names):
        group = _family(name) if name in market else own.get(name) or _family(name)
        groups.setdefault(group, []).append(index)
    return {name: np.array(indices) for name, indices in groups.items()}


def _family(column: str) -> str:
    """`SPY.volatility_21` → volatility. A symbol may hold points itself, a feature does not."""
    name = re.sub(r"_\d+$", "", column.rsplit(".", 1)[-1])
    if name.startswith("forecast"):
        return FORECASTS
    if name.startswith("regime_"):
        return "market"
    around = entry_of(name)
    return _FAMILIES.get(name) or (OTHER if around is None else around.group)


def coalitions(groups: int, config: ExplainConfig | None = None) -> Coalitions:
    """All 2^G of them with Shapley's own weights, or those that drawn permutations pass through.

        φ_g = Σ_S |S|! (G − |S| − 1)! / G! · (v(S ∪ g) − v(S)) = E over permutations of what g adds to those before it

    For each single permutation the φ sum to v(all) − v(none) exactly, so they do for any number of them. A permutation
    and its reverse together cancel part of the noise.
    Source: Shapley (1953); Castro, Gómez and Tejada (2009) for sampling; Mitchell et al. (2022) for antithetic pairs.
    """
    config = config or ExplainConfig()
    if groups <= config.exact_groups:
        return _every_coalition(groups)
    rng = np.random.default_rng(config.seed)
    drawn = [rng.permutation(groups) for _ in range(config.permutations // 2)]
    index: dict[tuple[bool, ...], int] = {(False,) * groups: 0}
    chains = [[_passed(order, index) for order in (each, each[::-1])] for each in drawn]
    masks = np.array(list(index))
    order = np.argsort(masks.sum(1), kind="stable")  # nothing first, everything last
    place = np.argsort(order)
    weights, share = np.zeros((2, groups, len(masks))), 2.0 / config.permutations
    for number, (each, pair) in enumerate(zip(drawn, chains, strict=True)):
        for permutation, chain in zip((each, each[::-1]), pair, strict=True):
            np.add.at(weights[number % 2], (permutation, place[chain[1:]]), share)
            np.add.at(weights[number % 2], (permutation, place[chain[:-1]]), -share)
    return Coalitions(masks[order], weights, exact=False)


def _every_coalition(groups: int) -> Coalitions:
    masks = np.array(sorted(itertools.product((False, True), repeat=groups), key=sum))
    sizes = masks.sum(1)
    share = np.array([math.factorial(s) * math.factorial(groups - s - 1) / math.factorial(groups) for s in range(groups)])
    joins, stays = share[np.maximum(sizes - 1, 0)], -share[np.minimum(sizes, groups - 1)]
    weights = np.where(masks.T, joins, stays)
    return Coalitions(masks, np.stack([weights, weights]), exact=True)


def _passed(permutation: Array, index: dict[tuple[bool, ...], int]) -> list[int]:
    """Numbers of the coalitions that a permutation passes through, new ones added to `index`."""
    seen = [False] * len(permutation)
    chain = [0]
    for group in permutation:
        seen[group] = True
        chain.append(index.setdefault(tuple(seen), len(index)))
    return chain


def explain(
    env: TradingEnv,
    policy: Policy,
    groups: Mapping[str, Array],
    baseline: Array,
    config: ExplainConfig | None = None,
    origin: str = "mean of training",
) -> Explanation:
    """Let the policy trade the environment's period and ask every coalition at each bar what it would have chosen.

    Args:
        env: one account, as for `run_policy`.
        groups: name → columns, each column in one group, see `feature_groups`.
        baseline: (D,) observation that stands for "not seen", in the environment's units.
        origin: where the baseline is from, for print.

    Raises:
        ShapeError: baseline or groups do not cover the observation.
    """
    task, names = env.unwrapped.task, tuple(groups)
    design, member = coalitions(len(names), config), _membership(groups, len(task.observation_names), baseline)
    keep = design.masks @ member > 0
    obs, info = env.reset()
    own, asked = policy.initial_state(1), policy.initial_state(len(keep))
    dates, effects, base, weights, ended = [], [], [], [], False
    limits = gross_caps(task.tape, task.config.caps)
    while not ended:
        seen = np.where(keep, obs[None], baseline).astype(np.float32)
        actions, asked, _ = policy.act(seen, asked, True)
        wanted = _feasible(task, env.unwrapped.accounts, actions, limits)
        dates.append(info["date"])
        effects.append(design.weights @ wanted)
        base.append(wanted[0])
        weights.append(wanted[-1])
        action, own, _ = policy.act(np.asarray(obs)[None], own, True)
        obs, _, terminated, truncated, info = env.step(np.asarray(action)[0])
        ended = terminated or truncated
    halves = np.array(effects)
    apart = halves.mean(0)[0] - halves.mean(0)[1]
    return Explanation(
        groups=names,
        columns={name: len(columns) for name, columns in groups.items()},
        symbols=task.tape.symbols,
        dates=np.array(dates, dtype="datetime64[ns]"),
        effects=halves.mean(1),
        base=np.array(base),
        weights=np.array(weights),
        coalitions=len(keep),
        exact=design.exact,
        sampling_error=float(np.sqrt((apart**2).mean()) / 2.0),
        baseline=origin,
    )


def _feasible(task: TradingTask, accounts: Any, actions: Array, limits: Array) -> Array:
    """(C, N) what C answers to one account's observation ask for, within the caps of its row."""
    row = int(accounts.row[0])
    return ledger.project(task.target_weights(actions, accounts), task.config.caps, np.full(len(actions), limits[row]))


def _membership(groups: Mapping[str, Array], size: int, baseline: Array) -> Array:
    """(G, D) of 0 and 1."""
    if np.shape(baseline) != (size,):
        raise ShapeError(f"baseline has shape {np.shape(baseline)}; expected ({size},), one value for each observation.")
    member = np.zeros((len(groups), size))
    for row, columns in enumerate(groups.values()):
        member[row, columns] = 1.0
    if not (member.sum(0) == 1).all():
        column = int(np.argmax(member.sum(0) != 1))
        raise ShapeError(f"observation {column} is in {int(member.sum(0)[column])} groups; expected exactly one.")
    return member
