"""Which two stocks to trade against each other: neighbours in a list, close in a tree of correlations, or cointegrated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from arch.unitroot.cointegration import engle_granger
from scipy.cluster.hierarchy import average
from scipy.spatial.distance import squareform

from envs.errors import ConfigError, MarketDataError

Array = np.ndarray

METHODS = ("adjacent", "clustering", "cointegration")
FEWEST_ROWS = 250  # of training prices, for a correlation or a unit-root test


@dataclass(frozen=True, kw_only=True)
class ChosenPair:
    """Two stocks, and what spoke for them.

    Attributes:
        symbols: the two, in the order of the list they were chosen from.
        method: "adjacent", "clustering", "cointegration", or "given".
        correlation: of daily log returns on the rows that chose; None where nothing was measured.
        p_value: of the Engle-Granger test, the smaller of both directions; None unless that chose.
        p_adjusted: the same, times the number of tests that were made (Bonferroni), at most 1.
    """

    symbols: tuple[str, str]
    method: str
    correlation: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None

    @property
    def name(self) -> str:
        return "-".join(self.symbols)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"symbols": list(self.symbols)}


def choose_pairs(method: str, count: int, symbols: Sequence[str], close: Array) -> tuple[ChosenPair, ...]:
    """`count` pairs, the best first; one stock may be in several.

    - adjacent: each with the next in the list.
    - clustering: average linkage over the distance √(2 (1 − ρ)) of log returns; each merge of the tree, the closest first,
      gives the closest pair across its two sides (Mantegna 1999).
    - cointegration: the smallest p value of the test of Engle and Granger (1987) on log prices, each of the two explained by
      the other in turn. Many tests are made, so small ones come by luck: see `p_adjusted`.

    Args:
        close: (T, N) prices of the rows that may choose.

    Raises:
        ConfigError: fewer than two symbols, or more pairs than there are.
        MarketDataError: too few rows to measure anything.
    """
    symbols = tuple(symbols)
    most = len(symbols) - 1 if method != "cointegration" else len(symbols) * (len(symbols) - 1) // 2
    if len(symbols) < 2:
        raise ConfigError(
            f"pipeline: {len(symbols)} symbols ({', '.join(symbols)}); a pair needs two. Name more in data.symbols."
        )
    if not 1 <= count <= most:
        raise ConfigError(f"pipeline.pairs.count = {count}; {len(symbols)} symbols have 1 to {most} pairs by {method}.")
    if method != "adjacent" and len(close) < FEWEST_ROWS:
        raise MarketDataError(
            f"pipeline.pairs.choose = {method}: {len(close)} training rows; expected at least {FEWEST_ROWS}. Train on more, or "
            "take adjacent pairs."
        )
    correlations = np.corrcoef(np.diff(np.log(close), axis=0), rowvar=False) if len(close) > 2 else None
    found = {"adjacent": _adjacent, "clustering": _closest, "cointegration": _cointegrated}[method](correlations, close)
    pairs = []
    for (i, j), p_value, tests in found[:count]:
        rho = None if correlations is None else round(float(correlations[i, j]), 4)
        adjusted = None if p_value is None else min(1.0, p_value * tests)
        pairs.append(
            ChosenPair(symbols=(symbols[i], symbols[j]), method=method, correlation=rho, p_value=p_value, p_adjusted=adjusted)
        )
    return tuple(pairs)


Found = list[tuple[tuple[int, int], float | None, int]]


def _adjacent(correlations: Array | None, close: Array) -> Found:
    return [((i, i + 1), None, 0) for i in range(close.shape[1] - 1)]


def _closest(correlations: Array, close: Array) -> Found:
    """One pair a merge, the closest merge first."""
    n = len(correlations)
    distance = np.sqrt(np.clip(2 * (1 - correlations), 0, None))
    np.fill_diagonal(distance, 0.0)
    members, found = {i: [i] for i in range(n)}, []
    for number, (one, other, _, _) in enumerate(average(squareform(distance, checks=False))):
        left, right = members[int(one)], members[int(other)]
        nearest = min(itertools.product(left, right), key=lambda pair: distance[pair])
        found.append((tuple(sorted(nearest)), None, 0))
        members[n + number] = left + right
    return found


def _cointegrated(correlations: Array, close: Array) -> Found:
    logs, pairs = np.log(close), list(itertools.combinations(range(close.shape[1]), 2))
    tests = 2 * len(pairs)
    p_values = {
        (i, j): min(float(engle_granger(logs[:, a], logs[:, [b]]).pvalue) for a, b in ((i, j), (j, i))) for i, j in pairs
    }
    return [(pair, p_values[pair], tests) for pair in sorted(pairs, key=lambda pair: p_values[pair])]
