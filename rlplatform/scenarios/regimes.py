"""The market's regimes over history, and the Markov chain that goes from one to the next."""

from __future__ import annotations

import numpy as np

from envs.indicators import REGIME_NAMES, volatility_regime

Array = np.ndarray

COUNT = len(REGIME_NAMES)


def regime_labels(gross: Array) -> Array:
    """(T,) 0 calm, 1 choppy, 2 crisis, of the equal-weight market of (T, N)."""
    return volatility_regime(gross.mean(axis=1))


def transition_matrix(labels: Array) -> Array:
    """(S, S) probability of the next bar's regime (across) given this one's (down).

        P(j | i) = (moves i → j + 1[i ≠ j]·½ + 1[i = j]) / …

    The counts begin at ½ and 1, so that a regime that history never left, or never was in, can be left. Source: the
    posterior mean of a Markov chain under a Dirichlet prior.
    """
    counts = 0.5 + 0.5 * np.eye(COUNT)
    np.add.at(counts, (labels[:-1], labels[1:]), 1.0)
    return counts / counts.sum(axis=1, keepdims=True)


def simulate_regimes(transition: Array, first: Array, bars: int, uniforms: Array) -> Array:
    """(paths, bars) regimes; the first bar's comes after `first` (paths,).

    Args:
        uniforms: (bars, paths) in [0, 1).
    """
    steps, states = np.cumsum(transition, axis=1), np.empty((len(first), bars), int)
    now = first
    for bar in range(bars):
        now = np.minimum((uniforms[bar][:, None] >= steps[now]).sum(axis=1), COUNT - 1)
        states[:, bar] = now
    return states
