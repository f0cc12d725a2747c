"""Statistics of the HTML report: each figure with one line on what it means."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rlplatform.evaluation.cost_realism import CostRealism
from rlplatform.evaluation.deflated import SharpeEvidence
from rlplatform.evaluation.drawdowns import DownsideFigures
from rlplatform.evaluation.metrics import Metrics
from rlplatform.evaluation.overfitting import Overfitting
from rlplatform.evaluation.scoretable import number, percent
from rlplatform.evaluation.superiority import Superiority

Row = tuple[str, str, str]
FIGURE_NAMES = {
    "total_return": "Total return",
    "cagr": "CAGR",
    "sharpe": "Sharpe ratio",
    "max_drawdown": "Deepest drawdown",
    "turnover_per_day": "Turnover/day",
}


def return_rows(m: Metrics) -> list[Row]:
    """What was earned, and at what risk."""
    sharpe = f"{number(m.sharpe)} ± {number(m.sharpe_se)}" if math.isfinite(m.sharpe) else "–"
    return [
        ("Total return", percent(m.total_return, sign=True), "Over the whole period, after costs and financing."),
        ("CAGR", percent(m.cagr, sign=True), "The same as growth a year, compounded."),
        ("Volatility", percent(m.volatility), "Standard deviation of returns, a year."),
        ("Sharpe ratio ± s.e.", sharpe, "Mean over standard deviation of returns, a year; ± is its standard error."),
        ("Sortino ratio", number(m.sortino), "The same, but only falls count as risk."),
        ("Calmar ratio", number(m.calmar), "CAGR over the deepest drawdown."),
        ("Hit rate", percent(m.hit_rate), "Share of bars that made money."),
    ]


def evidence_rows(found: SharpeEvidence) -> list[Row]:
    """What the Sharpe ratio proves."""
    trials = f"{found.trials} trial{'s' if found.trials != 1 else ''}"
    needed = "never" if math.isinf(found.min_track_record_years) else f"{number(found.min_track_record_years, 1)} years"
    level = percent(found.confidence, 0)
    rows = [
        (
            "Probabilistic Sharpe",
            percent(found.probabilistic),
            "Probability that the true ratio is above zero, as if nothing had been tried before.",
        ),
        (
            "Deflated Sharpe",
            percent(found.deflated),
            f"The same after counting {trials} that this policy was chosen from; {level} would convince.",
        ),
        (
            "Record needed",
            needed,
            f"Record that would show a ratio above zero with {level} confidence; there are {number(found.years, 1)} years.",
        ),
    ]
    if found.trials > 1:
        rows.append(("Luck's best Sharpe", number(found.hurdle), f"The best ratio to expect of {trials} without any skill."))
    return rows


def superiority_rows(found: Superiority) -> list[Row]:
    """What is left when all baselines are compared at once."""
    beaten = ", ".join(found.superior) or "none"
    count = len(found.compared)
    return [
        (
            "SPA p-value",
            number(found.p_value, 3),
            f"How often luck alone looks as good against the best of {count} comparisons.",
        ),
        (
            "Surely outgrown",
            beaten,
            f"Of {count} baselines together, wrong about any at most {percent(1 - found.confidence, 0)} of the time (StepM).",
        ),
    ]


def downside_rows(d: DownsideFigures) -> list[Row]:
    """How deep, how long, how fast it falls."""
    length = f"{d.longest_drawdown_bars} bars{'' if d.longest_drawdown_recovered else ', not over'}"
    return [
        ("Deepest drawdown", percent(d.max_drawdown), "Largest fall below an earlier peak."),
        ("Longest drawdown", length, "From a peak until it was reached again."),
        ("Drawdown speed", percent(d.drawdown_velocity, 2), "Mean fall a bar, from peak to trough of the deepest."),
        ("Time under water", percent(d.time_under_water), "Share of closes below an earlier peak."),
        ("CDaR 5 %", percent(d.cdar_5), "Mean of the deepest 5 % of drawdowns."),
        ("CVaR 5 %", percent(d.cvar_5, 2), "Mean return of the worst 5 % of bars."),
        ("CVaR 1 %", percent(d.cvar_1, 2), "Mean return of the worst 1 % of bars."),
        (
            "Tail hit rate",
            percent(d.tail_hit_rate),
            "Share of bars below the 5 % quantile of the year before; 5 % where the tail is stable.",
        ),
    ]


def trading_rows(m: Metrics) -> list[Row]:
    """What trading took."""
    return [
        ("Turnover a day", percent(m.turnover_per_day), "Mean Σ|Δw|, both sides of a trade."),
        ("Cost paid", percent(m.cost_paid, 2), "Sum of what trading took, in % of the wealth at the time."),
        ("Financing paid", percent(m.financing_paid, 2), "Sum of interest and borrow fees, likewise."),
    ]


def cost_rows(found: CostRealism) -> list[Row]:
    """Where the edge ends."""
    return [
        (
            "Break-even cost",
            _break_even(found),
            f"Cost of traded value at which it grows no faster than {found.benchmark}; both pay it.",
        ),
        ("Capacity", _capacity(found), "Account at which its own price impact has eaten that edge."),
    ]


def off_policy_rows(report: Mapping) -> list[dict[str, str]]:
    """A table of what off_policy.json says."""
    rows = [
        {
            "Estimator": e["name"],
            "Value": _short(e.get("value")),
            "95 % interval": f"{_short(e.get('low'))} to {_short(e.get('high'))}",
        }
        for e in report.get("estimates", ())
    ]
    for key, name in (("truth", "truth, by trading"), ("logged", "logged behaviour")):
        measured = report.get(key) or {}
        error = f"± {_short(measured.get('standard_error'))} s.e."
        rows.append({"Estimator": name, "Value": _short(measured.get("value")), "95 % interval": error})
    return rows


def _break_even(found: CostRealism) -> str:
    if math.isinf(found.break_even_bps):
        return "above 1,000 bp"
    return f"{number(found.break_even_bps, 1)} bp" if found.break_even_bps else "no edge even for free"


def _capacity(found: CostRealism) -> str:
    if not math.isfinite(found.capacity):
        return "above 10¹³" if math.isinf(found.capacity) else "– (no volume)"
    return f"{found.capacity:,.0f}" if found.capacity else "no edge at any size"


def _short(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}".replace("-", "−")


def overfitting_rows(found: Overfitting) -> list[Row]:
    """What became of choosing the best of the sweep's trials."""
    how = f"the best of {found.trials} trials on half of the validation days, over {found.splits:,} ways to halve them"
    return [
        (
            "Probability of overfitting",
            percent(found.probability, 0),
            f"How often {how}, was no better than the middle one on the other half (PBO); 50 % is choosing by lot.",
        ),
        (
            "Sharpe kept",
            f"{number(found.chosen)} → {number(found.kept)}",
            "Of the chosen trial: where it was chosen, and on the other half.",
        ),
    ]


def shown(name: str, value: float) -> str:
    """Ratios as numbers, all else as per cent."""
    return number(value) if name in ("sharpe", "sortino", "calmar") else percent(value)
