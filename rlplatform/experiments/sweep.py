"""Sweeps: many trainings of one config under Ray Tune, compared on the validation period, the winner judged on the test."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from envs.errors import ConfigError, PlatformError
from envs.tape import MarketTape
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.experiment import checked_market
from rlplatform.experiments.market import Market
from rlplatform.experiments.ray_session import ray_session
from rlplatform.experiments.run_directory import describe_environment
from rlplatform.experiments.search import SearchConfig, Settings, SweepConfig
from rlplatform.experiments.search_domain import Domain
from rlplatform.experiments.storage import is_remote, store
from rlplatform.experiments.sweep_directory import (
    ABANDONED,
    FAILED,
    RUNNING,
    STOPPED,
    SweepDirectory,
    TrialDirectory,
    count_statuses,
)
from rlplatform.experiments.sweep_results import SweepResults
from rlplatform.experiments.sweep_trial import INDEX, rows_before_test, run_trial, tasks_of
from rlplatform.experiments.sweep_winner import judge_winner

ATTEMPTS = 3  # of a trial whose process or node died; what fails for a reason of its own is not tried again
MOST_LOOKS = 10_000  # more than any trial has; ASHA never ends a trial for its length
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 the old output says nothing; the new one still does, on standard output
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a config stay what they are
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial writes its own metrics
    "TUNE_GLOBAL_CHECKPOINT_S": "2",  # a snapshot is small; the younger it is, the less a resumed sweep must find out anew
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the row of the trial has its error
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class SweepInterrupted(KeyboardInterrupt):
    """Someone stopped the sweep; it can be taken up again."""


class SweepFailedError(PlatformError):
    """No trial came to a score."""


def new_sweep(sweep: SweepConfig) -> SweepDirectory:
    """Check prices and settings, then make the sweep's directory; a mistake leaves none behind.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices.
    """
    checked_market(sweep.base)
    return SweepDirectory.create(sweep)


def run_sweep(directory: SweepDirectory, on_note: Callable[[str], None] = lambda text: None) -> SweepResults:
    """Run a sweep, or what is left of it: trials that have ended are not run again.

    Args:
        directory: of `new_sweep`, or of a sweep that was stopped or killed.
        on_note: is told the phases; trials that end are told on standard error by Tune's callback.

    Raises:
        SweepInterrupted: Ctrl-C; the same call goes on.
        SweepFailedError: every trial failed.
    """
    sweep, began = directory.config(), time.monotonic()
    market = checked_market(sweep.base)
    _begin(directory, sweep, market)
    try:
        if _left(directory, sweep, retried=True):
            on_note("starting Ray")
            _run_trials(directory, sweep, market.tape)
        if _left(directory, sweep) and not _out_of_time(sweep, began):
            raise SweepInterrupted("stopped before all trials had ended")
        _abandon_unknown(directory)
        results = _recorded(directory, sweep.search)
        on_note("judging the winner on the test period")
        _finish(directory, results)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        directory.write_manifest(status="interrupted" if interrupted else "failed", error=f"{type(error).__name__}: {error}")
        raise
    if is_remote(sweep.base.results_dir):
        on_note(f"stored at {store(directory.path, sweep.base.results_dir)}")
    return SweepResults.of(directory, sweep.search)


def _begin(directory: SweepDirectory, sweep: SweepConfig, market: Market) -> None:
    """Raises ConfigError where prices or features have changed since the sweep began."""
    before, now = directory.manifest(), datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    if before.get("tape_sha256", market.tape.sha256) != market.tape.sha256:
        raise ConfigError(f"{directory.name}: prices or features are not those it began with. Start a new sweep.")
    resumed = {"resumed": [*before.get("resumed", []), now]} if before else {}
    directory.write_manifest(
        sweep=sweep.base.name,
        status=RUNNING,
        error=None,
        started=before.get("started", now),
        **resumed,
        config_sha256=sweep.base.sha256,
        search=sweep.content["search"],
        seeds=list(sweep.seeds),
        data={"source": market.prices.source, "sha256": market.prices.sha256, "symbols": list(market.prices.symbols)},
        tape_sha256=market.tape.sha256,
        **describe_environment(),
    )


def _planned(sweep: SweepConfig) -> int | None:
    """How many trainings a sweep makes."""
    search = sweep.search
    settings = len(search.draws()) if search.algorithm in ("grid", "random") else search.num_samples
    return settings * (1 if search.algorithm == "pbt" else len(sweep.seeds))


def _left(directory: SweepDirectory, sweep: SweepConfig, retried: bool = False) -> int:
    """Trainings that have not ended.

    Args:
        retried: those that failed without a reason of their own are tried once more, so they count too.
    """
    records = [trial.record() for trial in directory.trials()]
    ended = [r for r in records if r["status"] not in (RUNNING, ABANDONED) and not (retried and not r["final"])]
    return max(0, _planned(sweep) - len(ended))


def _out_of_time(sweep: SweepConfig, began: float) -> bool:
    return sweep.search.time_budget_s is not None and time.monotonic() - began >= sweep.search.time_budget_s


def _run_trials(directory: SweepDirectory, sweep: SweepConfig, tape: MarketTape) -> None:
    processes = _bundles(sweep)
    with _environment(), ray_session(sweep.search.max_concurrent * len(processes) + 1):
        data = {"sweep": sweep, "path": str(directory.path), "tape": rows_before_test(sweep.base, tape)}
        trainable = tune.with_resources(tune.with_parameters(run_trial, **data), tune.PlacementGroupFactory(processes))
        space = _space(sweep)
        if tune.Tuner.can_restore(str(directory.tune)):
            tuner = tune.Tuner.restore(str(directory.tune), trainable, resume_errored=True, param_space=space)
        else:
            tuner = _tuner(directory, sweep, trainable, space)
        tuner.fit()


def _bundles(sweep: SweepConfig) -> list[dict[str, float]]:
    """What one trial takes: its own process, and one for each remote runner and learner; GPUs go with the learners."""
    training = sweep.base.training
    learners, gpus = training.num_learners, getattr(training, "num_gpus_per_learner", 0)
    learner = {"CPU": 1.0} | ({"GPU": float(gpus)} if gpus else {})
    own, remote = (learner, []) if learners == 0 else ({"CPU": 1.0}, [learner] * learners)
    return [own, *remote, *[{"CPU": 1.0}] * (training.num_processes - learners)]


def _space(sweep: SweepConfig) -> dict[str, Any]:
    """Tune draws only where it must: grids and random draws are planned beforehand, so that they can be checked."""
    if sweep.search.algorithm in ("grid", "random"):
        return {INDEX: tune.grid_search(list(range(_planned(sweep))))}
    return {key: domain.to_tune() for key, domain in sweep.search.parameters.items()}


def _tuner(directory: SweepDirectory, sweep: SweepConfig, trainable: Any, space: dict[str, Any]) -> tune.Tuner:
    search = sweep.search
    planned = search.algorithm in ("grid", "random")
    searcher = None
    if search.algorithm == "optuna":
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        searcher = OptunaSearch(metric=search.metric, mode=search.mode, seed=search.seed)
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode,
            num_samples=1 if planned else search.num_samples,
            max_concurrent_trials=search.max_concurrent,
            time_budget_s=search.time_budget_s,
            search_alg=searcher,
            scheduler=_scheduler(sweep),
        ),
        run_config=tune.RunConfig(
            name=directory.tune.name,
            storage_path=str(directory.path),
            verbose=0,
            callbacks=[TrialCallback(directory, sweep)],
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
        ),
    )


def _scheduler(sweep: SweepConfig) -> TrialScheduler | None:
    search = sweep.search
    if search.scheduler == "asha":
        return ASHAScheduler(time_attr="look", max_t=MOST_LOOKS, grace_period=search.grace_looks, reduction_factor=3)
    if search.algorithm == "pbt":
        mutations = {
            key: domain.to_tune() if domain.values is None else list(range(len(domain.values)))
            for key, domain in search.parameters.items()
        }
        return PopulationBasedTraining(
            time_attr="look",
            perturbation_interval=search.grace_looks,
            hyperparam_mutations=mutations,
            custom_explore_fn=partial(_inside, search.parameters),
            synch=False,
        )
    return None


def _inside(parameters: dict[str, Domain], sample: Settings) -> Settings:
    """PBT multiplies by 0.8 and 1.2; this brings values back into their ranges."""
    ranges = {key: domain.snapped(sample[key]) for key, domain in parameters.items() if domain.values is None}
    return sample | ranges


class TrialCallback(tune.Callback):
    """Told by Tune when a trial ends: writes down how, rewrites the results, and says so on standard error."""

    def __init__(self, directory: SweepDirectory, sweep: SweepConfig) -> None:
        self.directory, self.sweep = directory, sweep

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ended(trial, STOPPED, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        error = trial.get_error()
        self._ended(
            trial, FAILED, f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
        )

    def _ended(self, trial: Trial, status: str, error: str | None) -> None:
        for task in tasks_of(self.sweep, trial.config, trial.trial_id):
            directory = self.directory.trial(task.name)
            if directory.record().get("status", RUNNING) == RUNNING:  # it could not say so itself: stopped, or its process died
                if not directory.record():
                    directory.begin(task.settings, task.seed)
                directory.end(status, error, final=error is None)
            self._say(directory)
        _recorded(self.directory, self.sweep.search)

    def _say(self, directory: TrialDirectory) -> None:
        from rlplatform.experiments.progress import TrainingProgress

        record, search = directory.record(), self.sweep.search
        score = directory.validation().get("metrics", {}).get(search.metric)
        ended = sum(n for status, n in count_statuses(self.directory.trials()).items() if status != RUNNING)
        how = record["error"] or (f"{search.metric} –" if score is None else f"{search.metric} {score:.3f}")
        settings = ", ".join(f"{key} = {value}" for key, value in record["settings"].items())
        text = f"trial {ended}/{_planned(self.sweep)} {record['status']} · {how} · {settings}, seed {record['seed']}"
        TrainingProgress().note(text)


def _abandon_unknown(directory: SweepDirectory) -> None:
    """A kill can make Tune forget a trial that Optuna had proposed; it is not run again under that name."""
    for trial in directory.trials():
        if trial.record()["status"] == RUNNING:
            trial.end(ABANDONED, "the sweep was stopped, and another trial took its place")


def _recorded(directory: SweepDirectory, search: SearchConfig) -> SweepResults:
    """Results and manifest as they stand."""
    results = SweepResults.of(directory, search)
    results.write(directory)
    bars, columns = results.returns.shape
    directory.write_manifest(
        num_trials=len(results.trials),
        trials=dict(results.statuses),
        num_settings=len(results.settings),
        trial_returns={"file": "trial_returns.parquet", "bars": bars, "trials": columns},
    )
    return results


def _finish(directory: SweepDirectory, results: SweepResults) -> None:
    """Judge the winner, unless that has been done."""
    best, name = results.settings[0] if results.settings else None, results.median_trial
    if best is None or name is None:
        errors = results.trials["error"].dropna() if len(results.trials) else []
        first = f" The first: {errors.iloc[0]}" if len(errors) else ""
        raise SweepFailedError(f"{directory.name}: no trial came to a {results.search.metric}.{first}")
    winner = directory.manifest().get("winner") or {}
    if winner.get("trial") != name or not (directory.winner / "manifest.json").is_file():
        chosen = {"trial": name, "settings": best.settings, "num_trials": len(results.trials), "metric": results.search.metric}
        verdict = judge_winner(directory, directory.trial(name), chosen)
        winner = chosen | _told(best, verdict)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    directory.write_manifest(status="finished", finished=now, winner=winner)


def _told(best: Any, verdict: Verdict) -> dict[str, Any]:
    spread = best.spread if len(best.scores) > 1 else None
    return {
        "validation": {"mean": best.mean, "spread": spread, "seeds": len(best.scores)},
        "test": verdict.metrics[verdict.policy.name].to_dict(),
        "verdict": verdict.sentence,
    }


@contextmanager
def _environment() -> Iterator[None]:
    """Settings that Ray Tune takes from the environment only; what a user has set stays."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
