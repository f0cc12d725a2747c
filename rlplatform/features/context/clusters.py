"""Clusters: assets that have moved together, drawn anew every few bars from past returns only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class Clusters:
    """Whose cluster each asset is in, at each bar.

    Attributes:
        labels: (T, N) whole numbers from 0; a cluster keeps its number from one clustering to the next as far as its
            members stay. Before the first clustering all are in cluster 0.
        correlation: (T, N) mean correlation with the others of one's cluster when it was drawn; 0 alone, and before.
        change: (T,) share of the assets whose label changed when clusters were last drawn; 0 at the first.
    """

    labels: Array
    correlation: Array
    change: Array

    def mean(self, x: Array) -> Array:
        """(T, N) values → (T, N) mean over each asset's cluster, itself included."""
        result = np.empty_like(x)
        for rows, member in self._stretches():
            result[rows] = (x[rows] @ member / member.sum(0)) @ member.T
        return result

    @property
    def share(self) -> Array:
        """(T, N) members of each asset's cluster over all assets."""
        share = np.empty(self.labels.shape)
        for rows, member in self._stretches():
            share[rows] = member @ member.mean(0)
        return share

    def _stretches(self) -> Iterator[tuple[slice, Array]]:
        """Rows over which the clusters stay, and who is in which: (N, K) of 0 and 1, no column empty."""
        moved = (self.labels[1:] != self.labels[:-1]).any(1)
        edges = [0, *(np.flatnonzero(moved) + 1), len(self.labels)]
        for first, end in itertools.pairwise(edges):
            yield slice(first, end), (self.labels[first][:, None] == np.unique(self.labels[first])).astype(np.float64)


def rolling_clusters(log_returns: Array, clusters: int, window: int, refit_bars: int) -> Clusters:
    """Average-linkage clusters by correlation of the last `window` bars, drawn at row window, then every `refit_bars`.

        d_ij = √((1 − ρ_ij) / 2)

    Source: Mantegna (1999), "Hierarchical structure in financial markets", for the distance.

    Args:
        log_returns: (T, N); row 0 is no return.
        clusters: most clusters; never more than half the assets, rounded up, so that a cluster says something.

    Returns:
        Row t rests on rows ≤ t.
    """
    rows, assets = log_returns.shape
    labels, correlation, change = np.zeros((rows, assets), np.int64), np.zeros((rows, assets)), np.zeros(rows)
    most = min(clusters, (assets + 1) // 2)
    previous = None
    for t in range(window, rows, refit_bars):
        matrix = correlations(log_returns[t - window + 1 : t + 1])
        drawn = draw(matrix, most)
        if previous is not None:
            drawn = same_labels(previous, drawn)
            change[t:] = np.mean(drawn != previous)
        labels[t:], correlation[t:] = drawn, _inside(matrix, drawn)
        previous = drawn
    return Clusters(labels=labels, correlation=correlation, change=change)


def correlations(log_returns: Array) -> Array:
    """(N, N); 0 between assets of which one does not move, 1 with oneself."""
    centred = log_returns - log_returns.mean(0)
    spread = np.sqrt((centred**2).mean(0))
    moves = spread > 1e-12
    scores = np.where(moves, centred / np.where(moves, spread, 1.0), 0.0)
    matrix = np.clip(scores.T @ scores / len(scores), -1.0, 1.0)
    np.fill_diagonal(matrix, 1.0)
    return (matrix + matrix.T) / 2


def draw(matrix: Array, most: int) -> Array:
    """Labels (N,) from 0, in the order in which the clusters first appear; at most `most` of them."""
    if len(matrix) < 2 or most < 2:
        return np.zeros(len(matrix), np.int64)
    distance = np.sqrt((1.0 - matrix) / 2.0)
    np.fill_diagonal(distance, 0.0)
    found = fcluster(linkage(squareform(distance, checks=False), "average"), most, criterion="maxclust")
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def same_labels(previous: Array, drawn: Array) -> Array:
    """The new clusters under the old ones' numbers, so that as many assets as possible keep theirs.

    Source: Kuhn (1955), the assignment problem, on counts of common members.
    """
    size = int(max(previous.max(), drawn.max())) + 1
    common = np.zeros((size, size), np.int64)
    np.add.at(common, (drawn, previous), 1)
    new, old = linear_sum_assignment(-common)
    return old[np.argsort(new)][drawn]


def _inside(matrix: Array, labels: Array) -> Array:
    """(N,) mean correlation with the others under the same label; 0 alone."""
    others = (labels[:, None] == labels[None, :]) & ~np.eye(len(labels), dtype=bool)
    return (matrix * others).sum(1) / np.maximum(others.sum(1), 1)
