"""What a pipeline's stages do, one function an item: Ray tasks, each in a process of its own, that can be done again."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.data import load_prices
from rlplatform.evaluation.pair_choice import ChosenPair
from rlplatform.evaluation.verdict import Verdict
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.experiment import Job, checked_market, resumed_job, train_and_judge
from rlplatform.experiments.forecasting import Forecasting, evaluate
from rlplatform.experiments.loading import plain
from rlplatform.experiments.pipeline_config import Pipeline
from rlplatform.experiments.pipeline_directory import PipelineDirectory
from rlplatform.experiments.results_directory import FINISHED
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.specialists import specialist_of
from rlplatform.experiments.tracking import Tracker
from rlplatform.experiments.walkforward import run_walk
from rlplatform.experiments.walkforward_directory import WalkForwardDirectory
from rlplatform.experiments.yaml_text import dump_yaml
from rlplatform.features.forecasts.chronos_training import train_forecaster
from rlplatform.features.forecasts.learned import SIDECAR
from rlplatform.features.forecasts.panel import log_returns_of
from rlplatform.files import directory_sha256, recover_directory, write_json, write_text

log = logging.getLogger(__name__)


def make_generic(pipeline: Pipeline, path: str) -> None:
    """Train one forecaster on every symbol's rows up to `forecasters_until`."""
    item, settings, until = PipelineDirectory(Path(path)).generic(), pipeline.forecast.train, pipeline.forecasters_until

    def work() -> Mapping[str, Any]:
        prices = load_prices(pipeline.base.data)
        item.path.parent.mkdir(parents=True, exist_ok=True)
        recover_directory(item.path)
        seeded = dataclasses.replace(settings, seed=settings.seed + pipeline.base.seed)
        trained = train_forecaster(
            prices.dates, log_returns_of(prices), until, item.path, seeded, pipeline.forecasts.ewma_decay
        )
        track_losses(pipeline.base, item.path.parent, plain(seeded), trained.losses)
        figures = {"parameters": trained.parameters, "series": trained.series, "values": trained.values}
        return _checkpoint(item.path) | {"metrics": figures | {"loss": trained.losses[-1][1]}, "losses": _rows(trained.losses)}

    item.make({"settings": plain(settings), "train_end": until}, work)


def make_specialist(pipeline: Pipeline, path: str, symbol: str, parent: str) -> None:
    """Go on with the generic forecaster's training on one symbol's rows up to `forecasters_until`."""
    item, settings, until = (
        PipelineDirectory(Path(path)).specialist(symbol),
        pipeline.forecast.finetune,
        pipeline.forecasters_until,
    )

    def work() -> Mapping[str, Any]:
        prices = load_prices(pipeline.base.data)
        made = specialist_of(prices, symbol, pipeline.base, settings, Path(parent), item.path, until)
        shown_at = item.file.parent.parent / "tracking" / item.path.name
        shown_at.mkdir(parents=True, exist_ok=True)
        track_losses(pipeline.base, shown_at, plain(settings), made.losses)
        figures = {"chosen_step": made.chosen_step, "choice_gain_percent": round(made.gain_percent, 3)}
        return _checkpoint(item.path) | {"metrics": figures, "looks": _rows(made.looks), "losses": _rows(made.losses)}

    item.make({"settings": plain(settings), "train_end": until, "parent_sha256": directory_sha256(Path(parent))}, work)


def judge_forecasters(pipeline: Pipeline, path: str, generic: str, models: Mapping[str, str]) -> None:
    """CRPS of the specialists, the generic forecaster and the file's backends on the days of `split.test`."""
    item = PipelineDirectory(Path(path)).judgement()

    def work() -> Mapping[str, Any]:
        experiment = pipeline.with_symbols(tuple(models))
        forecasting = Forecasting(experiment=experiment, block=pipeline.forecast, content=dict(pipeline.content))
        item.path.mkdir(parents=True, exist_ok=True)
        result = evaluate(forecasting, Path(generic), specialists=_common_folder(models))
        write_json(item.path / "evaluation.json", result.to_dict())
        return {"checkpoint": None, "metrics": result.to_dict() | {"sentence": result.sentence}}

    item.make({"settings": {"backends": list(pipeline.forecast.backends)}}, work)


