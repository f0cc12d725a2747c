"""The comparison table: policies and baselines by Sharpe ratio, for terminals, reports and machines."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlplatform.evaluation.metrics import Metrics, summarize
from rlplatform.evaluation.track import Track

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("Total return", "CAGR", "Sharpe ± se", "Sortino", "Max drawdown", "CVaR 5 %", "Turnover/day", "Cost paid")
_HEADERS = ("Total\nreturn", "CAGR\n", "Sharpe\n± se", "Sortino\n", "Max\nDD", "CVaR\n5 %", "Turnover\n/day", "Cost\npaid")


@dataclass(frozen=True)
class ScoreTable:
    """Rows sorted by Sharpe, highest first; rows without one come last.

    Attributes:
        metrics: name → metrics, in order.
        policies: names that are policies, printed bold.
    """

    metrics: Mapping[str, Metrics]
    policies: Collection[str] = ()

    def __post_init__(self) -> None:
        order = sorted(self.metrics, key=lambda name: _sort_key(self.metrics[name]))
        object.__setattr__(self, "metrics", {name: self.metrics[name] for name in order})

    @classmethod
    def of(cls, tracks: Sequence[Track], policies: Collection[str] = (), bars_per_year: int = 252) -> ScoreTable:
        return cls({track.name: summarize(track, bars_per_year) for track in tracks}, tuple(policies))

    def to_dict(self) -> dict:
        """{"policies": [{"name": …, "role": "policy" | "baseline", …figures}]}, without NaN: what is undefined is null."""
        rows = [{"name": name, "role": self._role(name)} | m.to_dict() for name, m in self.metrics.items()]
        return {"policies": rows}

    def to_markdown(self) -> str:
        lines = [_row(["Portfolio", *_COLUMNS]), _row(["---", *["---:"] * len(_COLUMNS)])]
        for name, metrics in self.metrics.items():
            mark = "**" if name in self.policies else ""
            lines.append(_row([f"{mark}{cell}{mark}" for cell in [name, *_cells(metrics)]]))
        return "\n".join(lines) + "\n"

    def to_rich(self, title: str | None = None) -> Table:
        """For a terminal of 80 columns: units in the caption, policies bold."""
        from rich import box
        from rich.table import Table

        caption = "All but Sharpe and Sortino in %."
        table = Table(
            title=title,
            caption=caption,
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=0,
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("Portfolio\n", overflow="fold")  # the only one that gives way: numbers stay whole
        for header in _HEADERS:
            table.add_column(header, justify="right", no_wrap=True)
        for name, metrics in self.metrics.items():
            cells = [cell.removesuffix(" %").replace(" ± ", "±") for cell in _cells(metrics)]
            table.add_row(name, *cells, style="bold green" if name in self.policies else None)
        return table

    def _role(self, name: str) -> str:
        return "policy" if name in self.policies else "baseline"


def _sort_key(metrics: Metrics) -> tuple[bool, float]:
    undefined = not math.isfinite(metrics.sharpe)
    return undefined, 0.0 if undefined else -metrics.sharpe


def _cells(m: Metrics) -> list[str]:
    sharpe = f"{number(m.sharpe)} ± {number(m.sharpe_se)}" if math.isfinite(m.sharpe) else "–"
    return [
        percent(m.total_return, sign=True),
        percent(m.cagr, sign=True),
        sharpe,
        number(m.sortino),
        percent(m.max_drawdown),
        percent(m.cvar_5, 2),
        percent(m.turnover_per_day),
        percent(m.cost_paid, 2),
    ]


def percent(value: float, digits: int = 1, sign: bool = False) -> str:
    """0.0123 → "1.2 %"; a dash where undefined."""
    if not math.isfinite(value):
        return "–"
    value = round(100 * value, digits) + 0.0  # no "-0.0"
    return f"{value:{'+' if sign and value else ''}.{digits}f} %".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
