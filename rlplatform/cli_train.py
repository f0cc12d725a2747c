"""The commands that train: `rlplatform train`, and `rlplatform offline train`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlplatform.cli_output import log, print_verdict, shown

if TYPE_CHECKING:  # the rooms take seconds to import; each command imports what it needs
    from rlplatform.evaluation.verdict import Verdict
    from rlplatform.experiments.experiment import Job
    from rlplatform.experiments.progress import TrainingProgress

INTERRUPTED = 130

ConfigArgument = Annotated[str | None, typer.Argument(metavar="[CONFIG.yaml]", help="Settings; see tune_configs/.")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Other settings than the file's: seed=1 training.learning_rate=1e-4"),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN_DIR",
        help="Go on with this run from its last checkpoint. training.total_env_steps=N beside it trains longer.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]


def train(
    config: ConfigArgument = None,
    overrides: OverridesArgument = None,
    resume: ResumeOption = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN_DIR", help="PPO or differentiable goes on from this run's policy."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="No remote runners or learners: everything in this process, breakpoints stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a policy, then judge it out of sample against simple ones.

    Writes results/RUN: settings, metrics, checkpoints, the policy and a report. Ctrl-C stops after the iteration
    under way; --resume takes the run up again.
    """
    _run(_preparation(config, overrides or [], resume, start, local), as_json)


def train_offline(
    config: ConfigArgument = None,
    overrides: OverridesArgument = None,
    resume: ResumeOption = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Learn from this dataset instead of the file's; give it again to mix several."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train on logged episodes (bc, marwil, cql, iql, discrete_cql), then judge out of sample.

    Market, features, split and environment are the dataset's unless the file gives its own. The policy is looked at on the
    validation period while it trains.
    """
    overrides = list(overrides or [])
    if dataset:
        overrides.append(f"dataset.paths=[{', '.join(map(str, dataset))}]")
    _run(_preparation(config, overrides, resume), as_json)


def _run(prepare: Callable[[], Job], as_json: bool) -> None:
    from rlplatform.experiments.progress import TrainingProgress

    with TrainingProgress(log) as progress:
        progress.phase("reading prices")
        job = prepare()
        progress.note(f"run directory: {shown(job.run.path)}")
        verdict = _train(job, progress)
    print_verdict(verdict, as_json, {"run": str(job.run.path), "report": str(job.run.report / "report.md")})
    if not as_json:
        print(f"report: {shown(job.run.report / 'report.md')}")


def _preparation(
    config: str | None, overrides: list[str], resume: Path | None, start: Path | None = None, local: bool = False
) -> Callable[[], Job]:
    """What is to be trained; mistakes that need no prices show here."""
    from rlplatform.experiments.config import in_one_process, load_config
    from rlplatform.experiments.experiment import new_job, resumed_job
    from rlplatform.experiments.pretraining import pretrain_overrides

    if resume is None:
        if config is None:
            raise typer.BadParameter("give a CONFIG.yaml, or --resume RUN_DIR.")
        if start is not None:
            overrides = [*pretrain_overrides(start), *overrides]
        loaded = load_config(Path(config), overrides)
        return partial(new_job, in_one_process(loaded) if local else loaded)
    if local:
        raise typer.BadParameter("give --local or --resume, not both: a resumed run goes on as it began.")
    if start is not None:
        raise typer.BadParameter("give --from or --resume, not both: a resumed run goes on from its own checkpoint.")
    if config is not None and "=" not in config:
        raise typer.BadParameter(f"give {config} or --resume, not both: a resumed run has its own config.yaml.")
    return partial(resumed_job, resume, overrides if config is None else [config, *overrides])


def _train(job: Job, progress: TrainingProgress) -> Verdict:
    from rlplatform.experiments.experiment import train_and_judge

    progress.begin(job.config.training.length, job.config.step_unit)
    try:
        return train_and_judge(job, progress.update, progress.phase, progress.note)
    except (KeyboardInterrupt, SystemExit):
        resumable = job.run.checkpoint("last").exists()
        how = f"--resume {shown(job.run.path)}" if resumable else f"{shown(job.run.path / 'config.yaml')}"
        progress.note(f"stopped. {'Go on' if resumable else 'No checkpoint yet; start anew'} with: rlplatform train {how}")
        raise typer.Exit(INTERRUPTED) from None
