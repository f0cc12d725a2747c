"""What each context column is, with its unit and what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from envs.indicators import REGIME_NAMES


@dataclass(frozen=True, kw_only=True)
class ContextColumn:
    """One entry of the catalogue; it becomes one column for each window and each series that it is made for.

    Attributes:
        name: base name; `_<series>` and `_<window>` are added where it has them.
        scope: "market" or "asset".
        group: "macro", "risk", "sectors" or "clusters"; explanations put columns of one group together.
        unit: of the value.
        description: one line, the formula.
        windows: field of `ContextConfig` with its windows; None for a column that has none.
        needs: series it cannot do without.
        needs_sectors: whether it needs `ContextConfig.sectors`.
        each: "" for one column; "pair" for each currency pair, "own" for each series that no other column is made for,
            "series" for every one.
        raw: kept as it is when features are scaled.
        on_demand: only where `ContextConfig.columns` names it.
    """

    name: str
    scope: str
    group: str
    unit: str
    description: str
    windows: str | None = None
    needs: tuple[str, ...] = ()
    needs_sectors: bool = False
    each: str = ""
    raw: bool = False
    on_demand: bool = False


COLUMNS = (
    ContextColumn(
        name="vix",
        scope="market",
        group="macro",
        unit="points: percent a year",
        description="VIX; while unknown 100 × sqrt(252) × RiskMetrics volatility of the market. Keeps its scale",
        needs=("VIX",),
        raw=True,
    ),
    ContextColumn(name="vix_log", scope="market", group="macro", unit="natural log", description="log(VIX)", needs=("VIX",)),
    ContextColumn(
        name="vix_term",
        scope="market",
        group="macro",
        unit="natural log",
        description="log(VIX / VIX3M): above 0 the term structure is inverted",
        needs=("VIX", "VIX3M"),
    ),
    ContextColumn(
        name="treasury_slope",
        scope="market",
        group="macro",
        unit="percentage points",
        description="DGS10 − DGS2",
        needs=("DGS2", "DGS10"),
    ),
    ContextColumn(
        name="treasury_slope_change",
        scope="market",
        group="macro",
        unit="percentage points",
        description="change of DGS10 − DGS2 over the window",
        windows="change_windows",
        needs=("DGS2", "DGS10"),
    ),
    ContextColumn(
        name="dollar_return",
        scope="market",
        group="macro",
        unit="natural log",
        description="log change of DXY over the window",
        windows="change_windows",
        needs=("DXY",),
    ),
    ContextColumn(
        name="dollar_trend",
        scope="market",
        group="macro",
        unit="fraction",
        description="DXY / its mean over the window − 1",
        windows="trend_windows",
        needs=("DXY",),
    ),
    ContextColumn(
        name="fx_return",
        scope="market",
        group="macro",
        unit="natural log",
        description="log change of the currency pair over the window",
        windows="change_windows",
        each="pair",
    ),
    ContextColumn(
        name="series_level",
        scope="market",
        group="macro",
        unit="the series' own",
        description="value of a series of one's own; of kind level only",
        each="own",
    ),
    ContextColumn(
        name="series_change",
        scope="market",
        group="macro",
        unit="the series' own, or natural log",
        description="change of a series of one's own over the window: a difference of levels, a log return of prices",
        windows="change_windows",
        each="own",
    ),
    ContextColumn(
        name="series_age",
        scope="market",
        group="macro",
        unit="calendar days",
        description="from the day that the shown value is about to the bar's day",
        each="series",
        on_demand=True,
    ),
    ContextColumn(
        name="series_known",
        scope="market",
        group="macro",
        unit="0 or 1",
        description="a value no older than max_age_days is known",
        each="series",
        raw=True,
    ),
    *(
        ContextColumn(
            name=f"risk_regime_{name}",
            scope="market",
            group="risk",
            unit="0 or 1",
            description=f"state {name}: by the market's historical VaR in its own past, and by VIX above VIX3M",
            raw=True,
        )
        for name in REGIME_NAMES
    ),
    ContextColumn(
        name="target_exposure",
        scope="market",
        group="risk",
        unit="fraction of wealth",
        description="target_volatility / RiskMetrics volatility of the market, at most max_exposure",
    ),
    ContextColumn(
        name="cluster_change",
        scope="market",
        group="clusters",
        unit="share in [0, 1]",
        description="assets whose cluster changed when clusters were last drawn",
        raw=True,
    ),
    ContextColumn(
        name="risk_share",
        scope="asset",
        group="risk",
        unit="share in [0, 1]",
        description="(1/σ) / Σ(1/σ) over the assets, σ RiskMetrics volatility: weights of equal risk without correlations",
        raw=True,
    ),
    ContextColumn(
        name="risk_contribution",
        scope="asset",
        group="risk",
        unit="share of variance",
        description="cov(x, m) / (N var m) over risk_window, m the mean of the log returns x; the assets' sum to 1",
        raw=True,
    ),
    ContextColumn(
        name="sector_momentum",
        scope="asset",
        group="sectors",
        unit="natural log",
        description="log return of the asset's sector over the window − the mean of all assets'",
        windows="strength_windows",
        needs_sectors=True,
    ),
    ContextColumn(
        name="sector_strength",
        scope="asset",
        group="sectors",
        unit="natural log",
        description="log return of the asset over the window − its sector's",
        windows="strength_windows",
        needs_sectors=True,
    ),
    ContextColumn(
        name="cluster_momentum",
        scope="asset",
        group="clusters",
        unit="natural log",
        description="mean log return of the asset's cluster over the window − the mean of all assets'",
        windows="strength_windows",
    ),
    ContextColumn(
        name="cluster_strength",
        scope="asset",
        group="clusters",
        unit="natural log",
        description="log return of the asset over the window − the mean of its cluster's",
        windows="strength_windows",
    ),
    ContextColumn(
        name="cluster_share",
        scope="asset",
        group="clusters",
        unit="share in [0, 1]",
        description="assets in the asset's cluster, itself among them, over all",
        raw=True,
    ),
    ContextColumn(
        name="cluster_correlation",
        scope="asset",
        group="clusters",
        unit="in [−1, 1]",
        description="mean correlation with the others of its cluster when clusters were last drawn; 0 alone",
        raw=True,
    ),
)

BY_NAME = {column.name: column for column in COLUMNS}


def entry_of(name: str) -> ContextColumn | None:
    """The entry that a column's full name, such as `fx_return_EURUSD_21`, belongs to; None if it is no context column."""
    fitting = [each for each in COLUMNS if name == each.name or name.startswith(f"{each.name}_")]
    return max(fitting, key=lambda each: len(each.name), default=None)


def is_raw(name: str) -> bool:
    """Whether the column of that name keeps its own scale: flags, shares, correlations, and VIX in points."""
    entry = entry_of(name)
    return entry is not None and entry.raw and (entry.each != "" or name == entry.name)
