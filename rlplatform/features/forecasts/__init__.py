"""Forecasts of the next bars' returns, as distributions, and what a policy may know of them."""

from rlplatform.features.forecasts.config import ForecastConfig
from rlplatform.features.forecasts.forecast import LEVELS, Forecast, ForecastBackend
from rlplatform.features.forecasts.registry import make_backend

__all__ = ["LEVELS", "Forecast", "ForecastBackend", "ForecastConfig", "make_backend"]
