"""What the commands write: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

if TYPE_CHECKING:
    from rlplatform.evaluation.verdict import Verdict

log = Console(stderr=True)
GAP, LONGEST_NUMBER = 2, 13  # characters: between two columns; of a number with its error
PIPED = 160  # columns of a table that no terminal shows


def print_verdict(verdict: Verdict, as_json: bool, extras: dict[str, Any]) -> None:
    if as_json:
        sentence = {"verdict": verdict.sentence, "gate": verdict.gate.to_dict()}
        print_json(verdict.table.to_dict() | sentence | extras)
        return
    console = Console()
    console.print(verdict.table.to_rich())
    console.print(verdict.sentence, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    _print(title, [name.replace("_", " ") for name in rows[0]] if rows else [], [[_cell(v) for v in r.values()] for r in rows])


def print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Names are folded where they are too long, never cut: one must be able to type them."""
    _print(title, list(rows[0]) if rows else [], [list(row.values()) for row in rows])


def _print(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Where the terminal is too narrow, headings break between words and long texts fold; numbers stay whole. Where texts
    would have less than half of what they need, each row is a paragraph under its name."""
    console = _console()
    columns = [list(column) for column in zip(headings, *rows, strict=True)]
    widths = [max(map(len, column)) + GAP for column in columns]
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    needed = sum(width for width, column in zip(widths, columns, strict=True) if is_text(column[1:]))
    if console.width - (sum(widths) - needed) < needed / 2:
        _print_paragraphs(console, headings, rows)
        return
    table, narrow = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)), sum(widths) > console.width
    for heading, *cells in columns:
        whole = narrow and not is_text(cells)
        table.add_column(escape(heading.replace(" ", "\n") if whole else heading), overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _print_paragraphs(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for name, *cells in rows:
        console.print(name, style="bold", markup=False, highlight=False, soft_wrap=True)
        figures = " · ".join(f"{heading} {cell}" for heading, cell in zip(headings[1:], cells, strict=True) if cell)
        console.print(Padding(escape(figures), (0, 0, 0, 4)), highlight=False)


def _console() -> Console:
    """As wide as the terminal; wide where the output goes into a file or a pipe, which has no width."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=max(console.width, PIPED))


def is_text(cells: Sequence[str]) -> bool:
    """Whether a column has cells that are better folded than kept on one line: longer than a number, with letters."""
    return any(len(cell) > LONGEST_NUMBER and any(map(str.isalpha, cell)) for cell in cells)


def _cell(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def note(text: str) -> None:
    log.print(text, markup=False, highlight=False, soft_wrap=True)


def shown(path: Path) -> Path:
    """Relative to here where that is shorter."""
    path, here = Path(path).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
