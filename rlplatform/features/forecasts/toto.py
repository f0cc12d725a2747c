"""Toto as a forecaster of returns (toto-ts, installed by hand)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rlplatform.features.forecasts.forecast import LEVELS
from rlplatform.features.forecasts.learned import LearnedBackend

Array = np.ndarray

SAMPLES = 256
BAR_SECONDS = 86_400


@dataclass(frozen=True, eq=False, kw_only=True)
class TotoBackend(LearnedBackend):
    """A Toto checkpoint. It samples; with torch's generator seeded for every batch the answer is the same at every call.

    Source: Cohen et al. (2025), "This Time is Different: An Observability Perspective on Time Series Foundation Models".
    """

    name: str = "toto"
    package: str = "toto"
    cure: str = "pip install --no-deps toto-ts, and see docs/FORECASTS.md: its pins do not suit this package's."

    @cached_property
    def forecaster(self) -> Any:
        from toto.inference.forecaster import TotoForecaster
        from toto.model.toto import Toto

        return TotoForecaster(Toto.load_from_checkpoint(str(self.config.path)).eval().model)

    def predict(self, contexts: Array) -> Array:
        import torch
        from toto.data.util.dataset import MaskedTimeseries

        series = torch.from_numpy(np.nan_to_num(contexts))[:, None]  # (B, 1 variate, L)
        inputs = MaskedTimeseries(
            series=series,
            padding_mask=torch.from_numpy(np.isfinite(contexts))[:, None],
            id_mask=torch.zeros_like(series),
            timestamp_seconds=torch.zeros_like(series),
            time_interval_seconds=torch.full((len(contexts), 1), BAR_SECONDS),
        )
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(self.draws.seed)
            answer = self.forecaster.forecast(
                inputs, prediction_length=self.draws.steps, num_samples=SAMPLES, samples_per_batch=SAMPLES
            )
        samples = answer.samples[:, 0].float().numpy()  # (B, h, samples)
        return np.moveaxis(np.quantile(samples, LEVELS, axis=-1, method="hazen"), 0, -1)
