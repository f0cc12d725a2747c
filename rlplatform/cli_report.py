"""The command `rlplatform report`: one page that holds everything known about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import note, print_json, shown


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Such as results/RUN.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")] = False,
) -> None:
    """One self-contained HTML page about a run: report/report.html, no network, for desk and phone."""
    from rlplatform.experiments.reporting import report_run

    page = report_run(run_dir, lambda phase: note(f"{phase} …"))
    print_json({"page": str(page)}) if as_json else print(shown(page))
