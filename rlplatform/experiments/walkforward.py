"""Walk-forward: a policy trained anew before each test period, the tests joined into one path, the path judged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from envs.errors import PlatformError
from rlplatform.evaluation.report import write_report
from rlplatform.experiments.experiment import checked_market
from rlplatform.experiments.judged_report import guards_in_manifest, report_details
from rlplatform.experiments.loading import plain
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.provenance import timestamp
from rlplatform.experiments.results_directory import FAILED, FINISHED
from rlplatform.experiments.storage import stored_afterwards
from rlplatform.experiments.trial_training import train_trial
from rlplatform.experiments.tune_session import run_tasks, training_bundles
from rlplatform.experiments.walkforward_directory import Folds, Walk, WalkForwardDirectory
from rlplatform.experiments.walkforward_path import WalkForwardResult
from rlplatform.experiments.walkforward_rejudging import judge_trained
from rlplatform.files import replaced_file, write_json

log = logging.getLogger(__name__)
Note = Callable[[str], None]
Job = tuple[int, int]  # fold, seed


class WalkForwardInterrupted(KeyboardInterrupt):
    """Someone stopped the walk-forward; it can be taken up again."""


class WalkForwardFailedError(PlatformError):
    """A fold could not be trained; without it there is no path."""


def new_walk(walk: Walk) -> WalkForwardDirectory:
    """Check prices, folds and settings, then make the directory; a mistake leaves none behind.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices.
    """
    _checked(walk)
    return WalkForwardDirectory.create(walk)


def run_walk(directory: WalkForwardDirectory, on_note: Note = lambda text: None) -> WalkForwardResult:
    """Train every fold that has not been trained, join their tests and judge the path.

    A fold that was under way when it was killed starts again from scratch, so that the result is that of a walk-forward that
    was never interrupted; finished folds are left alone.

    Raises:
        ConfigError: prices or features have changed since it began.
        WalkForwardInterrupted: Ctrl-C; the same call goes on.
        WalkForwardFailedError: a fold failed.
    """
    walk = directory.walk()
    dates, folds, market = _checked(walk)
    own = {"walkforward": walk.base.name, "settings": walk.content["walkforward"], "seeds": list(walk.seeds)}
    directory.begin(walk.base, market, **own, num_folds=len(folds), config=plain(walk.base))
    with stored_afterwards(directory.path, walk.base.results_dir, on_note):
        try:
            return _run(directory, walk, folds, dates, on_note)
        except BaseException as error:
            directory.break_off(error)
            raise


def _run(directory: WalkForwardDirectory, walk: Walk, folds: Folds, dates: Any, on_note: Note) -> WalkForwardResult:
    jobs = [(fold.number, seed) for seed in walk.seeds for fold in folds]
    if any(_left(directory, job) for job in jobs):
        on_note(f"training {len(folds)} folds with {len(walk.seeds)} seeds")
        _train_all(directory, walk, folds, dates)
    _check_all_trained(directory, jobs)
    on_note("joining the folds and judging the path")
    result, market = judge_trained(directory, walk, folds, dates)
    _write(directory, result, report_details(walk.base, market, result.verdict))
    return result


def _checked(walk: Walk) -> tuple[Any, Folds, Market]:
    """Dates of the tape, folds, and the first fold's market: all that can be checked before a training is spent on it."""
    dates = prepare_market(walk.base).tape.dates
    folds = walk.folds(dates)
    market = checked_market(walk.config_for(folds[0], dates, walk.seeds[0]))
    for fold in folds[1:]:  # days that do not follow each other show here
        walk.config_for(fold, dates, walk.seeds[0])
    return dates, folds, market


def _left(directory: WalkForwardDirectory, job: Job) -> bool:
    return directory.fold(*job).record().get("status") != FINISHED


def _train_all(directory: WalkForwardDirectory, walk: Walk, folds: Folds, dates: Any) -> None:
    """One of Tune's trials for each fold and seed; with a warm start for each seed, its folds one after the other."""
    numbers, seeds = [fold.number for fold in folds], walk.seeds
    if walk.walkforward.warm_start:
        chains = [[(number, seed) for number in numbers] for seed in seeds]
    else:
        chains = [[(number, seed)] for number in numbers for seed in seeds]
    chains = [chain for chain in chains if any(_left(directory, job) for job in chain)]
    run_tasks(
        run_chain,
        chains,
        {"path": str(directory.path), "walk": walk, "folds": folds, "dates": dates},
        told=partial(_ended, directory, len(folds) * len(seeds)),
        state=directory.tune,
        bundles=training_bundles(walk.base),
        concurrent=walk.walkforward.max_concurrent,
    )


def _ended(directory: WalkForwardDirectory, total: int, chain: list[Job]) -> list[str]:
    done = len([path for path in directory.folds() if path.record()["status"] == FINISHED])
    status = {job: directory.fold(*job).record().get("status", "not begun") for job in chain}
    return [f"{done}/{total} · fold {number}, seed {seed} {status[number, seed]}" for number, seed in chain]


def run_chain(chain: list[Job], path: str, walk: Walk, folds: Folds, dates: Any) -> None:
    """What Tune calls: train the folds of one chain that have not been trained, oldest first.

    A training that fails for a reason of its own, such as a loss that is no number, ends the chain with its error written
    down. What may go better the next time is raised, so that Tune tries again.
    """
    directory = WalkForwardDirectory(Path(path))
    for number, seed in chain:
        if not _left(directory, (number, seed)):
            continue
        start = directory.fold(number - 1, seed).path if walk.walkforward.warm_start and number > 0 else None
        config, trial = walk.config_for(folds[number], dates, seed, start), directory.fold(number, seed)
        try:
            train_trial(config, trial, {"fold": number})
        except Exception as error:
            if not trial.fail(error):
                raise
            break


def _check_all_trained(directory: WalkForwardDirectory, jobs: list[Job]) -> None:
    for job in jobs:
        record = directory.fold(*job).record()
        if record.get("status") == FAILED:
            raise WalkForwardFailedError(
                f"{directory.name}: fold {job[0]}, seed {job[1]}: {record['error']} Without it there is no path. "
                f"Once that is put right: rlplatform walkforward --resume {directory.path}"
            )
    if any(_left(directory, job) for job in jobs):
        raise WalkForwardInterrupted("stopped before all folds were trained")


def _write(directory: WalkForwardDirectory, result: WalkForwardResult, details: dict[str, Any]) -> None:
    write_report(directory.report, result.verdict, details)
    write_json(directory.path / "walkforward.json", result.to_dict())
    for name, table, index in (("folds.csv", pd.DataFrame(result.folds), False), ("path.csv", result.wealth(), True)):
        with replaced_file(directory.path / name) as draft:
            table.to_csv(draft, index=index)
    directory.update_manifest(
        status=FINISHED,
        finished=timestamp(),
        seed=result.seed,
        period=list(result.verdict.policy.period),
        **guards_in_manifest(result.verdict),
        tests={str(seed): metrics.to_dict() for seed, metrics in result.metrics.items()},
        test=result.verdict.metrics[result.verdict.policy.name].to_dict(),
        deflated_sharpe=result.evidence.to_dict(),
        verdict=result.verdict.sentence,
    )
