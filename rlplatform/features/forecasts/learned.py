"""What the learned forecasters share: contexts, devolatilised returns, batches, and the days they may not speak about."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.features.forecasts.config import ChronosConfig, TotoConfig
from rlplatform.features.forecasts.forecast import (
    LEVELS,
    Draws,
    Forecast,
    check_returns,
    no_reasons,
    quantiles_of_paths,
    quantiles_of_steps,
    values_at,
)
from rlplatform.features.forecasts.historical import rescaled
from rlplatform.features.forecasts.volatility import WARM_UP, devolatilised, floored_volatility
from rlplatform.files import directory_sha256

Array = np.ndarray

SIDECAR = "forecaster.json"  # beside the weights: how they want to be fed, and how far they have read


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedBackend:
    """A pretrained model, fed one window of each (symbol, day). Subclasses say how it is loaded and asked.

    With "devol" the model sees z_t = r_t / σ_{t−1} and answers in z; a step's return is σ z, the EWMA variance following each
    drawn path. Steps are drawn independently of each other.
    """

    horizons: tuple[int, ...]
    draws: Draws
    config: ChronosConfig | TotoConfig
    decay: float = 0.94
    name: str
    package: str
    cure: str

    def absence(self) -> str:
        """Why it cannot be had here, or ""."""
        if self.config.path is None:
            return "absent (no path given)"
        return "" if importlib.util.find_spec(self.package) else "absent (not installed)"

    def check(self) -> None:
        """Raises ConfigError: there is no such model here, or it has not learnt to look so far ahead."""
        key = f"features.forecasts.{self.name}"
        if self.config.path is None:
            raise ConfigError(f"{key}.path is missing; expected the folder of a model. `rlplatform forecast train` makes one.")
        if not importlib.util.find_spec(self.package):
            raise ConfigError(f"{key} needs the package {self.package!r}, which is not installed. {self.cure}")
        learnt = self.sidecar.get("training", {}).get("horizon", self.draws.steps)
        if self.draws.steps > learnt:
            raise ConfigError(
                f"features.forecasts.horizons reach {self.draws.steps} bars; {self.config.path} has learnt {learnt}. Choose "
                f"nearer ones, or train with forecast.train.horizon={self.draws.steps}."
            )

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """What the model's folder says of it; empty for a model from elsewhere."""
        file = Path(self.config.path or "") / SIDECAR
        return json.loads(file.read_text(encoding="utf-8")) if self.config.path and file.is_file() else {}

    @property
    def context(self) -> int:
        """Past bars it reads: those it was trained with, where its folder says so."""
        return self.sidecar.get("training", {}).get("context", self.config.context)

    @property
    def transform(self) -> str:
        return self.sidecar.get("transform", self.config.transform)

    @property
    def train_end(self) -> str | None:
        """Last day it learnt from, where that is known; the later of the folder's and the config's."""
        return max(filter(None, (self.sidecar.get("train_end"), self.config.train_end)), default=None)

    @cached_property
    def weights_sha256(self) -> str:
        """Of the model's files; of one from the hub, of its id (give a revision in the id's place by a local folder)."""
        folder = Path(self.config.path)
        return directory_sha256(folder) if folder.is_dir() else hashlib.sha256(str(self.config.path).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, Any]:
        self.check()
        context = {"context": self.context, "min_history": self.config.min_history}
        draws = {"paths": self.draws.paths, "steps": self.draws.steps, "seed": self.draws.seed}
        learned = {"weights": self.weights_sha256, "transform": self.transform, "train_end": self.train_end}
        return {"backend": self.name, "version": 1, "decay": self.decay, "draws": draws, **context, **learned}

    def predict(self, contexts: Array) -> Array:
        """(B, L) float32 windows, NaN before a short history → (B, h, K) quantiles of the next h values at `LEVELS`."""
        raise NotImplementedError

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        check_returns(dates, log_returns)
        self.check()
        sigma = floored_volatility(log_returns, self.decay)
        x = devolatilised(log_returns, sigma) if self.transform == "devol" else log_returns
        first = WARM_UP if self.transform == "devol" else 1
        reasons = self._reasons(dates, rows, log_returns.shape[1], first)
        quantiles = np.full((*reasons.shape, len(self.horizons), len(LEVELS)), np.nan)
        cells = np.argwhere(reasons == "")
        for at in range(0, len(cells), self.config.batch_size):
            batch = cells[at : at + self.config.batch_size]
            windows = np.stack([_window(x[:, column], rows[i], first, self.context) for i, column in batch])
            steps = np.sort(self.predict(windows.astype(np.float32)).astype(np.float64), axis=-1)
            variance = np.array([sigma[rows[i], column] ** 2 for i, column in batch])
            quantiles[batch[:, 0], batch[:, 1]] = self._over_horizons(steps, variance)
        return Forecast.by(self.name, self.horizons, quantiles, reasons)

    def _reasons(self, dates: Array, rows: Array, symbols: int, first: int) -> Array:
        reasons = no_reasons(rows, symbols)
        learnt = None if self.train_end is None else np.datetime64(self.train_end, "D")
        for i, t in enumerate(rows):
            if t - first + 1 < self.config.min_history:
                reasons[i] = f"history of {max(0, t - first + 1)} bars < {self.config.min_history}"
            elif learnt is not None and dates[t].astype("datetime64[D]") < learnt:
                reasons[i] = f"has learnt from days up to {learnt}"
        return reasons

    def _over_horizons(self, steps: Array, variance: Array) -> Array:
        """(B, h, K) quantiles of single bars → (B, H, K) of log returns over the horizons."""
        if self.transform == "none":
            return quantiles_of_steps(steps, self.draws, self.horizons)
        z = np.stack([values_at(steps[:, j], self.draws.uniforms[:, j]) for j in range(steps.shape[1])], axis=-1)
        quantiles = quantiles_of_paths(rescaled(z, variance, self.decay), self.horizons)
        quantiles[:, 0] = np.sqrt(variance)[:, None] * steps[:, 0]  # one bar needs no draws
        return quantiles


def _window(x: Array, t: int, first: int, context: int) -> Array:
    """(L,) the last `context` values up to row t, NaN where history begins later."""
    window = np.full(context, np.nan)
    past = x[max(first, t - context + 1) : t + 1]
    window[context - len(past) :] = past
    return window


def regrid(quantiles: Array, levels: Array) -> Array:
    """(…, L) quantiles at `levels` → (…, K) at `LEVELS`: linear between, exponential beyond the outermost two on each side.

    Models clamp levels outside those they learnt, which cuts the tails off: Chronos-Bolt knows 10 % to 90 %.
    """
    levels, wanted = np.asarray(levels, np.float64), np.asarray(LEVELS)
    upper = np.clip(np.searchsorted(levels, wanted), 1, len(levels) - 1)
    share = np.clip((wanted - levels[upper - 1]) / (levels[upper] - levels[upper - 1]), 0, 1)
    low, high = quantiles[..., upper - 1], quantiles[..., upper]
    inside = low + share * (high - low)
    beta_low = (quantiles[..., 1] - quantiles[..., 0]) / np.log(levels[1] / levels[0])
    beta_high = (quantiles[..., -1] - quantiles[..., -2]) / np.log((1 - levels[-2]) / (1 - levels[-1]))
    below = beta_low[..., None] * np.log(np.minimum(wanted / levels[0], 1.0))
    above = -beta_high[..., None] * np.log(np.minimum((1 - wanted) / (1 - levels[-1]), 1.0))
    return inside + below + above
