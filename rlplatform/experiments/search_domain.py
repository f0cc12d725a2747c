"""Domain: the values that a sweep may give one setting, and how they are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ray import tune

from envs.errors import ConfigError

GOLDEN = (math.sqrt(5) - 1) / 2  # a point inside a range that is no whole number when its ends are


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Values of one parameter; exactly one of the fields is given.

    Attributes:
        grid: every value is run.
        choice: one value is drawn.
        uniform: [lo, hi]; drawn evenly between them.
        loguniform: [lo, hi] > 0; its logarithm is drawn evenly.
        quniform: [lo, hi, q]; one of lo, lo + q, lo + 2 q … ≤ hi. Whole numbers stay whole.
    """

    grid: tuple[Any, ...] | None = None
    choice: tuple[Any, ...] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    quniform: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ConfigError(f"gives {found}; expected one of {', '.join(f.name for f in fields(self))}.")
        if self.values is not None:
            self._check_values()
        else:
            self._check_range()

    @property
    def kind(self) -> str:
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def values(self) -> tuple[Any, ...] | None:
        """The list of a grid or a choice; None for a range."""
        return self.choice if self.grid is None else self.grid

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of a range; the last step of a quniform may lie below its `hi`."""
        low, high, *step = getattr(self, self.kind)
        return (low, low + step[0] * math.floor((high - low) / step[0] + 1e-9)) if step else (low, high)

    def _check_values(self) -> None:
        if not self.values:
            raise ConfigError(f"{self.kind} is empty. Give at least one value.")
        for index, value in enumerate(self.values):
            if any(_same(value, earlier) for earlier in self.values[:index]):
                raise ConfigError(f"{self.kind} holds {value!r} twice. Keep one.")

    def _check_range(self) -> None:
        low, high, *step = limits = getattr(self, self.kind)
        if not all(map(math.isfinite, limits)) or not low < high:
            raise ConfigError(f"{self.kind} = {list(limits)} is an empty range; expected lo < hi, both finite.")
        if self.loguniform is not None and low <= 0:
            raise ConfigError(f"loguniform = {list(limits)}; a logarithm needs lo > 0. Use uniform, or raise lo.")
        if step and not 0 < step[0] <= (high - low) * (1 + 1e-9):  # 2.01 − 1 is a little less than 1.01
            raise ConfigError(f"quniform = {list(limits)}; expected a step q with 0 < q ≤ hi − lo.")

    def probes(self) -> tuple[Any, ...]:
        """What a config must accept before anything starts: every value; of a range both ends and a point between."""
        if self.values is not None:
            return self.values
        low, high = self.bounds
        return tuple(self.snapped(value) for value in (low, high, low + GOLDEN * (high - low)))

    def sample(self, rng: np.random.Generator) -> Any:
        """One value of a choice or a range."""
        if self.choice is not None:
            return self.choice[int(rng.integers(len(self.choice)))]
        low, high = self.bounds
        if self.loguniform is not None:
            return self.snapped(math.exp(rng.uniform(math.log(low), math.log(high))))
        if self.quniform is not None:
            step = self.quniform[2]
            return self.snapped(low + step * int(rng.integers(round((high - low) / step) + 1)))
        return self.snapped(float(rng.uniform(low, high)))

    def snapped(self, value: float) -> float | int:
        """The value of a range nearest to `value`."""
        low, high = self.bounds
        value = min(max(float(value), low), high)
        if self.quniform is None:
            return value
        step = self.quniform[2]
        value = low + step * round((value - low) / step)
        whole = float(low).is_integer() and float(step).is_integer()
        return round(value) if whole else float(f"{value:.12g}")

    def to_tune(self) -> Any:
        """For Tune's searchers. Of a choice they see the index alone: its values may be lists or sections."""
        if self.choice is not None:
            return tune.choice(range(len(self.choice)))
        return getattr(tune, self.kind)(*getattr(self, self.kind))

    def decoded(self, found: Any) -> Any:
        """The value that `found`, drawn from `to_tune()`, stands for."""
        return self.choice[int(found)] if self.choice is not None else self.snapped(found)


def _same(one: Any, other: Any) -> bool:
    """1 and 1.0 are the same setting, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
