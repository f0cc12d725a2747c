"""Models of single symbols beside the generic one: where they lie, and what they say together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from envs.errors import ConfigError
from rlplatform.data.prices import Prices
from rlplatform.features.forecasts.chronos import of_symbol
from rlplatform.features.forecasts.chronos_finetuning import parent_sidecar
from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.forecast import Forecast
from rlplatform.features.forecasts.learned import SIDECAR
from rlplatform.features.forecasts.registry import leaf

Array = np.ndarray


def specialists_in(folder: Path) -> dict[str, str]:
    """Symbol → model, of the models that lie side by side in a folder under their symbols' names."""
    found = sorted(Path(folder).glob(f"*/{SIDECAR}"))
    return {unquote(file.parent.name): str(file.parent.resolve()) for file in found if not file.parent.name.startswith(".")}


def specialists_at(path: Path) -> dict[str, str]:
    """Symbol → model of what `--specialists DIR` names: a directory of `forecast finetune`, or its models folder.

    Raises:
        ConfigError: none there.
    """
    path = Path(path)
    found = specialists_in(path / "models") or specialists_in(path)
    if not found:
        raise ConfigError(f"{path} holds no specialists. Give the directory that `rlplatform forecast finetune` wrote.")
    return found


def generic_model(path: Path) -> Path:
    """The model folder of a forecaster's directory, of a pipeline's stage, or the folder itself.

    Raises:
        ConfigError: no forecaster of ours there.
    """
    path = Path(path).resolve()
    folder = path / "model" if (path / "model" / SIDECAR).is_file() else path
    parent_sidecar(folder)
    return folder


def specialists_forecast(
    config: ForecastConfig, models: Mapping[str, str], prices: Prices, log_returns: Array, rows: Array
) -> Forecast:
    """What the specialists say at `rows`, each of its own symbol; of a symbol without one, what the generic one says.

    Args:
        config: its `chronos.path` is the generic forecaster.
        models: symbol → folder.
    """
    chronos = dataclasses.replace(config.chronos, paths=dict(models))
    backend = leaf("chronos", dataclasses.replace(config, chronos=chronos))
    own = [
        of_symbol(backend, symbol).forecast(prices.dates, log_returns[:, [column]], rows)
        for column, symbol in enumerate(prices.symbols)
    ]
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in own], axis=1)
        for name in ("quantiles", "reasons", "sources", "fallback")
    }
    return Forecast(horizons=config.horizons, **parts)
