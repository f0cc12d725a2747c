"""Tracking: what a run shows on Weights & Biases and TensorBoard. A run goes on whatever becomes of them."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from envs.errors import ConfigError
from rlplatform.experiments.secrets import redacted, redacted_text
from rlplatform.experiments.tracking_process import TrackingProcess

if TYPE_CHECKING:
    from rlplatform.evaluation.verdict import Verdict

log = logging.getLogger(__name__)
TEXT = (".yaml", ".json", ".jsonl", ".md", ".txt")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where a run is shown while it trains. Changes nothing of the run itself.

    Attributes:
        mode: of Weights & Biases. "online" needs a key (`wandb login` or WANDB_API_KEY) and a network; without them it
            keeps the run offline and says how to send it later.
        project, entity: on Weights & Biases; without an entity, your own.
        group: what belongs together; a sweep's name if not given.
        tags: to find it by.
        tensorboard: write tensorboard/ into the run directory.
    """

    mode: Literal["online", "offline", "disabled"] = "disabled"
    project: str = "rlplatform"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if not self.project or any(c in self.project for c in "/\\#?%:"):
            raise ConfigError(f"tracking.project = {self.project!r}; expected a name without / \\ # ? % and colons.")
        long = [tag for tag in self.tags if not 1 <= len(tag) <= 64]
        if long:
            raise ConfigError(f"tracking.tags: {long[0]!r} has {len(long[0])} characters; expected 1 to 64.")

    def in_sweep(self, sweep: str) -> TrackingConfig:
        """For one trial of a sweep: its group is the sweep, unless another was given."""
        return self if self.group else dataclasses.replace(self, group=sweep)


class Tracker:
    """Tells Weights & Biases and TensorBoard what `config` asks for; none of its methods raises or waits, `finish` apart.

    Each of the two gets a process of its own. One that fails or hangs is turned off with one line; the other goes on.
    Use it as a context: a block that ends without `finish`, by an error or Ctrl-C, ends the run as failed.

    Args:
        say: is told where the run is shown, and what was turned off and why. The log if not given.
        limit_s: the longest that `finish` waits for each of the two.
    """

    def __init__(self, config: TrackingConfig, say: Callable[[str], None] | None = None, limit_s: float = 60.0) -> None:
        self._config, self._say, self._limit_s = config, say or log.warning, limit_s
        self._processes: list[TrackingProcess] = []
        self._directory = Path()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish({"failed": True})

    def start(self, run_config: Any, directory: Path) -> None:
        """Begin, or go on with, the tracked run of this run directory.

        Args:
            run_config: mapping or dataclass; shown without its secrets.
        """
        self._directory = Path(directory).resolve()
        run = {
            "config": redacted(run_config),
            "directory": str(self._directory),
            "name": self._directory.name,
            "id": run_id(self._directory),
            "tracking": redacted(self._config),
        }
        modules = {"tracking_wandb": "W&B"} if self._config.mode != "disabled" else {}
        modules |= {"tracking_tensorboard": "TensorBoard"} if self._config.tensorboard else {}
        for module, label in modules.items():
            process = TrackingProcess(f"{__package__}.{module}", label, self._tell, self._limit_s)
            process.send("start", run=run)
            self._processes.append(process)

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of metrics.jsonl, under its own names; what is no finite number is left out."""
        figures = finite_numbers(row)
        for process in self._processes:
            process.send("log", row=figures, step=int(figures.get("iteration", 0)))

    def finish(self, verdict: Verdict | None = None, artifacts: Sequence[Path] | None = None) -> None:
        """End the tracked run as a success, with what came out of it.

        Args:
            verdict: its figures of the policy become the summary, its table a table.
            artifacts: texts and PNG pictures to keep with it, texts without their secrets; config, manifest and report
                if not given.
        """
        if not self._processes:
            return
        paths = default_artifacts(self._directory) if artifacts is None else artifacts
        outcome = {
            "texts": {self._name_of(path): text for path in paths if path.suffix in TEXT and (text := _text(path)) is not None},
            "pictures": [str(path) for path in paths if path.suffix == ".png"],
            **(redacted(_of_verdict(verdict)) if verdict else {}),
        }
        self._finish(outcome | {"failed": False})

    def _name_of(self, path: Path) -> str:
        path = path.resolve()
        return path.relative_to(self._directory).as_posix() if path.is_relative_to(self._directory) else path.name

    def _finish(self, outcome: dict[str, Any]) -> None:
        for process in self._processes:
            process.finish(outcome)
        self._processes = []

    def _tell(self, line: str) -> None:
        self._say(redacted_text(line))


def run_id(directory: Path) -> str:
    """The same for a run and its resumption, so that they are one run on Weights & Biases too."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:16]


def finite_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The row's numbers; JSON and plots know neither None nor NaN."""
    figures = {name: value for name, value in row.items() if isinstance(value, numbers.Real) and not isinstance(value, bool)}
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def default_artifacts(directory: Path) -> list[Path]:
    """Config, manifest and the report with its plots, as far as they are there."""
    report = directory / "report"
    texts = (directory / "config.yaml", directory / "manifest.json", report / "report.md", report / "report.json")
    return [path for path in (*texts, *sorted(report.glob("*.png"))) if path.is_file()]


def _text(path: Path) -> str | None:
    """The file's text without secrets; None where it cannot be read."""
    try:
        return redacted_text(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    start, end = verdict.policy.period
    figures = finite_numbers(verdict.metrics[verdict.policy.name].to_dict() | verdict.policy.guard_summary)
    return {
        "summary": figures | {"verdict": verdict.sentence, "judged_from": str(start), "judged_to": str(end)},
        "table": verdict.table.to_dict()["policies"],
    }
