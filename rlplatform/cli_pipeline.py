"""The command `rlplatform pipeline`: a forecaster of all symbols, specialists of single ones, policies on pairs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlplatform.cli_output import log, note, print_json, print_table, shown
from rlplatform.cli_resume import chosen_directory, stoppable


def pipeline(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.yaml", help="Settings with a pipeline block; with --resume also its directory."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: pipeline.pairs.count=1"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last one of this file; what is finished is not made again.")
    ] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Leave a stage out: generic, specialists or pairs; give it again for another."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Make this stage now and stop; --resume makes the others.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")] = False,
) -> None:
    """Train a forecaster of all symbols, a specialist of each stock, and policies on pairs with their forecasts; judge all.

    Writes results/PIPELINE: every model and run, pipeline_summary.json and .md. Ctrl-C stops; --resume goes on, also after
    a kill. A stage can come from elsewhere: pipeline.stages.generic=DIR, pipeline.stages.specialists=DIR.
    """
    from rlplatform.experiments.pipeline import new_pipeline, run_pipeline
    from rlplatform.experiments.pipeline_config import load_pipeline
    from rlplatform.experiments.pipeline_directory import PipelineDirectory
    from rlplatform.experiments.pipeline_plan import check_stage
    from rlplatform.experiments.progress import TrainingProgress

    check_stage("--skip", skip or ())
    check_stage("--only", (only,) if only else ())
    settings = [*(overrides or []), *([f"pipeline.skip=[{', '.join(skip)}]"] if skip else [])]
    directory = chosen_directory(PipelineDirectory, config, settings, resume, load_pipeline, new_pipeline)
    note(f"pipeline directory: {shown(directory.path)}")
    with stoppable("pipeline", directory):
        summary = run_pipeline(directory, only, TrainingProgress(log).note)
    if as_json:
        print_json(summary.to_dict() | {"path": str(directory.path)})
        return
    for title, rows in (
        ("Forecasters on the test period", summary.forecast_rows()),
        ("Specialists against the generic forecaster", summary.difference_rows()),
        (summary.pair_title, summary.pair_rows()),
    ):
        if rows:
            print_table(title, rows)
    print(summary.sentence)
    print(f"summary: {shown(directory.path / 'pipeline_summary.md')}")