def _common_folder(models: Mapping[str, str]) -> Path:
    return Path(next(iter(models.values()))).parent


def train_pair(pipeline: Pipeline, path: str, pair: ChosenPair, config: ExperimentConfig, arm: str) -> None:
    """One training run, as `rlplatform train` makes it; one that was under way goes on from its last checkpoint."""
    item = PipelineDirectory(Path(path)).training(pair, arm, config.seed)

    def work() -> Mapping[str, Any]:
        verdict = train_and_judge(_job(config, RunDirectory(item.path)), on_note=log.warning)
        best = item.path / "policy"
        manifest = RunDirectory(item.path).manifest()
        known = ("best_validation", "env_steps", "gradient_steps", "train_seconds", "parameters")
        return _checkpoint(best) | {
            "metrics": {name: manifest[name] for name in known if name in manifest} | {"test": manifest["test"]},
            **judged(verdict),
        }

    about = {"settings": {"config": str(item.path / "config.yaml")}, "config_sha256": config.sha256}
    item.make({"pair": list(pair.symbols), "allocation": arm, "seed": config.seed, **about}, work)


def _job(config: ExperimentConfig, run: RunDirectory) -> Job:
    if run.checkpoint("last").exists() and run.manifest().get("status") != FINISHED:
        return resumed_job(run.path)
    run.path.mkdir(parents=True, exist_ok=True)
    (run.path / "metrics.jsonl").unlink(missing_ok=True)  # of an attempt that came to no checkpoint
    run.write_config(config)
    return Job(config=config, market=checked_market(config), run=run)


def walk_pair(pipeline: Pipeline, path: str, pair: ChosenPair, config: ExperimentConfig, arm: str) -> None:
    """The pair's training anew before each test period; folds that have been trained are not trained again."""
    item = PipelineDirectory(Path(path)).walk(pair, arm)

    def work() -> Mapping[str, Any]:
        directory = WalkForwardDirectory(item.path)
        item.path.mkdir(parents=True, exist_ok=True)
        write_text(item.path / directory.CONTENT, dump_yaml(pipeline.walk(config).content))
        result = run_walk(directory, log.warning)
        test = result.verdict.metrics[result.verdict.policy.name].to_dict()
        return {
            "checkpoint": str(item.path / "folds"),
            "sha256": directory_sha256(item.path / "folds"),
            "metrics": {"test": test, "seed": result.seed, "sentence": result.sentence},
            **judged(result.verdict),
        }

    about = {"settings": {"config": str(item.path / WalkForwardDirectory.CONTENT)}, "config_sha256": config.sha256}
    item.make({"pair": list(pair.symbols), "allocation": arm, **about}, work)


def judged(verdict: Verdict) -> dict[str, Any]:
    """Of a verdict, what the summary tells: the sentence, the main baselines' figures, the edges over them."""
    return {
        "verdict": verdict.sentence,
        "period": [str(day) for day in verdict.policy.period],
        "policy": verdict.policy.name,
        "baselines": {name: verdict.metrics[name].to_dict() for name in verdict.main_names},
        "edges": [edge.to_dict() for edge in verdict.main_edges],
        "best_baseline": verdict.best_baseline,
    }


def track_losses(
    config: ExperimentConfig,
    directory: Path,
    settings: Mapping[str, Any],
    losses: Iterable[tuple[int, float]],
) -> None:
    """Show a forecaster's losses where the file's `tracking` shows runs."""
    tracking = config.tracking.in_sweep(config.name)
    with Tracker(tracking, log.warning) as tracker:
        tracker.start({"forecaster": dict(settings), "tracking": plain(tracking)}, directory)
        for number, (step, loss) in enumerate(losses, start=1):
            tracker.log({"iteration": number, "gradient_steps": step, "loss": loss})
        tracker.finish(artifacts=[])


def _checkpoint(folder: Path) -> dict[str, Any]:
    """Where it lies, and its hash.

    Raises:
        ConfigError: it is not there.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is missing; expected {SIDECAR} or a policy in it. Run the stage again.")
    return {"checkpoint": str(folder), "sha256": directory_sha256(folder)}


def _rows(pairs: Iterable[tuple[int, float]]) -> list[list[float]]:
    return [list(pair) for pair in pairs]
