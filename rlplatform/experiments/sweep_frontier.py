"""The frontier of a sweep: growth against the worst days, setting by setting, and where it could be on a planted market."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from envs.terms import CapsConfig
from rlplatform.data import SyntheticConfig
from rlplatform.data.fat_tail import FatTailMarket
from rlplatform.data.tail_optimal import tail_frontier
from rlplatform.evaluation.frontier_plot import FrontierPoint, plot_frontier
from rlplatform.evaluation.metrics import worst_mean
from rlplatform.experiments.config import ExperimentConfig

if TYPE_CHECKING:
    from rlplatform.experiments.sweep_results import SettingResult

WORST, GROWTH = "validation_cvar_5", "validation_cagr"
WORST_SHARE = 0.05
KNOWN_WEIGHTS = tuple(np.linspace(0.0, 1.0, 41))  # of CVaR, along the curve of what is best


def sweep_frontier(settings: tuple[SettingResult, ...], trials: pd.DataFrame, base: ExperimentConfig) -> Figure | None:
    """Growth against the mean of the worst 5 % of the validation days; None where a setting lacks either.

    Args:
        settings: those with a score.
        trials: one row a trial, with its figures.
        base: the config around the search.
    """
    figures = trials.set_index("trial")[[WORST, GROWTH]].astype(float)
    points = [_point(setting, figures.reindex(setting.trials).dropna()) for setting in settings]
    if len(points) < 2 or any(not point.worst for point in points):
        return None
    keys = list(settings[0].settings)
    single = keys[0] if len(keys) == 1 else ""
    ordered = bool(single) and all(_is_number(setting.settings[single]) for setting in settings)
    if ordered:
        points = [p for _, p in sorted(zip((s.settings[single] for s in settings), points, strict=True), key=lambda x: x[0])]
    return plot_frontier(points, single, ordered, known_frontier(base))


def known_frontier(config: ExperimentConfig) -> tuple[tuple[float, float], ...]:
    """Worst days and growth a year, on the validation period and without costs, of the weights that are best by the law.

    Of the same days as the trials, so that a lucky path lifts both; nothing where the law is not known.
    """
    model = config.data.model() if isinstance(config.data, SyntheticConfig) else None
    if not isinstance(model, FatTailMarket) or not config.env.caps.long_only:
        return ()
    prices = config.data.load()
    inside = (prices.dates >= np.datetime64(config.split.validation[0])) & (
        prices.dates <= np.datetime64(config.split.validation[1])
    )
    returns = np.diff(prices.close[inside], axis=0) / prices.close[inside][:-1]
    bars = config.env.financing.bars_per_year
    gains = [returns @ weights for weights in _best_weights(model, config.env.caps)]
    return tuple((worst_mean(gain, WORST_SHARE), math.expm1(bars * float(np.log1p(gain).mean()))) for gain in gains)


@lru_cache(maxsize=4)  # a running sweep draws it anew as each trial ends
def _best_weights(model: FatTailMarket, caps: CapsConfig) -> list[np.ndarray]:
    return [point.weights for point in tail_frontier(model.scenarios(), caps, WORST_SHARE, KNOWN_WEIGHTS)]


def _point(setting: SettingResult, figures: pd.DataFrame) -> FrontierPoint:
    label = ", ".join(f"{value:.4g}" if _is_number(value) else str(value) for value in setting.settings.values())
    return FrontierPoint(label=label, worst=tuple(figures[WORST]), growth=tuple(figures[GROWTH]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
