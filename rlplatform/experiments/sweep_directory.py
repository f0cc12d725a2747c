"""SweepDirectory: what a sweep leaves behind, results/<sweep>/, and what each of its trials does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import PlatformError
from rlplatform.evaluation.metrics import Metrics
from rlplatform.evaluation.track import Track
from rlplatform.experiments.results_directory import FAILED, FINISHED, RUNNING, BlockDirectory, read_json
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.search import Settings, SweepConfig, load_sweep
from rlplatform.experiments.trainers import ProcessLostError
from rlplatform.files import write_json

STOPPED, ABANDONED = "stopped", "abandoned"
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

    def fail(self, error: Exception) -> bool:
        """Write down what went wrong. True if another attempt would end alike, as with a loss that is no number."""
        final = isinstance(error, PlatformError) and not isinstance(error, ProcessLostError)
        self.end(FAILED, f"{type(error).__name__}: {error}", final=final)
        return final

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


class SweepDirectory(BlockDirectory):
    """Paths and files of one sweep.

    ```
    sweep.yaml       config and search       results.parquet, results.csv     one row a trial
    manifest.json    what ran, on what       trial_returns.parquet            (T, trials) of the validation period
    trials/          one run each            plots/    parallel coordinates, effects of parameters
    winner/          judged on the test      tune/     Ray Tune's own state, for --resume
    ```
    """

    KIND, CONTENT, SUFFIX = "sweep", "sweep.yaml", "-sweep"

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


def count_statuses(trials: Sequence[TrialDirectory]) -> dict[str, int]:
    """How many trials stand how, without the zeros."""
    found = [trial.record()["status"] for trial in trials]
    return {status: found.count(status) for status in STATUSES if status in found}
