"""Chronos-Bolt and Chronos-2 as forecasters of returns (chronos-forecasting, optional extra `forecast`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.features.forecasts.forecast import Forecast, ForecastBackend
from rlplatform.features.forecasts.learned import LearnedBackend, regrid

Array = np.ndarray

FIXED_NORM = "fixed"


@dataclass(frozen=True, eq=False, kw_only=True)
class ChronosBackend(LearnedBackend):
    """A Chronos model from a folder or the hub; which of the two kinds it is stands in its config.json.

    Every window is a task of its own: cross-learning over windows of different days would let later days speak.
    Source: Ansari et al. (2024, 2025).
    """

    name: str = "chronos"
    package: str = "chronos"
    cure: str = "pip install 'rlplatform[forecast]'"

    def of_symbol(self, symbol: str) -> ChronosBackend:
        """The model that speaks of this symbol: its own, or the one for all.

        Raises:
            ConfigError: there is neither.
        """
        if not self.config.paths:
            return self
        folder = self.config.paths.get(symbol, self.config.path)
        if folder is None:
            raise ConfigError(
                f"features.forecasts.chronos.paths has no model of {symbol}, and chronos.path none for the others. Give one: "
                "rlplatform forecast finetune."
            )
        return self._model_at(folder)

    def _model_at(self, folder: str) -> ChronosBackend:
        if folder not in self._models:
            self._models[folder] = replace(self, config=replace(self.config, path=folder, paths={}))
        return self._models[folder]

    @cached_property
    def _models(self) -> dict[str, ChronosBackend]:
        """Folder → its model, loaded once."""
        return {}

    @property
    def _folders(self) -> list[str]:
        return [*self.config.paths.values(), *([self.config.path] if self.config.path else [])]

    def absence(self) -> str:
        return self._model_at(self._folders[0]).absence() if self.config.paths else super().absence()

    def check(self) -> None:
        if not self.config.paths:
            super().check()
        for folder in self._folders if self.config.paths else ():
            self._model_at(folder).check()

    @property
    def identity(self) -> dict[str, Any]:
        if not self.config.paths:
            return super().identity
        models = {symbol: self._model_at(folder).identity for symbol, folder in sorted(self.config.paths.items())}
        others = self._model_at(self.config.path).identity if self.config.path else None
        return {"backend": self.name, "models": models, "others": others}

    def forecast(self, dates: Array, log_returns: Array, rows: Array) -> Forecast:
        if self.config.paths:
            raise ConfigError("features.forecasts.chronos.paths: models of single symbols are asked one by one, by of_symbol.")
        return super().forecast(dates, log_returns, rows)

    @cached_property
    def pipeline(self) -> Any:
        """The loaded model, in evaluation mode.

        Raises:
            ConfigError: neither a folder with a model nor an id that the hub gives.
        """
        self.check()
        return load_pipeline(str(self.config.path), self.sidecar.get("norm"))

    def predict(self, contexts: Array) -> Array:
        import torch

        bolt = type(self.pipeline).__name__ == "ChronosBoltPipeline"
        inputs = torch.from_numpy(contexts if bolt else contexts[:, None])
        levels = sorted(self.pipeline.quantiles)
        with torch.inference_mode():
            quantiles, _ = self.pipeline.predict_quantiles(
                inputs,
                prediction_length=self.draws.steps,
                quantile_levels=levels,
                **({} if bolt else {"batch_size": len(inputs)}),
            )
        answer = quantiles if bolt else torch.stack([one[0] for one in quantiles])
        return regrid(answer.float().numpy(), np.asarray(levels))


def of_symbol(backend: ForecastBackend, symbol: str) -> ForecastBackend:
    """The forecaster that speaks of a symbol, where a backend has one for each; else the backend itself."""
    return backend.of_symbol(symbol) if isinstance(backend, ChronosBackend) else backend


def load_pipeline(path: str, norm: str | None = None) -> Any:
    """`BaseChronosPipeline.from_pretrained`, in evaluation mode.

    Args:
        norm: "fixed" for a model that was trained without normalising each window; its windows come devolatilised.

    Raises:
        ConfigError: nothing that can be loaded.
    """
    from chronos import BaseChronosPipeline  # takes seconds to import

    try:
        with without_bars():
            pipeline = BaseChronosPipeline.from_pretrained(path, device_map="cpu")
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"features.forecasts.chronos.path = {path!r} holds no Chronos model: {first} Expected a folder that "
            "`rlplatform forecast train` or save_pretrained wrote, or an id on the Hugging Face hub."
        ) from None
    if norm == FIXED_NORM:
        fix_norm(pipeline.model)
    pipeline.model.eval()
    return pipeline


@contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' own progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def fix_norm(model: Any) -> None:
    """Replace the model's normalisation of each window by the identity, arcsinh included where it has it.

    A window's own mean and standard deviation tell the model nothing that σ did not, and take away what z says about today.
    """
    import torch
    from chronos.chronos_bolt import InstanceNorm

    class FixedNorm(InstanceNorm):
        def forward(self, x, loc_scale=None):
            one = torch.ones_like(x[..., :1], dtype=torch.float32)
            return super().forward(x, (torch.zeros_like(one), one))

    old = model.instance_norm
    model.instance_norm = FixedNorm(eps=old.eps, use_arcsinh=old.use_arcsinh)
