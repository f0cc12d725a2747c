"""Who is whose neighbour: edges between assets, fitted on training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from envs.errors import ConfigError

Array = np.ndarray
Edges = tuple[tuple[int, int, float], ...]  # (to, from, weight): the weights into a node have Σ|w| = 1

SURE_ENOUGH = 2.0  # standard errors: a smaller correlation is not told from none


def correlation_edges(returns: Array, neighbours: int) -> Edges:
    """Each asset's strongest correlations, signed, of the rows given. Weaker ones than 2/√T are no edges.

    Args:
        returns: (T, N), training rows only.
        neighbours: most edges into a node.
    """
    correlation = _correlation(returns)
    return _strongest(np.where(np.abs(correlation) >= SURE_ENOUGH / np.sqrt(len(returns)), correlation, 0.0), neighbours)


def partial_correlation_edges(returns: Array, neighbours: int, penalty: float) -> Edges:
    """Correlations that no third asset explains, −Θᵢⱼ / √(Θᵢᵢ Θⱼⱼ), from a sparse inverse covariance Θ.

    Source: Friedman, Hastie and Tibshirani (2008), Sparse inverse covariance estimation with the graphical lasso
    (scikit-learn's).

    Args:
        returns: (T, N), training rows only.
        neighbours: most edges into a node.
        penalty: L1 penalty on Θ of the correlation matrix.
    """
    from sklearn.covariance import graphical_lasso  # here: half a second that other graphs need not wait for

    try:
        # Coordinate descent goes through assets in their order: only at convergence does the order not show.
        exact = {"tol": 1e-7, "enet_tol": 1e-9, "max_iter": 1_000}
        _, precision = graphical_lasso(_correlation(returns), alpha=penalty, **exact)
    except FloatingPointError as error:
        raise ConfigError(
            f"model.penalty = {penalty}: the graphical lasso found no inverse covariance of {returns.shape[1]} assets "
            f"({error}). Raise model.penalty."
        ) from None
    scale = np.sqrt(np.diag(precision))
    return _strongest(-precision / np.outer(scale, scale), neighbours)


def sector_edges(symbols: Sequence[str], sectors: Mapping[str, Sequence[str]]) -> Edges:
    """Assets of one sector are each other's neighbours, all alike.

    Raises:
        ConfigError: a symbol that no sector names, or two.
    """
    home: dict[str, str] = {}
    for sector, members in sectors.items():
        for symbol in members:
            if home.setdefault(symbol, sector) != sector:
                raise ConfigError(f"model.sectors names {symbol} in {home[symbol]} and {sector}; expected in one sector.")
    missing = [symbol for symbol in symbols if symbol not in home]
    if missing:
        raise ConfigError(f"model.sectors names no sector of {missing[0]} ({len(missing)} such symbols). Add it to one.")
    of = [home[symbol] for symbol in symbols]
    same = np.array([[a == b for b in of] for a in of], dtype=float)
    return _strongest(same, len(of))


def edge_matrix(edges: Edges, num_assets: int) -> Tensor:
    """(N, N) float32, row i the weights into node i."""
    matrix = torch.zeros(num_assets, num_assets)
    for to, source, weight in edges:
        matrix[to, source] = weight
    return matrix


def _correlation(returns: Array) -> Array:
    """(N, N); an asset that never moves is correlated with nobody."""
    spread = returns.std(0)
    standard = (returns - returns.mean(0)) / np.where(spread > 0, spread, 1.0)
    correlation = standard.T @ standard / len(returns)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _strongest(weights: Array, neighbours: int) -> Edges:
    edges = []
    for to, row in enumerate(weights):
        size = np.abs(row)
        size[to] = 0.0
        chosen = [int(j) for j in np.argsort(-size, kind="stable")[:neighbours] if size[j] > 0]
        total = size[chosen].sum()
        edges += [(to, j, float(row[j] / total)) for j in sorted(chosen)]
    return tuple(edges)
