"""The command `rlplatform ensemble`: several runs' policies as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import note, print_verdict, shown


def ensemble(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR RUN_DIR...", help="Two runs or more.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to make the run directory; the first run's results_dir else.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="First part of its name; the first run's else.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")] = False,
) -> None:
    """The mean of several runs' decisions as one policy, judged on the test days they share; leaves a run directory."""
    from rlplatform.experiments.ensembling import make_ensemble, plan_ensemble

    run, verdict = make_ensemble(plan_ensemble(run_dirs, out, name), lambda phase: note(f"{phase} …"))
    print_verdict(verdict, as_json, {"run": str(run.path)})
    note(f"run: {shown(run.path)}")
