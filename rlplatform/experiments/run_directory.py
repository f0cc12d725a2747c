"""RunDirectory: what a run leaves behind, results/<run>/."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from rlplatform.experiments.config import ExperimentConfig, load_config
from rlplatform.experiments.loading import to_yaml
from rlplatform.experiments.secrets import redacted
from rlplatform.experiments.storage import local_results_dir
from rlplatform.features import FeatureScaler
from rlplatform.files import replaced_directory, write_json, write_text
from rlplatform.models.policy import Policy

SCALER_FILE = "scaler.json"
PACKAGES = ("ray", "torch", "gymnasium", "numpy", "pandas", "skfolio", "rlplatform")


class RunDirectory:
    """Paths and files of one run.

    ```
    config.yaml      complete            metrics.jsonl    one row an iteration
    manifest.json    what ran, on what   checkpoints/     best/ and last/, RLlib's own, and the one before each
    policy/          weights, their      report/          report.md, report.json, plots
                     config, the scaler
    ```
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, config: ExperimentConfig, now: datetime.datetime | None = None) -> RunDirectory:
        """A new directory under `config.results_dir` (under ./results where that is a bucket), with its config written."""
        now, results = now or datetime.datetime.now(), local_results_dir(config.results_dir)
        stem = f"{config.name}-{now:%Y%m%d-%H%M%S}"
        for number in range(1_000):
            path = results / (stem if number == 0 else f"{stem}-{number}")
            try:
                results.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if path.parent.is_dir():
                    continue
                raise ConfigError(f"results_dir = {config.results_dir!r} is a file; expected a directory.") from None
            except OSError as error:
                raise ConfigError(
                    f"results_dir = {config.results_dir!r} cannot be written to ({error.strerror}). Choose another."
                ) from error
            run = cls(path.resolve())
            run.write_config(config)
            return run
        raise ConfigError(f"{stem}: a thousand runs of that name exist in {results}. Remove some.")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run.

        Raises:
            ConfigError: no run there.
        """
        run = cls(Path(path).resolve())
        if not (run.path / "config.yaml").is_file():
            raise ConfigError(f"{path} is not a run: it has no config.yaml. Give a directory such as results/<run>.")
        return run

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def policy(self) -> Path:
        return self.path / "policy"

    @property
    def report(self) -> Path:
        return self.path / "report"

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
        """Drop rows after `iteration`: a resumed run repeats them."""
        rows = [row for row in self.metrics() if row["iteration"] <= iteration]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Without secrets: messages of errors may quote them."""
        write_json(self.path / "manifest.json", redacted(dict(manifest)))

    def manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def describe_environment() -> dict[str, Any]:
    """Code, packages and machine, for the manifest. Reads no environment variable."""
    # An installed copy may lie inside someone else's repository, whose commit says nothing about it.
    ours = _git("ls-files", "--error-unmatch", __file__) is not None
    return {
        "code_commit": _git("rev-parse", "HEAD") if ours else None,
        "code_modified": bool(_git("status", "--porcelain")) if ours else None,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": {"machine": platform.machine(), "cpu": _cpu_name(), "cores": os.cpu_count(), "gpus": _gpus()},
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
