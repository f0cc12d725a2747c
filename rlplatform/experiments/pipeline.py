"""Pipelines: a forecaster of all symbols, specialists of single ones, policies on pairs; as Ray tasks, each done once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from envs.errors import ConfigError, PlatformError
from rlplatform.evaluation.pair_choice import ChosenPair
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.feature_building import build_features
from rlplatform.experiments.pipeline_config import GENERIC, PAIRS, SPECIALISTS, STAGES, Pipeline
from rlplatform.experiments.pipeline_directory import PipelineDirectory, PipelineItem
from rlplatform.experiments.pipeline_plan import Plan
from rlplatform.experiments.pipeline_stages import judge_forecasters, make_generic, make_specialist, train_pair, walk_pair
from rlplatform.experiments.pipeline_summary import PipelineSummary
from rlplatform.experiments.provenance import timestamp
from rlplatform.experiments.ray_session import ray_session
from rlplatform.experiments.results_directory import FINISHED, INTERRUPTED
from rlplatform.experiments.storage import stored_afterwards
from rlplatform.experiments.tune_session import training_bundles
from rlplatform.features.forecasts import ForecastConfig
from rlplatform.features.forecasts.specialists import generic_model, specialists_at
from rlplatform.files import recover_directory

Note = Callable[[str], None]

RETRIES = 2  # of an item whose process died; what fails for a reason of its own is not tried again


class PipelineFailedError(PlatformError):
    """An item came to no end."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An item that is to be made: a function of `pipeline_stages` and its arguments after (pipeline, path)."""

    item: PipelineItem
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    gpus: float = 0.0


def new_pipeline(pipeline: Pipeline) -> PipelineDirectory:
    """Check prices, pairs and settings, then make the directory; a mistake leaves none behind.

    Raises:
        ConfigError, MarketDataError: the settings do not suit each other or the prices, or an extra is not installed.
    """
    Plan.of(pipeline)
    return PipelineDirectory.create(pipeline)


def run_pipeline(directory: PipelineDirectory, only: str | None = None, on_note: Note = lambda text: None) -> PipelineSummary:
    """Make what is missing, stage by stage, and the summary; what is finished is left alone.

    An item that was under way when it was killed is made again, a training from its last checkpoint.

    Args:
        only: run this stage and stop; those before it must be there.

    Raises:
        ConfigError: prices have changed since it began, or `only` names a stage that cannot run yet.
        PipelineFailedError: an item failed; the others of its stage have been made.
    """
    pipeline = directory.pipeline()
    plan = Plan.of(pipeline)
    tried = len(plan.pairs) * len(pipeline.block.allocation) * len(pipeline.seeds)
    directory.begin(pipeline.base, plan.market, pipeline=pipeline.base.name, seeds=list(pipeline.seeds), num_trials=tried)
    run = PipelineRun(directory=directory, pipeline=pipeline, plan=plan, on_note=on_note)
    with stored_afterwards(directory.path, pipeline.base.results_dir, on_note):
        try:
            run.make(only)
        except BaseException as error:
            directory.break_off(error)
            run.summarize()
            raise
        left = [stage for stage in STAGES if not run.is_done(stage)]
        status = INTERRUPTED if left else FINISHED
        directory.update_manifest(status=status, **({} if left else {"finished": timestamp()}))
        return run.summarize()


