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
from rlplatform.evaluation.folds import Fold, FoldsConfig, walk_folds
from rlplatform.experiments.config import WALKFORWARD, ExperimentConfig, SplitConfig, config_content
from rlplatform.experiments.loading import structure
from rlplatform.experiments.storage import local_results_dir
from rlplatform.experiments.sweep_directory import TrialDirectory, read_json
from rlplatform.experiments.yaml_text import dump_yaml, read_yaml
from rlplatform.files import write_json, write_text


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
        if len(set(self.seeds)) < len(self.seeds) or not all(0 <= seed < 2**31 for seed in self.seeds):
            raise ConfigError(f"seeds = {list(self.seeds)}; expected different whole numbers from 0 to 2^31 − 1.")


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

    def folds(self, dates: np.ndarray) -> list[Fold]:
        """The folds of the walk's own days; rows count from the first of `dates`.

        Args:
            dates: (T,) of the whole tape.
        """
        first, last = self.base.split.train[0], self.base.split.test[1]
        days = np.asarray(dates).astype("datetime64[D]")
        begin, end = int(np.searchsorted(days, np.datetime64(first))), int(np.searchsorted(days, np.datetime64(last), "right"))
        if end - begin < 2:
            raise ConfigError(f"[{first}, {last}] (split.train to split.test) holds {end - begin} rows of the prices.")
        moved = []
        for fold in walk_folds(dates[begin:end], self.walkforward, str(first)):
            parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
            rows = {name: part and (part[0] + begin, part[1] + begin) for name, part in parts.items()}
            moved.append(replace(fold, **rows))
        return moved

    def config_for(self, fold: Fold, dates: np.ndarray, seed: int, start: Path | None = None) -> ExperimentConfig:
        """The training of one fold.

        Args:
            start: run whose policy it starts from.
        """
        parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
        split = SplitConfig(**{name: part and (_day(dates[part[0]]), _day(dates[part[1]])) for name, part in parts.items()})
        training = self.base.training
        if start is not None:
            # The scaler is refitted, so the old policy is a start and not an authority: no pull towards it.
            training = replace(training, pretrain=PretrainConfig(run=str(start), kl_coeff=0.0))
        return replace(self.base, split=split, seed=seed, training=training)


def load_walk(path: Path, overrides: Sequence[str] = ()) -> Walk:
    """A config with a walkforward block.

    Args:
        overrides: "key=value", of the config or of the block ("walkforward.max_concurrent=4").

    Raises:
        ConfigError: names the file, the key and the value.
    """
    where, content = Path(path).name, config_content(path, overrides)
    if not isinstance(content.get(WALKFORWARD), Mapping):
        raise ConfigError(
            f"{where}: has no walkforward block of keys and values, see tune_configs/walkforward_etf.yaml. "
            f"One training alone: rlplatform train {path}"
        )
    base = structure(ExperimentConfig, {key: value for key, value in content.items() if key != WALKFORWARD}, where)
    walkforward = structure(WalkForwardConfig, content[WALKFORWARD], f"{where}: {WALKFORWARD}")
    if base.dataset is not None:
        raise ConfigError(f"{where}: dataset: logged episodes know nothing of folds; a walk-forward trains in the environment.")
    if walkforward.warm_start and base.training.pretrain is not None:
        raise ConfigError(f"{where}: walkforward.warm_start and training.pretrain both say where a fold starts. Keep one.")
    return Walk(base=base, walkforward=walkforward, content=content)


class WalkForwardDirectory:
    """Paths and files of one walk-forward.

    ```
    walkforward.yaml   config and block     walkforward.json   verdict, seeds, folds, deflated Sharpe ratio
    manifest.json      what ran, on what    folds.csv          one row a fold and seed
    folds/             one run each         path.csv           wealth of every seed's path, day by day
    report/            the judged path      tune/              Ray Tune's own files
    ```
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, walk: Walk, now: datetime.datetime | None = None) -> WalkForwardDirectory:
        """A new directory under `results_dir`, with walkforward.yaml written.

        Raises:
            ConfigError: it cannot be made.
        """
        results = local_results_dir(walk.base.results_dir)
        stem = f"{walk.base.name}-walkforward-{now or datetime.datetime.now():%Y%m%d-%H%M%S}"
        for number in range(1_000):
            path = results / (stem if number == 0 else f"{stem}-{number}")
            try:
                results.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if results.is_dir():
                    continue
                raise ConfigError(f"results_dir = {str(results)!r} is a file; expected a directory.") from None
            except OSError as error:
                raise ConfigError(f"results_dir = {str(results)!r} cannot be written to ({error.strerror}).") from error
            directory = cls(path.resolve())
            write_text(directory.path / "walkforward.yaml", dump_yaml(walk.content))
            return directory
        raise ConfigError(f"{stem}: a thousand walk-forwards of that name exist in {results}. Remove some.")

    @classmethod
    def open(cls, path: Path) -> WalkForwardDirectory:
        """An existing walk-forward.

        Raises:
            ConfigError: none there.
        """
        directory = cls(Path(path).resolve())
        if not (directory.path / "walkforward.yaml").is_file():
            raise ConfigError(f"{path} is not a walk-forward: it has no walkforward.yaml. Give a directory of results/.")
        return directory

    @classmethod
    def newest_of(cls, walk: Walk) -> WalkForwardDirectory:
        """The last walk-forward that was begun with exactly this file and these overrides.

        Raises:
            ConfigError: there is none.
        """
        results = local_results_dir(walk.base.results_dir)
        begun = sorted(results.glob(f"{walk.base.name}-walkforward-*/walkforward.yaml"), key=lambda path: path.stat().st_mtime)
        for path in reversed(begun):
            if read_yaml(path) == walk.content:
                return cls(path.parent.resolve())
        others = f" {begun[-1].parent} was begun with other settings; give that directory to go on with it." if begun else ""
        raise ConfigError(f"no walk-forward {walk.base.name} with these settings in {results} to go on with.{others}")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def tune(self) -> Path:
        return self.path / "tune"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def walk(self) -> Walk:
        return load_walk(self.path / "walkforward.yaml")

    def fold(self, number: int, seed: int) -> TrialDirectory:
        return TrialDirectory(self.path / "folds" / f"{number:03d}-seed{seed}")

    def folds(self) -> list[TrialDirectory]:
        """Those that have begun, by name."""
        return [TrialDirectory(path.parent) for path in sorted(self.path.glob("folds/*/trial.json"))]

    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json")

    def write_manifest(self, **changes: Any) -> None:
        """Put `changes` into manifest.json; the rest stays."""
        write_json(self.path / "manifest.json", self.manifest() | changes)


def _day(date: np.datetime64) -> datetime.date:
    return date.astype("datetime64[D]").item()
