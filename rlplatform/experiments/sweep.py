"""Sweeps: many trainings of one config under Ray Tune, compared on the validation period, the winner judged on the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from envs.errors import PlatformError
from envs.tape import MarketTape
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.experiment import checked_market
from rlplatform.experiments.judged_report import sweep_overfitting
from rlplatform.experiments.provenance import timestamp
from rlplatform.experiments.ray_session import ray_session
from rlplatform.experiments.results_directory import FINISHED
from rlplatform.experiments.search import SearchConfig, Settings, SweepConfig
from rlplatform.experiments.search_domain import Domain
from rlplatform.experiments.storage import stored_afterwards
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
from rlplatform.experiments.sweep_trial import INDEX, run_trial, tasks_of
from rlplatform.experiments.sweep_winner import judge_winner
from rlplatform.experiments.tune_session import ATTEMPTS, training_bundles, tune_environment, tune_run_config
from rlplatform.experiments.visible_rows import rows_before_test

MOST_LOOKS = 10_000  # more than any trial has; ASHA never ends a trial for its length


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
    own = {"sweep": sweep.base.name, "search": sweep.content["search"], "seeds": list(sweep.seeds)}
    directory.begin(sweep.base, market, **own)
    with stored_afterwards(directory.path, sweep.base.results_dir, on_note):
        try:
            _run(directory, sweep, market.tape, began, on_note)
        except BaseException as error:
            directory.break_off(error)
            raise
    return SweepResults.of(directory, sweep.search)


def _run(directory: SweepDirectory, sweep: SweepConfig, tape: MarketTape, began: float, on_note: Callable[[str], None]) -> None:
    if _left(directory, sweep, retried=True):
        on_note("starting Ray")
        _run_trials(directory, sweep, tape)
    if _left(directory, sweep) and not _out_of_time(sweep, began):
        raise SweepInterrupted("stopped before all trials had ended")
    _end_running(directory, out_of_time=_left(directory, sweep) > 0)
    results = _recorded(directory, sweep.search)
    on_note("judging the winner on the test period")
    _finish(directory, results)


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
    processes = training_bundles(sweep.base)
    with tune_environment(), ray_session(sweep.search.max_concurrent * len(processes) + 1):
        data = {"sweep": sweep, "path": str(directory.path), "tape": rows_before_test(sweep.base, tape)}
        trainable = tune.with_resources(tune.with_parameters(run_trial, **data), tune.PlacementGroupFactory(processes))
        space = _space(sweep)
        if tune.Tuner.can_restore(str(directory.tune)):
            tuner = tune.Tuner.restore(str(directory.tune), trainable, resume_errored=True, param_space=space)
        else:
            tuner = _tuner(directory, sweep, trainable, space)
        tuner.fit()


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
        run_config=tune_run_config(directory.tune, TrialCallback(directory, sweep)),
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
        self._ended(trial, FAILED, reason_of(trial.get_error() or ""))

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


def reason_of(errors: str) -> str:
    """In one line, why a trial failed for good: its last exception, or that its process or node died.

    Args:
        errors: Tune's error file, one entry an attempt.
    """
    *_, last = errors.strip().splitlines() or ["no reason was given"]
    if "The actor died" not in errors and "The actor is dead" not in errors:
        return last
    what = "its node died" if "node has died" in last else "its process was killed"
    return f"ProcessLostError: {what}, at the last of {ATTEMPTS} attempts; often for want of memory, see the node's logs"


def _end_running(directory: SweepDirectory, out_of_time: bool) -> None:
    """Write down how trials ended that Tune said nothing of: those under way when the time was up, and those it forgot.

    A kill can make it forget a trial that Optuna had proposed; it is not run again under that name.
    """
    for trial in directory.trials():
        if trial.record()["status"] != RUNNING:
            continue
        if not out_of_time:
            trial.end(ABANDONED, "the sweep was stopped, and another trial took its place")
        else:
            trial.end(STOPPED, None if trial.validation() else "the sweep's time was up before its first look")


def _recorded(directory: SweepDirectory, search: SearchConfig) -> SweepResults:
    """Results and manifest as they stand."""
    results = SweepResults.of(directory, search)
    results.write(directory)
    bars, columns = results.returns.shape
    directory.update_manifest(
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
    overfitting = sweep_overfitting(directory, directory.config().base.env.financing.bars_per_year)
    directory.update_manifest(status=FINISHED, finished=timestamp(), winner=winner, overfitting=overfitting)


def _told(best: Any, verdict: Verdict) -> dict[str, Any]:
    spread = best.spread if len(best.scores) > 1 else None
    return {
        "validation": {"mean": best.mean, "spread": spread, "seeds": len(best.scores)},
        "test": verdict.metrics[verdict.policy.name].to_dict(),
        "verdict": verdict.sentence,
    }
