"""RunDirectory: what a run leaves behind, results/<run>/."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.experiments.config import ExperimentConfig, load_config
from rlplatform.experiments.loading import to_yaml
from rlplatform.experiments.results_directory import ResultsDirectory
from rlplatform.features import FeatureScaler
from rlplatform.files import replaced_directory, write_json, write_text
from rlplatform.models.policy import Policy

SCALER_FILE = "scaler.json"


class RunDirectory(ResultsDirectory):
    """Paths and files of one run.

    ```
    config.yaml      complete            metrics.jsonl    one row an iteration
    manifest.json    what ran, on what   checkpoints/     best/ and last/, RLlib's own, and the one before each
    policy/          weights, their      report/          report.md, report.json, plots
                     config, the scaler
    ```
    """

    KIND, CONTENT, SUFFIX = "run", "config.yaml", ""

    @classmethod
    def create(cls, config: ExperimentConfig, now: datetime.datetime | None = None) -> RunDirectory:
        """A new directory under `config.results_dir`, with its complete config written.

        Raises:
            ConfigError: it cannot be made.
        """
        return cls._make(config, to_yaml(config), now)

    @property
    def policy(self) -> Path:
        return self.path / "policy"

    def checkpoint(self, which: str) -> Path:
        """ "best" or "last"."""
        return self.path / "checkpoints" / which

    def config(self) -> ExperimentConfig:
        return load_config(self.path / "config.yaml")

    def write_config(self, config: ExperimentConfig) -> None:
        write_text(self.path / "config.yaml", to_yaml(config))

    def scaler(self) -> FeatureScaler:
        """What scaled the features that the policy learnt from.

        Raises:
            ConfigError: the run has not got so far.
        """
        path = self.policy / SCALER_FILE
        if not path.is_file():
            raise ConfigError(f"{self.path} has no trained policy yet. Go on with it: rlplatform train --resume {self.path}")
        return FeatureScaler.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def write_policy(self, policy: Policy, scaler: FeatureScaler) -> None:
        """The judged policy, with all that it takes to use it."""
        with replaced_directory(self.policy) as directory:
            policy.save(directory)
            write_json(directory / SCALER_FILE, scaler.to_dict())

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl; a last line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")

    def keep_metrics_until(self, iteration: int) -> None:
        """Drop rows after `iteration`, and a line that was cut off: a resumed run repeats them."""
        if not (self.path / "metrics.jsonl").is_file():
            return
        rows = [row for row in self.metrics() if row["iteration"] <= iteration]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
