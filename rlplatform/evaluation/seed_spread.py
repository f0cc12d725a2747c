"""SeedSpread: one setting trained with several seeds, as a distribution and never as its best seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import t as student

from rlplatform.evaluation.metrics import finite_or_none


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """A figure over seeds; NaN where there are too few.

    Attributes:
        seeds: that have the figure.
        median, mean: over them.
        deviation: sample standard deviation; NaN of one seed.
        lowest, highest: of them.
        mean_low, mean_high: 95 % interval of the mean over seeds, Student's t; says nothing about other market histories.
    """

    seeds: int
    median: float
    mean: float
    deviation: float
    lowest: float
    highest: float
    mean_low: float
    mean_high: float

    @classmethod
    def of(cls, values: Iterable[float | None], confidence: float = 0.95) -> SeedSpread:
        """From one value a seed; None and NaN are left out."""
        known = np.array([value for value in values if value is not None and math.isfinite(value)], dtype=np.float64)
        if not len(known):
            return cls(seeds=0, **dict.fromkeys(list(cls.__dataclass_fields__)[1:], math.nan))
        mean, deviation = float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan
        half = float(student.ppf(0.5 + confidence / 2, max(len(known) - 1, 1))) * deviation / math.sqrt(len(known))
        return cls(
            seeds=len(known),
            median=float(np.median(known)),
            mean=mean,
            deviation=deviation,
            lowest=float(known.min()),
            highest=float(known.max()),
            mean_low=mean - half,
            mean_high=mean + half,
        )

    def to_dict(self) -> dict:
        return {name: finite_or_none(value) for name, value in asdict(self).items()}
