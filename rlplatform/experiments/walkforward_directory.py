"""The `walkforward:` block of a file, and WalkForwardDirectory: what a walk-forward leaves behind, results/<walk>/."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import ConfigError
from rlplatform.algorithms.pretraining import PretrainConfig
from rlplatform.evaluation.folds import CombinatorialFold, Fold, FoldsConfig, Rows, combinatorial_folds, walk_folds
from rlplatform.experiments.blocks import BlockFile, check_seeds
from rlplatform.experiments.config import WALKFORWARD, ExperimentConfig, SplitConfig
from rlplatform.experiments.loading import structure
from rlplatform.experiments.results_directory import BlockDirectory
from rlplatform.experiments.sweep_directory import TrialDirectory

Folds = list[Fold] | list[CombinatorialFold]


@dataclass(frozen=True, kw_only=True)
class WalkForwardConfig(FoldsConfig):
    """How often a policy is trained anew, and how it is judged; the windows are those of `FoldsConfig`.

    Attributes:
        seeds: each fold is trained once with each; the config's own if none is given. A path belongs to one seed.
        warm_start: a fold starts from the weights of the fold before (same seed) instead of from scratch.
        max_concurrent: trainings at the same time.
        configs_tried: settings that this one was chosen from, itself included; the deflated Sharpe ratio counts them.
    """

    seeds: tuple[int, ...] = ()
    warm_start: bool = False
    max_concurrent: int = 1
    configs_tried: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_concurrent", "configs_tried"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; expected at least 1.")
        check_seeds(self.seeds)
        if self.warm_start and self.combinatorial:
            raise ConfigError("warm_start: true; combinatorial splits have no order, none is before another. Leave it out.")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A training config, and the walk around it.

    Attributes:
        base: the config without the block. The walk goes from its first training day to its last test day.
        walkforward: see `WalkForwardConfig`.
        content: the file's mapping with overrides applied.
    """

    base: ExperimentConfig
    walkforward: WalkForwardConfig
    content: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.walkforward.seeds or (self.base.seed,)

    def folds(self, dates: np.ndarray) -> Folds:
        """What is trained: the folds of the walk's own days; rows count from the first of `dates`.

        Args:
            dates: (T,) of the whole tape.
        """
        begin, end = self._rows(dates)
        if self.walkforward.combinatorial:
            return [fold.shifted(begin) for fold in combinatorial_folds(end - begin, self.walkforward)]
        anchor = str(self.base.split.train[0])
        return [fold.shifted(begin) for fold in walk_folds(dates[begin:end], self.walkforward, anchor)]

    def config_for(
        self, fold: Fold | CombinatorialFold, dates: np.ndarray, seed: int, start: Path | None = None
    ) -> ExperimentConfig:
        """The training of one fold.

        Args:
            start: run whose policy it starts from.
        """
        training = self.base.training
        if start is not None:
            # The scaler is refitted, so the old policy is a start and not an authority: no pull towards it.
            training = replace(training, pretrain=PretrainConfig(run=str(start), kl_coeff=0.0))
        if isinstance(fold, Fold):
            parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
            split = SplitConfig(**{name: part and _days(dates, part) for name, part in parts.items()})
        else:
            split = self._split_with_gaps(fold, dates)
        return replace(self.base, split=split, seed=seed, training=training)

    def _rows(self, dates: np.ndarray) -> tuple[int, int]:
        """First row of the walk, and the one after its last."""
        first, last = self.base.split.train[0], self.base.split.test[1]
        days = np.asarray(dates).astype("datetime64[D]")
        begin, end = int(np.searchsorted(days, np.datetime64(first))), int(np.searchsorted(days, np.datetime64(last), "right"))
        if end - begin < 2:
            raise ConfigError(f"[{first}, {last}] (split.train to split.test) holds {end - begin} rows of the prices.")
        return begin, end

    def _split_with_gaps(self, fold: CombinatorialFold, dates: np.ndarray) -> SplitConfig:
        """All days of the walk but those of tests, purge and embargo; `test` is the first of the tests."""
        begin, end = self._rows(dates)
        edges = [begin - 1, *(row for stretch in fold.train for row in stretch), end]
        gaps = [(after + 1, before - 1) for after, before in zip(edges[::2], edges[1::2], strict=True)]
        return SplitConfig(
            train=_days(dates, (begin, end - 1)),
            test=_days(dates, fold.tests[0]),
            left_out=tuple(_days(dates, gap) for gap in gaps if gap[0] <= gap[1]),
        )


def load_walk(path: Path, overrides: Sequence[str] = ()) -> Walk:
    """A config with a walkforward block.

    Args:
        overrides: "key=value", of the config or of the block ("walkforward.max_concurrent=4").

    Raises:
        ConfigError: names the file, the key and the value.
    """
    file = BlockFile.read(path, WALKFORWARD, "tune_configs/walkforward_etf.yaml", overrides)
    where, base = file.where, file.base
    walkforward = structure(WalkForwardConfig, file.block, f"{where}: {WALKFORWARD}")
    if base.dataset is not None:
        raise ConfigError(f"{where}: dataset: logged episodes know nothing of folds; a walk-forward trains in the environment.")
    if walkforward.warm_start and not base.training.takes_pretraining:
        raise ConfigError(
            f"{where}: walkforward.warm_start with training.algorithm = {base.training.algorithm}, which starts from scratch. "
            "Leave it out, or use ppo or differentiable."
        )
    if walkforward.warm_start and base.training.pretrain is not None:
        raise ConfigError(f"{where}: walkforward.warm_start and training.pretrain both say where a fold starts. Keep one.")
    return Walk(base=base, walkforward=walkforward, content=file.content)


class WalkForwardDirectory(BlockDirectory):
    """Paths and files of one walk-forward.

    ```
    walkforward.yaml   config and block     walkforward.json   verdict, seeds, folds, deflated Sharpe ratio
    manifest.json      what ran, on what    folds.csv          one row a fold and seed
    folds/             one run each         path.csv           wealth of every seed's path, day by day
    report/            the judged path      tune/              Ray Tune's own files
    ```
    """

    KIND, CONTENT, SUFFIX = "walk-forward", "walkforward.yaml", "-walkforward"

    def walk(self) -> Walk:
        return load_walk(self.path / "walkforward.yaml")

    def fold(self, number: int, seed: int) -> TrialDirectory:
        return TrialDirectory(self.path / "folds" / f"{number:03d}-seed{seed}")

    def folds(self) -> list[TrialDirectory]:
        """Those that have begun, by name."""
        return [TrialDirectory(path.parent) for path in sorted(self.path.glob("folds/*/trial.json"))]


def _days(dates: np.ndarray, rows: Rows) -> tuple[datetime.date, datetime.date]:
    first, last = (dates[row].astype("datetime64[D]").item() for row in rows)
    return first, last
