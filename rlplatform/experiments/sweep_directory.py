"""SweepDirectory: what a sweep leaves behind, results/<sweep>/, and what each of its trials does."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.evaluation.metrics import Metrics
from rlplatform.evaluation.track import Track
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.search import Settings, SweepConfig, load_sweep
from rlplatform.experiments.storage import local_results_dir
from rlplatform.experiments.yaml_text import dump_yaml, read_yaml
from rlplatform.files import write_json, write_text

RUNNING, FINISHED, STOPPED, FAILED, ABANDONED = "running", "finished", "stopped", "failed", "abandoned"
STATUSES = (RUNNING, FINISHED, STOPPED, FAILED, ABANDONED)


@dataclass(frozen=True)
class TrialDirectory:
    """One trial: a run's directory with two files more.

    ```
    trial.json        its settings, its seed, how it stands
    validation.json   figures and daily returns of the policy it would be judged by, on the validation period
    ```
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.path)

    def record(self) -> dict[str, Any]:
        """trial.json: settings, seed, status, error; empty before the trial began."""
        return read_json(self.path / "trial.json")

    def begin(self, settings: Settings, seed: int) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "trial.json", {"settings": settings, "seed": seed, "status": RUNNING, "error": None})

    def end(self, status: str, error: str | None = None, final: bool = True) -> None:
        """How it went.

        Args:
            final: another attempt would end alike, so none is made.
        """
        write_json(self.path / "trial.json", self.record() | {"status": status, "error": error, "final": final})

    @property
    def settings(self) -> Settings:
        """Those that its judged policy was made with; a member of a population changes them as it goes."""
        return self.validation().get("settings") or self.record()["settings"]

    def validation(self) -> dict[str, Any]:
        """validation.json: "iteration", "settings", "metrics", "dates", "returns"; empty before the first look."""
        return read_json(self.path / "validation.json")

    def write_validation(self, iteration: int, metrics: Metrics, track: Track) -> None:
        figures = {f"validation_{name}": value for name, value in metrics.to_dict().items()}
        days = [str(date)[:10] for date in track.dates[1:]]
        content = {"iteration": iteration, "settings": self.record()["settings"], "metrics": figures}
        write_json(self.path / "validation.json", content | {"dates": days, "returns": track.returns.tolist()})


class SweepDirectory:
    """Paths and files of one sweep.

    ```
    sweep.yaml       config and search       results.parquet, results.csv     one row a trial
    manifest.json    what ran, on what       trial_returns.parquet            (T, trials) of the validation period
    trials/          one run each            plots/    parallel coordinates, effects of parameters
    winner/          judged on the test      tune/     Ray Tune's own state, for --resume
    ```
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, sweep: SweepConfig, now: datetime.datetime | None = None) -> SweepDirectory:
        """A new directory under `results_dir`, with sweep.yaml written."""
        results = local_results_dir(sweep.base.results_dir)
        stem = f"{sweep.base.name}-sweep-{now or datetime.datetime.now():%Y%m%d-%H%M%S}"
        for number in range(1_000):
            path = results / (stem if number == 0 else f"{stem}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if results.is_dir():
                    continue
                raise ConfigError(f"results_dir = {str(results)!r} is a file; expected a directory.") from None
            except OSError as error:
                raise ConfigError(
                    f"results_dir = {str(results)!r} cannot be written to ({error.strerror}). Choose another."
                ) from error
            directory = cls(path.resolve())
            write_text(directory.path / "sweep.yaml", dump_yaml(sweep.content))
            return directory
        raise ConfigError(f"{stem}: a thousand sweeps of that name exist in {results}. Remove some.")

    @classmethod
    def open(cls, path: Path) -> SweepDirectory:
        """An existing sweep.

        Raises:
            ConfigError: no sweep there.
        """
        directory = cls(Path(path).resolve())
        if not (directory.path / "sweep.yaml").is_file():
            raise ConfigError(f"{path} is not a sweep: it has no sweep.yaml. Give a directory such as results/<sweep>.")
        return directory

    @classmethod
    def newest_of(cls, sweep: SweepConfig) -> SweepDirectory:
        """The last sweep that was begun with exactly this file and these overrides.

        Raises:
            ConfigError: there is none.
        """
        results = local_results_dir(sweep.base.results_dir)
        begun = sorted(results.glob(f"{sweep.base.name}-sweep-*/sweep.yaml"), key=lambda path: path.stat().st_mtime)
        for path in reversed(begun):
            if read_yaml(path) == sweep.content:
                return cls(path.parent.resolve())
        others = f" {begun[-1].parent} was begun with other settings; give that directory to go on with it." if begun else ""
        raise ConfigError(f"no sweep {sweep.base.name} with these settings in {results} to go on with.{others}")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def tune(self) -> Path:
        return self.path / "tune"

    @property
    def winner(self) -> Path:
        return self.path / "winner"

    def config(self) -> SweepConfig:
        return load_sweep(self.path / "sweep.yaml")

    def trial(self, name: str) -> TrialDirectory:
        return TrialDirectory(self.path / "trials" / name)

    def trials(self) -> list[TrialDirectory]:
        """Those that have begun, by name."""
        return [TrialDirectory(path.parent) for path in sorted(self.path.glob("trials/*/trial.json"))]

    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json")

    def write_manifest(self, **changes: Any) -> None:
        """Put `changes` into manifest.json; the rest stays."""
        write_json(self.path / "manifest.json", self.manifest() | changes)


def count_statuses(trials: Sequence[TrialDirectory]) -> dict[str, int]:
    """How many trials stand how, without the zeros."""
    found = [trial.record()["status"] for trial in trials]
    return {status: found.count(status) for status in STATUSES if status in found}


def read_json(path: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
