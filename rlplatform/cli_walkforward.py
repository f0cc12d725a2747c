"""The command `rlplatform walkforward`: train anew before each test period, judge the tests as one path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.cli_output import log, note, print_json, print_rows, print_verdict, shown

if TYPE_CHECKING:  # the rooms take seconds to import; each command imports what it needs
    from rlplatform.experiments.walkforward_directory import WalkForwardDirectory

INTERRUPTED = 130


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
    from rlplatform.experiments.walkforward import run_walk

    directory = _directory(config, list(overrides or []), resume)
    note(f"walk-forward directory: {shown(directory.path)}")
    try:
        result = run_walk(directory, TrainingProgress(log).note)
    except (KeyboardInterrupt, SystemExit):
        note(f"stopped. Go on with: rlplatform walkforward --resume {shown(directory.path)}")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(result.to_dict() | {"walkforward": str(directory.path)})
        return
    rows = [row | {key: _short(row[key]) for key in ("total_return", "sharpe", "seam_turnover")} for row in result.folds]
    print_rows("Folds", [{key: value for key, value in row.items() if key != "seam_cost"} for row in rows])
    print_verdict(result.verdict, False, {})
    print(result.sentence)
    print(f"report: {shown(directory.report / 'report.md')}")


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _directory(config: Path, overrides: list[str], resume: bool) -> WalkForwardDirectory:
    """A new walk-forward's directory, or the one to go on with."""
    from rlplatform.experiments.walkforward import new_walk
    from rlplatform.experiments.walkforward_directory import WalkForwardDirectory, load_walk

    if not config.is_dir():
        walk = load_walk(config, overrides)
        return WalkForwardDirectory.newest_of(walk) if resume else new_walk(walk)
    if not resume:
        raise typer.BadParameter(f"{config} is a directory. Go on with it by --resume, or give a CONFIG.yaml.")
    if overrides:
        raise typer.BadParameter(f"--resume {config} with {overrides[0]}: a walk-forward goes on as it began.")
    return WalkForwardDirectory.open(config)
