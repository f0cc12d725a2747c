"""PipelineDirectory: what a pipeline leaves behind, results/<pipeline>/, and how each of its items stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlplatform.evaluation.pair_choice import ChosenPair
from rlplatform.experiments.pipeline_config import GENERIC, PAIRS, SPECIALISTS, Pipeline, load_pipeline
from rlplatform.experiments.provenance import timestamp
from rlplatform.experiments.results_directory import FAILED, FINISHED, INTERRUPTED, RUNNING, BlockDirectory, read_json
from rlplatform.experiments.secrets import redacted
from rlplatform.files import write_json

WAITING = "waiting"


@dataclass(frozen=True)
class PipelineItem:
    """One thing that a stage makes: a forecaster, a judgement of forecasters, a training, a walk-forward.

    Attributes:
        stage: see `STAGES`.
        name: of it, such as "AAPL" or "AAPL-AMZN ppo seed 0".
        path: its folder.
        file: its record: status, seconds, settings, checkpoint with its hash, figures, error.
    """

    stage: str
    name: str
    path: Path
    file: Path

    def record(self) -> dict[str, Any]:
        """Empty before it began."""
        return read_json(self.file)

    @property
    def status(self) -> str:
        return self.record().get("status", WAITING)

    def make(self, about: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> None:
        """Do the work and write down how it went; what was begun before counts as another attempt.

        Args:
            about: settings and the like, known before.
            work: returns what is known after.
        """
        before, began = self.record(), time.monotonic()
        started = before.get("started", timestamp())
        own = {"stage": self.stage, "name": self.name, "started": started, "attempts": before.get("attempts", 0) + 1, **about}

        def write(status: str, **figures: Any) -> None:
            seconds = round(before.get("seconds", 0.0) + time.monotonic() - began, 3)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, redacted(own | {"status": status, "seconds": seconds} | figures))

        write(RUNNING)
        try:
            figures = work()
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            write(INTERRUPTED if stopped else FAILED, error=f"{type(error).__name__}: {error}")
            raise
        write(FINISHED, finished=timestamp(), **figures)

    def fail(self, error: str) -> None:
        """For an item whose process could not say so itself."""
        write_json(
            self.file, redacted(self.record() | {"stage": self.stage, "name": self.name} | {"status": FAILED, "error": error})
        )


class PipelineDirectory(BlockDirectory):
    """Paths and files of one pipeline.

    ```
    pipeline.yaml           config and blocks       generic/        model/ of the forecaster of all symbols
    manifest.json           what ran, on what       specialists/    models/<SYMBOL>/, evaluation.json
    pipeline_summary.json   every checkpoint,       pairs/<A>-<B>/  one run each: <allocation>-seed<k>/,
    pipeline_summary.md     metric and config                       and <allocation>-walkforward/
    pairs.png               the pairs' Sharpe ratios
    ```
    """

    KIND, CONTENT, SUFFIX = "pipeline", "pipeline.yaml", "-pipeline"

    def pipeline(self) -> Pipeline:
        return load_pipeline(self.path / self.CONTENT)

    def generic(self) -> PipelineItem:
        folder = self.path / "generic"
        return PipelineItem(GENERIC, "generic", folder / "model", folder / "item.json")

    def specialist(self, symbol: str) -> PipelineItem:
        folder, name = self.path / "specialists", quote(symbol, safe="")
        return PipelineItem(SPECIALISTS, symbol, folder / "models" / name, folder / "items" / f"{name}.json")

    def judgement(self) -> PipelineItem:
        """Of the forecasters, on the test days."""
        folder = self.path / "specialists"
        return PipelineItem(SPECIALISTS, "evaluation", folder, folder / "items" / "evaluation.json")

    def pair_folder(self, pair: ChosenPair) -> Path:
        return self.path / "pairs" / quote(pair.name, safe="-")

    def training(self, pair: ChosenPair, arm: str, seed: int) -> PipelineItem:
        folder = self.pair_folder(pair) / f"{arm}-seed{seed}"
        return PipelineItem(PAIRS, f"{pair.name} {arm} seed {seed}", folder, folder / "item.json")

    def walk(self, pair: ChosenPair, arm: str) -> PipelineItem:
        folder = self.pair_folder(pair) / f"{arm}-walkforward"
        return PipelineItem(PAIRS, f"{pair.name} {arm} walk-forward", folder, folder / "item.json")

    @property
    def summary(self) -> Path:
        return self.path / "pipeline_summary.json"
