"""Rows of history drawn anew in blocks."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def block_bootstrap(gross: Array, bars: int, block_bars: int, rng: np.random.Generator, rows: Array | None = None) -> Array:
    """Whole rows (bars, N) in blocks of geometric length, so that assets keep together and volatility keeps clustering.

    Args:
        gross: (T, N).
        block_bars: mean length of a block.
        rows: that may be drawn; a block goes on to the next of them. All if not given.
    """
    return gross[block_rows(np.arange(len(gross)) if rows is None else rows, bars, block_bars, rng)]


def block_rows(rows: Array, bars: int, block_bars: int, rng: np.random.Generator) -> Array:
    """(bars,) of `rows` in blocks of geometric length, `block_bars` on average; a block goes on to the next of them.

    Source: Politis & Romano (1994), "The stationary bootstrap".
    """
    begins = rng.random(bars) < 1.0 / block_bars
    begins[0] = True
    start = rng.integers(0, len(rows), bars)
    since = np.arange(bars) - np.maximum.accumulate(np.where(begins, np.arange(bars), 0))
    return rows[(start[np.maximum.accumulate(np.where(begins, np.arange(bars), 0))] + since) % len(rows)]


def matched_block_rows(labels: Array, paths: int, bars: int, block_bars: int, rng: np.random.Generator) -> Array:
    """(paths, bars) row numbers in blocks of geometric length; a new block goes on from a row of the same label.

    Where the last row drawn is t, the next is t + 1 or, with probability 1 / block_bars, s + 1 for a row s drawn among those
    with label_s = label_t. Moves between labels are those of history, and so is how long a label lasts; a plain bootstrap
    forgets it after one block. The last row of history always begins a new block.
    Source: Carlstein, Do, Hall, Hesterberg & Künsch (1998), "Matched-block bootstrap for dependent data".

    Args:
        labels: (T,) int, ≥ 0, known at each row.
    """
    before_last = labels[:-1]  # rows that have a successor
    pools = [np.flatnonzero(before_last == label) for label in range(labels.max() + 1)]
    everywhere = np.arange(len(before_last))
    pools = [pool if len(pool) else everywhere for pool in pools]
    sizes = np.array([len(pool) for pool in pools])
    table = np.zeros((len(pools), sizes.max()), int)
    for label, pool in enumerate(pools):
        table[label, : len(pool)] = pool
    rows = np.empty((paths, bars), int)
    rows[:, 0] = rng.integers(0, len(labels), paths)
    jumps, places = rng.random((bars, paths)) < 1.0 / block_bars, rng.random((bars, paths))
    for bar in range(1, bars):
        row = rows[:, bar - 1]
        label = labels[row]
        other = table[label, (places[bar] * sizes[label]).astype(int)]
        rows[:, bar] = np.where(jumps[bar] | (row == len(labels) - 1), other, row) + 1
    return rows
