"""Where episodes may begin: inside one segment of the tape, as often as its rows weigh."""

from __future__ import annotations

import numpy as np

from envs.errors import ConfigError
from envs.tape import MarketTape

MOST = 1 << 20  # entries of a table of weighted rows


def start_rows(tape: MarketTape, window: tuple[int, int], length: int) -> np.ndarray:
    """Rows (K,) at which an episode of `length` decisions may begin: one of them drawn evenly begins as often as it should.

    It ends inside the segment that it begins in. Where `start_weight` differs, rows stand there in its proportion, to 1/K.

    Raises:
        ConfigError: no segment is long enough, or all such rows have weight 0.
    """
    rows = np.arange(window[0], window[1] - length + 1)
    rows = rows[tape.segment[rows] == tape.segment[rows + length]]
    weight = tape.start_weight[rows]
    if not weight.any():
        raise ConfigError(
            f"episode.length_bars = {length}: no segment of the tape has {length + 1} rows to begin and end in. Shorten the "
            "episode or lengthen the segments."
        )
    if (weight == weight[0]).all():
        return rows
    shares = np.cumsum(weight) / weight.sum()
    count = min(max(8 * len(rows), 1024), MOST)
    return rows[np.minimum(np.searchsorted(shares, (np.arange(count) + 0.5) / count), len(rows) - 1)]
