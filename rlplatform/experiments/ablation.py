"""Ablations: one training config in several arms and with several seeds, all judged on the same days against the first arm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from envs.errors import PlatformError
from rlplatform.evaluation.ablation_plot import plot_ablation
from rlplatform.evaluation.ablation_report import TEST, VALIDATION, AblationResult
from rlplatform.evaluation.metrics import summarize
from rlplatform.evaluation.track import Track
from rlplatform.experiments.ablation_config import Ablation, AblationDirectory
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.experiment import check_training, checked_market
from rlplatform.experiments.feature_building import build_features
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import Market, prepare_market
from rlplatform.experiments.optimum import optimal_log_growth
from rlplatform.experiments.provenance import describe_environment, timestamp
from rlplatform.experiments.results_directory import FAILED, FINISHED
from rlplatform.experiments.storage import stored_afterwards
from rlplatform.experiments.trial_training import train_trial
from rlplatform.experiments.tune_session import run_tasks, training_bundles
from rlplatform.files import replaced_file, write_json, write_text
from rlplatform.models.policy import Policy

log = logging.getLogger(__name__)
Note = Callable[[str], None]
Job = tuple[str, int]  # arm, seed


class AblationInterrupted(KeyboardInterrupt):
    """Someone stopped the ablation; it can be taken up again."""


class AblationFailedError(PlatformError):
    """A training failed; without it arms cannot be paired."""


def new_ablation(ablation: Ablation) -> AblationDirectory:
    """Check prices and settings of every arm, then make the directory; a mistake leaves none behind.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices.
    """
    base = ablation.base
    market = checked_market(base)
    for arm in ablation.ablation.arms:
        config = ablation.config_for(arm)
        if (config.data, config.features) == (base.data, base.features):  # the others' forecasts are not there yet
            check_training(config, market)
    return AblationDirectory.create(ablation)


def run_ablation(directory: AblationDirectory, on_note: Note = lambda text: None) -> AblationResult:
    """Train what has not been trained, then judge every arm and seed on validation and test.

    Forecasts that the arms need are put into their feature store first. A training that was under way when it was killed
    starts again from scratch; finished ones are left alone.

    Raises:
        ConfigError: prices or features have changed since it began.
        AblationInterrupted: Ctrl-C; the same call goes on.
        AblationFailedError: a training failed.
    """
    ablation = directory.ablation()
    market = checked_market(ablation.base)
    own = {"ablation": ablation.base.name, "settings": ablation.content["ablation"], "seeds": list(ablation.seeds)}
    jobs = [(arm, seed) for seed in ablation.seeds for arm in ablation.ablation.arms]
    directory.begin(ablation.base, market, **own, num_trials=len(jobs))
    with stored_afterwards(directory.path, ablation.base.results_dir, on_note):
        try:
            return _run(directory, ablation, jobs, on_note)
        except BaseException as error:
            directory.break_off(error)
            raise


def _run(directory: AblationDirectory, ablation: Ablation, jobs: list[Job], on_note: Note) -> AblationResult:
    if any(_left(directory, job) for job in jobs):
        _build_features(ablation, on_note)
        on_note(f"training {len(ablation.ablation.arms)} arms with {len(ablation.seeds)} seed(s)")
        _train_all(directory, ablation, jobs)
    _check_all_trained(directory, jobs)
    on_note("judging every arm on validation and test")
    result = _judged(directory, ablation)
    _write(directory, result)
    return result


def _left(directory: AblationDirectory, job: Job) -> bool:
    return directory.arm(*job).record().get("status") != FINISHED


def _build_features(ablation: Ablation, on_note: Note) -> None:
    """Forecasts of every arm that has some, into its store; what is there is not made again."""
    for arm in ablation.ablation.arms:
        config = ablation.config_for(arm)
        if config.features.forecasts is not None:
            build = build_features(config)
            if build.computed:
                on_note(f"{arm}: {build.computed:,} forecasts computed in {build.seconds:.0f} s")


def _train_all(directory: AblationDirectory, ablation: Ablation, jobs: list[Job]) -> None:
    """One of Tune's trials for each arm and seed."""
    left = [job for job in jobs if _left(directory, job)]
    bundles = max((training_bundles(ablation.config_for(arm)) for arm in ablation.ablation.arms), key=len)
    run_tasks(
        run_job,
        left,
        {"path": str(directory.path), "ablation": ablation},
        told=partial(_ended, directory, len(jobs)),
        state=directory.tune,
        bundles=bundles,
        concurrent=ablation.ablation.max_concurrent,
    )


