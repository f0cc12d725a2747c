"""The commands that speak with a cluster: `rlplatform submit`, and `rlplatform jobs status|logs|stop`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.cli_output import note, print_json

if TYPE_CHECKING:  # the rooms take seconds to import; each command imports what it needs
    from ray.job_submission import JobDetails, JobSubmissionClient

FAILED, INTERRUPTED = 1, 130
LOCAL = "http://127.0.0.1:8265"

jobs_app = typer.Typer(help="Jobs on a Ray cluster: how they stand, their logs, stop.", no_args_is_help=True)

AddressOption = Annotated[
    str, typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The dashboard of the cluster's head node.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="As `submit` printed it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]


def submit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Settings; the file is shipped.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: results_dir=s3://bucket/results"),
    ] = None,
    address: AddressOption = LOCAL,
    sweep: Annotated[bool, typer.Option("--sweep", help="Run `rlplatform sweep` instead of `train`.")] = False,
    installed: Annotated[
        bool, typer.Option("--installed", help="Use the package installed on the cluster; else this source is shipped.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show the log until the job ends; exit code 1 when it failed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a training or a sweep on a Ray cluster.

    The same as `ray job submit --working-dir … -- python -m rlplatform train CONFIG.yaml`. Ctrl-C stops watching, not the job.
    """
    from rlplatform.experiments import jobs

    request = jobs.JobRequest(
        config=config,
        kind="sweep" if sweep else "train",
        overrides=jobs.parsed_overrides(overrides),
        installed=installed,
    )
    request.check()
    client = jobs.connect(address)
    job = jobs.submit(client, request)
    note(f"job {job} at {address}: {request.entrypoint}")
    if not wait:
        print_json({"job": job, "address": address}) if as_json else print(job)
        return
    _finish(_watch(client, job, as_json), as_json)


@jobs_app.command("status")
def jobs_status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="All jobs if not given.")] = None,
    address: AddressOption = LOCAL,
    as_json: JsonOption = False,
) -> None:
    """How a job stands, or all of them."""
    from rlplatform.experiments import jobs

    client = jobs.connect(address)
    rows = jobs.job_rows(client) if job is None else [jobs.job_row(jobs.job_details(client, job))]
    if as_json:
        print_json({"jobs": rows})
        return
    for row in rows:  # no table: a terminal's width must not cut an id that is to be copied
        seconds = "" if row["seconds"] is None else f"{row['seconds']} s"
        print(f"{row['job']}  {row['status']:<9}  {seconds:>8}  {row['command']}")


@jobs_app.command("logs")
def jobs_logs(
    job: JobArgument,
    address: AddressOption = LOCAL,
    wait: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends; exit code 1 when it failed.")] = False,
) -> None:
    """What a job has written."""
    from rlplatform.experiments import jobs

    client = jobs.connect(address)
    if wait:
        _finish(_watch(client, job, False), False)
        return
    sys.stdout.write(jobs.job_logs(client, job))


@jobs_app.command("stop")
def jobs_stop(job: JobArgument, address: AddressOption = LOCAL, as_json: JsonOption = False) -> None:
    """Stop a job. What it wrote until its last checkpoint stays."""
    from rlplatform.experiments import jobs

    row = jobs.job_row(jobs.stop(jobs.connect(address), job))
    print_json(row) if as_json else note(f"{job}: {row['status']}")


def _watch(client: JobSubmissionClient, job: str, as_json: bool) -> JobDetails:
    """Show the log until the end. With --json it goes to standard error."""
    from rlplatform.experiments import jobs

    def write(text: str) -> None:
        out = sys.stderr if as_json else sys.stdout
        out.write(text)
        out.flush()

    try:
        return jobs.follow(client, job, write)
    except KeyboardInterrupt:
        note(f"not watching any more; the job goes on. Stop it with: rlplatform jobs stop {job}")
        raise typer.Exit(INTERRUPTED) from None


def _finish(details: JobDetails, as_json: bool) -> None:
    """Say how it ended; exit with 1 unless the driver went through."""
    from rlplatform.experiments import jobs

    row = jobs.job_row(details)
    print_json(row) if as_json else note(f"{row['job']}: {row['status']} (exit code {row['exit_code']})")
    if not jobs.succeeded(details):
        raise typer.Exit(FAILED)