@dataclass(frozen=True, kw_only=True)
class PipelineRun:
    """A pipeline under way."""

    directory: PipelineDirectory
    pipeline: Pipeline
    plan: Plan
    on_note: Note

    def items(self, stage: str) -> list[PipelineItem]:
        """All that the stage is to make, done or not; none of a stage that is left out or given."""
        if not self.pipeline.is_run(stage):
            return []
        if stage == GENERIC:
            return [self.directory.generic()]
        if stage == SPECIALISTS:
            return [*map(self.directory.specialist, self.plan.symbols), self.directory.judgement()]
        block, found = self.pipeline.block, []
        for pair in self.plan.pairs:
            for arm in block.allocation:
                found += [self.directory.training(pair, arm, seed) for seed in self.pipeline.seeds]
                found += [self.directory.walk(pair, arm)] if block.walkforward is not None else []
        return found

    def is_done(self, stage: str) -> bool:
        return all(item.status == FINISHED for item in self.items(stage))

    def summarize(self) -> PipelineSummary:
        """The summary as things stand, written."""
        stages = {stage: self.items(stage) for stage in STAGES}
        summary = PipelineSummary.of(self.directory, self.pipeline, self.plan.pairs, stages)
        summary.write(self.directory)
        return summary

    def make(self, only: str | None) -> None:
        wanted = [stage for stage in STAGES if only in (None, stage)]
        for stage in STAGES[: STAGES.index(only)] if only else ():
            if not self.is_done(stage):
                raise ConfigError(
                    f"--only {only}: the stage {stage} before it is not finished. Run it first, give it, or skip it."
                )
        if all(self.is_done(stage) for stage in wanted):
            return
        makers = {GENERIC: self._generic, SPECIALISTS: self._specialists, PAIRS: self._pairs}
        with ray_session(self._processes()):
            for stage in wanted:
                if not self.is_done(stage):
                    makers[stage]()

    def _processes(self) -> int:
        walk = self.pipeline.block.walkforward
        side_by_side = max(self.pipeline.block.max_concurrent, walk.max_concurrent if walk else 0)
        return side_by_side * len(training_bundles(self.pipeline.base)) + 1

    def _generic(self) -> None:
        self.on_note(f"{GENERIC}: one forecaster of {', '.join(self.plan.prices.symbols)}")
        self._run([Task(item=self.directory.generic(), function=make_generic, arguments=())])

    def _specialists(self) -> None:
        self.on_note(f"{SPECIALISTS}: {', '.join(self.plan.symbols)}")
        parent = str(self._generic_model())
        (self.directory.path / "specialists" / "models").mkdir(parents=True, exist_ok=True)
        for symbol in self.plan.symbols:
            recover_directory(self.directory.specialist(symbol).path)
        self._run(
            [
                Task(item=self.directory.specialist(symbol), function=make_specialist, arguments=(symbol, parent))
                for symbol in self.plan.symbols
            ]
        )
        models = {symbol: str(self.directory.specialist(symbol).path) for symbol in self.plan.symbols}
        self.on_note("judging the forecasters on the test period")
        self._run([Task(item=self.directory.judgement(), function=judge_forecasters, arguments=(parent, models))])

    def _generic_model(self) -> Path | None:
        given = self.pipeline.block.stages.generic
        if given is not None:
            return generic_model(Path(given))
        return self.directory.generic().path if self.pipeline.is_run(GENERIC) else None

    def _models(self) -> dict[str, str]:
        """Symbol → specialist."""
        given = self.pipeline.block.stages.specialists
        if given is not None:
            return specialists_at(Path(given))
        if not self.pipeline.is_run(SPECIALISTS):
            return {}
        return {symbol: str(self.directory.specialist(symbol).path) for symbol in self.plan.symbols}

    def forecasts(self, pair: ChosenPair) -> ForecastConfig | None:
        """Those of the pair's policies: by the specialists, else the generic forecaster, else as the file has it."""
        if not self.pipeline.has_forecasters:
            return self.pipeline.base.features.forecasts
        generic, models = self._generic_model(), self._models()
        own = {symbol: models[symbol] for symbol in pair.symbols if symbol in models}
        asked = self.pipeline.forecasts
        chronos = dataclasses.replace(asked.chronos, path=None if generic is None else str(generic), paths=own)
        return dataclasses.replace(asked, backend="auto" if asked.backend == "auto" else "chronos", chronos=chronos)

    def _pairs(self) -> None:
        trainings, walks = [], []
        for pair in self.plan.pairs:
            for arm in self.pipeline.block.allocation:
                for seed in self.pipeline.seeds:
                    config = self._config(pair, arm, seed)
                    gpus = training_bundles(config)[0].get("GPU", 0.0)
                    item = self.directory.training(pair, arm, seed)
                    trainings.append(Task(item=item, function=train_pair, arguments=(pair, config, arm), gpus=gpus))
                if self.pipeline.block.walkforward is not None:
                    config = self._config(pair, arm, self.pipeline.seeds[0])
                    walks.append(Task(item=self.directory.walk(pair, arm), function=walk_pair, arguments=(pair, config, arm)))
        self._store_forecasts([task for task in (*trainings, *walks) if task.item.status != FINISHED])
        self.on_note(f"{PAIRS}: {', '.join(pair.name for pair in self.plan.pairs)}")
        self._run(trainings)
        self._walk(walks)

    def _config(self, pair: ChosenPair, arm: str, seed: int) -> ExperimentConfig:
        folder = self.directory.pair_folder(pair)
        return self.pipeline.pair_config(pair, arm, seed, self.forecasts(pair), folder)

    def _store_forecasts(self, tasks: Sequence[Task]) -> None:
        """Into the feature store, once for each pair, so that no training makes them by itself."""
        configs = {
            task.arguments[0].name: task.arguments[1] for task in tasks if task.arguments[1].features.forecasts is not None
        }
        for name, config in configs.items():
            self.on_note(f"forecasts of {name}")
            build_features(config)

    def _run(self, tasks: Sequence[Task]) -> None:
        """Make what is not made, so many side by side.

        Raises:
            PipelineFailedError: one failed, after all have ended.
        """
        self._side_by_side([task for task in tasks if task.item.status != FINISHED])
        self._check([task.item for task in tasks])

    def _side_by_side(self, tasks: Sequence[Task]) -> None:
        """As Ray tasks, `max_concurrent` at a time, in order; what fails is written down."""
        waiting, running = list(reversed(tasks)), {}
        shared = ray.put(self.pipeline)
        while waiting or running:
            while waiting and len(running) < self.pipeline.block.max_concurrent:
                task = waiting.pop()
                remote = ray.remote(num_cpus=1, num_gpus=task.gpus, max_retries=RETRIES)(task.function)
                running[remote.remote(shared, str(self.directory.path), *task.arguments)] = task
            (ready, *_), _ = ray.wait(list(running))
            self._ended(running.pop(ready), ready)

    def _ended(self, task: Task, ready: Any) -> None:
        try:
            ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            if task.item.record().get("error") is None:
                task.item.fail(f"{type(error.cause).__name__}: {error.cause}")
        except ray.exceptions.RayError as error:  # its process or node died, more often than is tried
            task.item.fail(f"{type(error).__name__}: its process died, at the last of {RETRIES + 1} attempts")
        self._told(task.item)

    def _walk(self, tasks: Sequence[Task]) -> None:
        """One after the other, in this process: each has Ray Tune's processes of its own."""
        for task in tasks:
            if task.item.status == FINISHED:
                continue
            self.on_note(f"walk-forward: {task.item.name}")
            try:
                task.function(self.pipeline, str(self.directory.path), *task.arguments)
            except PlatformError as error:
                self.on_note(f"{task.item.name}: {error}")
            self._told(task.item)
        self._check([task.item for task in tasks])

    def _told(self, item: PipelineItem) -> None:
        record = item.record()
        how = record.get("error") or f"{record.get('seconds', 0.0):.0f} s"
        self.on_note(f"{item.stage} · {item.name} {record.get('status')} · {how}")
        self.summarize()

    def _check(self, items: Sequence[PipelineItem]) -> None:
        failed = [item for item in items if item.status != FINISHED]
        if failed:
            error = failed[0].record().get("error") or "it came to no end"
            more = f" ({len(failed) - 1} more, see pipeline_summary.md)" if len(failed) > 1 else ""
            raise PipelineFailedError(
                f"{self.directory.name}: {failed[0].stage}, {failed[0].name}: {error}{more} Once that is put right: "
                f"rlplatform pipeline --resume {self.directory.path}"
            )
