"""Tables of the HTML report: anything by rows, months by years, statistics with what each means. All text is escaped."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from rlplatform.evaluation.scoretable import percent
from rlplatform.evaluation.track import Track

Array = np.ndarray
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DEEPEST = 0.10  # monthly return that has the full colour; beyond it colours no longer differ


def table(
    rows: Sequence[Mapping[str, Any]],
    strong: Collection[str] = (),
    text: Collection[str] = (),
    kind: str = "table",
    name: str = "Table",
) -> str:
    """Rows as a table that scrolls inside its own box where the page is too narrow.

    Args:
        rows: heading → cell, the same headings in each; the first column is text.
        strong: first cells of the rows to stand out.
        text: more columns that are text rather than figures; those called "meaning" may take several lines.
        kind: class of the table.
        name: said by screen readers.
    """
    if not rows:
        return '<p class="quiet">None.</p>'
    headings = list(rows[0])
    kinds = {heading: _kind(heading, heading in text or heading == headings[0]) for heading in headings}
    head = "".join(f"<th{kinds[h]}>{escape(_heading(h))}</th>" for h in headings)
    lines = []
    for row in rows:
        cells = "".join(f"<td{kinds[h]}>{escape(_shown(row[h]))}</td>" for h in headings)
        mark = ' class="strong"' if str(row[headings[0]]) in strong else ""
        lines.append(f"<tr{mark}>{cells}</tr>")
    body = "\n".join(lines)
    return _scrolling(f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>', name, kind)


def monthly_returns(track: Track) -> dict[int, dict[int, float]]:
    """year → month (1 to 12) → return compounded over the bars that end in it."""
    months = track.dates[1:].astype("datetime64[M]").astype(int)
    starts = np.flatnonzero(np.diff(months, prepend=months[0] - 1))
    ends = np.append(starts[1:], len(months))
    found: dict[int, dict[int, float]] = {}
    for start, end in zip(starts, ends, strict=True):
        before, after = track.wealth[start], track.wealth[end]
        year, month = divmod(int(months[start]), 12)
        found.setdefault(1970 + year, {})[month + 1] = float(after / before - 1.0) if before > 0 else 0.0
    return found


def heat_map(track: Track) -> str:
    """Monthly returns [%], a row a year, coloured by size; the year's own return last."""
    head = "".join(f"<th>{name}</th>" for name in ("", *MONTHS, "Year"))
    lines = []
    for year, months in monthly_returns(track).items():
        whole = math.prod(1.0 + value for value in months.values()) - 1.0
        cells = [*(_heat_cell(months.get(month)) for month in range(1, 13)), f"<td>{_points(whole)}</td>"]
        lines.append(f'<tr><td class="text">{year}</td>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    return _scrolling(
        f'<table class="heat"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>', "Monthly returns", "heat"
    )


def statistics(rows: Sequence[tuple[str, str, str]]) -> str:
    """Name, value and one line on what it means."""
    cells = [{"Statistic": name, "Value": value, "meaning": meaning} for name, value, meaning in rows]
    return table(cells, text=("meaning",), kind="statistics", name="Statistics")


def _heat_cell(value: float | None) -> str:
    if value is None:
        return "<td></td>"
    share = round(75 * min(abs(value) / DEEPEST, 1.0))
    return f'<td class="{"up" if value >= 0 else "down"}" style="--share:{share}%">{_points(value)}</td>'


def _points(value: float) -> str:
    return percent(value, sign=True).removesuffix(" %")


def _scrolling(content: str, name: str, kind: str) -> str:
    whole = " whole" if kind == "statistics" else ""
    return f'<div class="wide table{whole}" tabindex="0" role="region" aria-label="{escape(name, quote=True)}">{content}</div>'


def _kind(heading: str, text: bool) -> str:
    names = ["text"] * text + ["long"] * (heading == "meaning")
    return f' class="{" ".join(names)}"' if names else ""


def _heading(name: str) -> str:
    """Keys such as max_drawdown become words; names such as EQUAL_WEIGHT stay as they are."""
    return (name[:1].upper() + name[1:]).replace("_", " ") if name.islower() else name[:1].upper() + name[1:]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
