"""What is stored of a forecast, column by column, with units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One stored column, of one (symbol, day, horizon).

    Attributes:
        name: of the column.
        unit: of its values.
        description: one line, the formula.
        kind: "number", "flag" (0 or 1) or "text".
        raw: kept as it is when features are scaled.
        neutral: what a feature shows where the value is not known yet.
    """

    name: str
    unit: str
    description: str
    kind: str = "number"
    raw: bool = False
    neutral: float = 0.0


STORED_LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)

STATISTICS = (
    Statistic(name="mean", unit="fraction of price", description="expected return to t + horizon"),
    Statistic(name="std", unit="fraction of price", description="standard deviation of that return"),
    Statistic(name="skew", unit="−", description="third standardised moment of that return"),
    *(
        Statistic(
            name=f"q{round(100 * level):02d}", unit="fraction of price", description=f"quantile {level:.0%} of that return"
        )
        for level in STORED_LEVELS
    ),
    Statistic(name="cvar_05", unit="fraction of price", description="mean return in the worst 5 %: q05 − (q05 − q01)/ln 5"),
    Statistic(name="p_up", unit="share in [0, 1]", description="probability that the return is above 0", raw=True, neutral=0.5),
    Statistic(name="edge_bp", unit="bp of price", description="sign(mean) · max(|mean| − cost, 0)"),
    Statistic(name="spread", unit="fraction of price", description="q90 − q10"),
    Statistic(
        name="pit",
        unit="share in [0, 1]",
        description="F(return from t − horizon to t) of the forecast made at t − horizon",
        raw=True,
        neutral=0.5,
    ),
    Statistic(name="pit_mean", unit="share in [0, 1]", description="rolling mean of pit", raw=True, neutral=0.5),
    Statistic(
        name="crps_ratio",
        unit="−",
        description="rolling CRPS over that of a normal with EWMA volatility, outcomes known at t",
        neutral=1.0,
    ),
    Statistic(
        name="agreement", unit="share in [0, 1]", description="members whose median has the sign of this one's", raw=True
    ),
    Statistic(
        name="dispersion",
        unit="fraction of price",
        description="standard deviation over the members of each stored quantile, mean of the nine",
    ),
    Statistic(
        name="fallback",
        unit="0 or 1",
        description="the backend asked for, or one of its members, gave none",
        kind="flag",
        raw=True,
    ),
    Statistic(name="gate", unit="0 or 1", description="the forecast has earned trust; see gate_reason", kind="flag", raw=True),
    Statistic(name="source", unit="name", description="whose forecast it is", kind="text"),
    Statistic(name="reason", unit="text", description="why that one, or why not the one asked for", kind="text"),
    Statistic(
        name="gate_reason", unit="text", description="open, fallback, few outcomes, miscalibrated or outscored", kind="text"
    ),
)

CALIBRATION_STATISTICS = (  # stored only where `calibration.method` is set
    Statistic(
        name="calibrated", unit="0 or 1", description="the quantiles are recalibrated ones; see why", kind="flag", raw=True
    ),
    Statistic(
        name="crps_before_bp", unit="bp of log return", description="CRPS without recalibration of the outcomes that decided"
    ),
    Statistic(
        name="crps_after_bp", unit="bp of log return", description="CRPS with recalibration of the outcomes that decided"
    ),
    Statistic(name="calibration_reason", unit="text", description="kept, left out or unproven, with both CRPS", kind="text"),
)

FEATURE_STATISTICS = tuple(statistic.name for statistic in STATISTICS if statistic.kind != "text")
CALIBRATION_FEATURES = tuple(statistic.name for statistic in CALIBRATION_STATISTICS if statistic.kind != "text")
BY_NAME = {statistic.name: statistic for statistic in (*STATISTICS, *CALIBRATION_STATISTICS)}
PREFIX = "forecast_"


def feature_name(statistic: str, horizon: int) -> str:
    """`forecast_std_5`: the standard deviation five bars ahead."""
    return f"{PREFIX}{statistic}_{horizon}"


def is_raw(name: str) -> bool:
    """Whether the feature of that name keeps its own scale: flags, shares and probabilities."""
    if not name.startswith(PREFIX):
        return False
    statistic = BY_NAME.get(name[len(PREFIX) :].rpartition("_")[0])
    return statistic is not None and statistic.raw
