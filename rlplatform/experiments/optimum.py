"""What could have been had: the known optimum of a planted market, on the rows that a policy was judged on."""

from __future__ import annotations

from typing import Any

from envs.tape import MarketTape
from rlplatform.data import SyntheticConfig, make_market
from rlplatform.experiments.config import ExperimentConfig

LEAST_GROWTH = 1e-6  # [per bar]; a market that allows less has nothing to learn, and a share of it would mean nothing


def optimal_log_growth(config: ExperimentConfig, tape: MarketTape, start: Any, end: Any) -> float | None:
    """Log growth of the known optimum over [start, end], Σ log(1 + w*_t · r_{t+1}), realised on the very prices of the tape.

    The optimum decides at each close from the law and the rows up to it, and pays nothing; where a policy pays costs it is a
    bound that cannot be reached. See `SyntheticMarket.optimal_weights`.

    Returns:
        None for real prices, and for a market without anything to learn.
    """
    if not isinstance(config.data, SyntheticConfig):
        return None
    first, last = tape.row_range(str(start), str(end))
    growth = float(make_market(config.data).realised_log_growth()[first:last].sum())
    return growth if growth > LEAST_GROWTH * (last - first) else None
