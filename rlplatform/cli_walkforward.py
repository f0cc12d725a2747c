"""The command `rlplatform walkforward`: train anew before each test period, judge the tests as one path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import log, note, print_json, print_table, print_verdict, shown
from rlplatform.cli_resume import chosen_directory, stoppable


def walkforward(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.yaml", help="Settings with a walkforward block; with --resume also its directory."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: walkforward.max_concurrent=4"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last one of this file; finished folds are not trained again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")] = False,
) -> None:
    """Train anew before each test period and judge all tests as one path, costs of the handovers included.

    Writes results/WALK: one run a fold and seed, the path of each seed, and a report on the seed in the middle. Ctrl-C
    stops; --resume goes on, also after a kill.
    """
    from rlplatform.experiments.progress import TrainingProgress
    from rlplatform.experiments.walkforward import new_walk, run_walk
    from rlplatform.experiments.walkforward_directory import WalkForwardDirectory, load_walk

    directory = chosen_directory(WalkForwardDirectory, config, list(overrides or []), resume, load_walk, new_walk)
    note(f"walk-forward directory: {shown(directory.path)}")
    with stoppable("walkforward", directory):
        result = run_walk(directory, TrainingProgress(log).note)
    if as_json:
        print_json(result.to_dict() | {"walkforward": str(directory.path)})
        return
    print_table("Out of sample, part by part", result.rows())
    print_verdict(result.verdict, False, {})
    print(result.sentence)
    print(f"report: {shown(directory.report / 'report.md')}")
