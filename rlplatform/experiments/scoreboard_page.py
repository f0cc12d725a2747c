"""The scoreboard as one HTML page: no network, light and dark, cards instead of a table on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2330; --muted: #5c6675; --rule: #e4e7ec; --page: #fff; --first: #f1f5fa;
  --accent: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --muted: #9aa4b2; --rule: #2b3442; --page: #11161e; --first: #182231; --accent: #6fb1f2; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 100rem; padding: 1.5rem 1rem 3rem; color: var(--ink); background: var(--page);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { color: var(--muted); max-width: 46rem; margin: 0 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { color: var(--muted); font-weight: 500; font-size: .85rem; text-align: right; border-bottom: 2px solid var(--rule); }
td { text-align: right; border-bottom: 1px solid var(--rule); }
th, td { padding: .45rem .6rem; white-space: nowrap; }
.text { text-align: left; }
td[data-name="note"] { white-space: normal; min-width: 14rem; }
tr.first { background: var(--first); }
tr.first td:is([data-name="setting"], [data-name="run"]) { color: var(--accent); font-weight: 600; }
tr.apart td { color: var(--muted); }
@media (max-width: 40rem) {
  thead { display: none; }
  table, tbody, tr, td { display: block; width: 100%; }
  tr { border: 1px solid var(--rule); border-radius: .5rem; padding: .4rem .2rem; margin: 0 0 .75rem; }
  td, td.text { border: 0; padding: .15rem .6rem; display: flex; justify-content: space-between; gap: 1rem; text-align: right; }
  td::before { content: attr(data-name); color: var(--muted); font-weight: 400; flex: none; }
  td, td[data-name="note"] { white-space: normal; overflow-wrap: anywhere; min-width: 0; }
  td:empty { display: none; }
}
"""
_TEXT = ("kind", "setting", "run", "status", "note", "test", "finished")


def render_page(title: str, explained: str, ranking: Sequence[Mapping[str, str]], runs: Sequence[Mapping[str, str]]) -> str:
    """The whole page.

    Args:
        ranking: one row a setting, heading → text; "#" is its rank, "–" without one.
        runs: one row a run.
    """
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>\n<p>{escape(explained)}</p>",
            _table(ranking),
            "<h2>Every run</h2>",
            _table(runs),
            "</body>\n</html>\n",
        ]
    )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return "<p>None yet.</p>"
    head = "".join(f"<th{_kind(name)}>{escape(_heading(name))}</th>" for name in rows[0])
    body = "\n".join(f"<tr{_place(row)}>{_cells(row)}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _cells(row: Mapping[str, str]) -> str:
    return "".join(f'<td{_kind(name)} data-name="{escape(_heading(name))}">{escape(text)}</td>' for name, text in row.items())


def _kind(name: str) -> str:
    return ' class="text"' if name in _TEXT else ""


def _place(row: Mapping[str, str]) -> str:
    return {"1": ' class="first"', "–": ' class="apart"'}.get(row.get("#", ""), "")


def _heading(name: str) -> str:
    return name.replace("_per_day", "/day").replace("_", " ")
