"""Pieces: logged episodes cut short, so that the ratios of two policies multiply over few decisions only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators_target import TargetActions

Array = np.ndarray


def horizon_of(gamma: float) -> int:
    """Decisions after which a reward counts e⁻² = 14 % or less of one now: 2 / (1 − γ), rounded up; without end for γ = 1."""
    return 2**31 if gamma >= 1 else max(1, math.ceil(2.0 / (1.0 - gamma) - 1e-9))


def in_pieces(episodes: Episodes, target: TargetActions, horizon: int) -> tuple[Episodes, TargetActions]:
    """Episodes of at most `horizon` decisions, each of which starts where the behaviour stood, and the target's law along them.

    The pieces of an episode differ in length by at most one. A piece that ends inside its episode is truncated, and its last
    observation is the next one that was logged. A target with memory has read the whole past of its episode.

    Args:
        target: of the whole episodes.
    """
    counts = -(-episodes.lengths // horizon)
    number = np.repeat(np.arange(len(episodes)), counts)
    place = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
    share, rest = np.divmod(episodes.lengths, counts)
    lengths = share[number] + (place < rest[number])
    closes = place == counts[number] - 1
    ends = np.cumsum(lengths)  # the row after a piece's last
    following = np.where(closes, episodes.num_rows + number, ends)
    pieces = replace(
        episodes,
        lengths=lengths,
        last_obs=np.where(closes[:, None], episodes.last_obs[number], episodes.obs[np.minimum(ends, episodes.num_rows - 1)]),
        terminated=closes & episodes.terminated[number],
    )
    places = np.concatenate([np.arange(episodes.num_rows), following])
    laws = {name: None if (law := getattr(target, name)) is None else law[places] for name in ("probs", "samples")}
    return pieces, replace(target, **laws)
