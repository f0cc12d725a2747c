"""Listing of features: what each column is, in which unit; of a config, or of all there are."""

from __future__ import annotations

from typing import Any

from rlplatform.features import FeatureConfig
from rlplatform.features.context import panel
from rlplatform.features.context.schema import COLUMNS, ContextColumn
from rlplatform.features.forecasts.schema import CALIBRATION_STATISTICS, STATISTICS
from rlplatform.features.technical import catalogue


def feature_listing(features: FeatureConfig | None = None) -> dict[str, list[dict[str, Any]]]:
    """Rows for printing: "technical", "columns" (statistics of forecasts) and "context".

    Args:
        features: whose columns; the default's technical ones and everything there is of the others if not given.
    """
    asked = None if features is None or features.forecasts is None else set(features.forecasts.columns)
    statistics = [
        {"name": s.name, "unit": s.unit, "description": s.description, "feature": s.kind != "text", "keeps_scale": s.raw}
        for s in (*STATISTICS, *CALIBRATION_STATISTICS)
        if features is None or (asked is not None and s.name in asked)
    ]
    if features is None:
        context = [_entry(column) for column in COLUMNS]
    else:
        context = [] if features.context is None else panel.catalogue(features.context)
    return {"technical": catalogue(features or FeatureConfig()), "columns": statistics, "context": context}


def _entry(column: ContextColumn) -> dict[str, str]:
    """`fx_return_<pair>_<window>` and what it needs."""
    series = {"": "", "pair": "_<pair>", "own": "_<series>", "series": "_<series>"}[column.each]
    needs = ", ".join(column.needs) or ("sectors" if column.needs_sectors else "a series" if column.each else "–")
    return {
        "name": f"{column.name}{series}{'_<window>' if column.windows else ''}",
        "scope": column.scope,
        "group": column.group,
        "unit": column.unit,
        "description": column.description,
        "needs": needs,
    }