def _ended(directory: AblationDirectory, total: int, job: Job) -> list[str]:
    done = len([run for run in directory.trained() if run.record()["status"] == FINISHED])
    arm, seed = job
    return [f"{done}/{total} · {arm}, seed {seed} {directory.arm(arm, seed).record().get('status', 'not begun')}"]


def run_job(job: Job, path: str, ablation: Ablation) -> None:
    """What Tune calls: train one arm with one seed.

    A training that fails for a reason of its own, such as a loss that is no number, ends with its error written down. What
    may go better the next time is raised, so that Tune tries again.
    """
    arm, seed = job
    trial = AblationDirectory(Path(path)).arm(arm, seed)
    try:
        train_trial(ablation.config_for(arm, seed), trial, {"arm": arm})
    except Exception as error:
        if not trial.fail(error):
            raise


def _check_all_trained(directory: AblationDirectory, jobs: list[Job]) -> None:
    for arm, seed in jobs:
        record = directory.arm(arm, seed).record()
        if record.get("status") == FAILED:
            raise AblationFailedError(
                f"{directory.name}: {arm}, seed {seed}: {record['error']} Without it arms cannot be paired. "
                f"Once that is put right: rlplatform ablation --resume {directory.path}"
            )
    if any(_left(directory, job) for job in jobs):
        raise AblationInterrupted("stopped before all arms were trained")


def _judged(directory: AblationDirectory, ablation: Ablation) -> AblationResult:
    """Every policy over validation and test, with the features it learnt from; the manifest of each run says how it did."""
    split, financing = ablation.base.split, ablation.base.env.financing
    periods = {VALIDATION: split.validation, TEST: split.test}
    tracks: dict[str, dict[str, dict[int, Track]]] = {name: {arm: {} for arm in ablation.ablation.arms} for name in periods}
    for arm in ablation.ablation.arms:
        market: Market | None = None
        for seed in ablation.seeds:
            config, run = ablation.config_for(arm, seed), directory.arm(arm, seed).run
            market = market or prepare_market(config, run.scaler())
            policy = Policy.load(run.policy)
            for name, days in periods.items():
                tracks[name][arm][seed] = backtest(config, market.tape, policy, *days, f"{arm}-seed{seed}")
            run.write_manifest(_manifest(config, market, tracks[TEST][arm][seed], arm))
    optima = {name: optimal_log_growth(ablation.base, market.tape, *days) for name, days in periods.items()}
    return AblationResult.of(
        tracks,
        ablation.reference,
        ablation.base.evaluation.bootstrap,
        financing.bars_per_year,
        notes=_notes(ablation),
        optimal_growth={name: growth for name, growth in optima.items() if growth is not None},
    )


def _manifest(config: ExperimentConfig, market: Market, track: Track, arm: str) -> dict[str, Any]:
    return {
        "run": config.name,
        "status": FINISHED,
        "finished": timestamp(),
        "arm": arm,
        "config_sha256": config.sha256,
        "data": market.described(),
        "tape_sha256": market.tape.sha256,
        "seeds": [config.seed],
        **describe_environment(),
        "test": summarize(track, config.env.financing.bars_per_year).to_dict(),
    }


def _notes(ablation: Ablation) -> list[str]:
    arms = [
        f"{arm}: {', '.join(f'{k} = {v}' for k, v in s.items()) or 'the file'}" for arm, s in ablation.ablation.arms.items()
    ]
    costs = ablation.base.env.costs
    return [
        *arms,
        f"Every arm pays {costs.proportional_bps:g} bp of traded value and is judged on the same days, one continuous path.",
        "Runs are paired by seed; a difference is the mean over seeds. Each resample draws blocks of days, the same for all "
        "runs, and seeds with replacement; intervals are not corrected for the number of arms.",
        "The SPA p-value counts the arms and the luck of days, not that of training: it is about these very policies.",
    ]


def _write(directory: AblationDirectory, result: AblationResult) -> None:
    columns = {
        track.name: pd.Series(track.returns, index=track.dates[1:])
        for tracks in result.tracks[VALIDATION].values()
        for track in tracks.values()
        if not track.ruined
    }
    with replaced_file(directory.path / "trial_returns.parquet") as draft:
        pd.DataFrame(columns).to_parquet(draft)
    write_json(directory.path / "ablation.json", result.to_dict())
    write_text(directory.path / "ablation.md", result.to_markdown())
    with replaced_file(directory.path / "ablation.png") as draft:
        plot_ablation(result).savefig(draft, format="png")
    directory.update_manifest(
        status=FINISHED,
        finished=timestamp(),
        trial_returns={"file": "trial_returns.parquet", "bars": len(next(iter(columns.values()), ())), "trials": len(columns)},
        edges={arm: edge.to_dict() for arm, edge in result.edges[TEST].items()},
        verdict=result.sentence,
    )
