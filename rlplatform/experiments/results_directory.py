"""ResultsDirectory: what runs, sweeps and walk-forwards have in common as directories of results/."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from envs.errors import ConfigError
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.market import Market
from rlplatform.experiments.provenance import describe_environment, timestamp
from rlplatform.experiments.secrets import redacted
from rlplatform.experiments.storage import local_results_dir
from rlplatform.experiments.yaml_text import dump_yaml, read_yaml
from rlplatform.files import write_json, write_text

RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
MOST = 1_000  # directories of one name and second


class ResultsDirectory:
    """A directory made under a name of its own, with the settings it was begun with and a manifest of how it stands.

    Attributes:
        KIND: what it is, for people.
        CONTENT: file of its settings; a directory that has it is of this kind.
        SUFFIX: of the config's name, in the directory's.
    """

    KIND: ClassVar[str]
    CONTENT: ClassVar[str]
    SUFFIX: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def _make(cls, config: ExperimentConfig, content: str, now: datetime.datetime | None) -> Self:
        """A new directory under `config.results_dir` (under ./results where that is a bucket), with its settings written.

        Raises:
            ConfigError: it cannot be made.
        """
        results = local_results_dir(config.results_dir)
        stem = f"{config.name}{cls.SUFFIX}-{now or datetime.datetime.now():%Y%m%d-%H%M%S}"
        for number in range(MOST):
            path = results / (stem if number == 0 else f"{stem}-{number}")
            try:
                results.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if results.is_dir():
                    continue
                raise ConfigError(f"results_dir = {config.results_dir!r} is a file; expected a directory.") from None
            except OSError as error:
                raise ConfigError(
                    f"results_dir = {config.results_dir!r} cannot be written to ({error.strerror}). Choose another."
                ) from error
            made = cls(path.resolve())
            write_text(made.path / cls.CONTENT, content)
            return made
        raise ConfigError(f"{stem}: a thousand {cls.KIND}s of that name exist in {results}. Remove some.")

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing one.

        Raises:
            ConfigError: none there.
        """
        found = cls(Path(path).resolve())
        if not (found.path / cls.CONTENT).is_file():
            example = f"results/<{cls.KIND}>"
            raise ConfigError(f"{path} is not a {cls.KIND}: it has no {cls.CONTENT}. Give a directory such as {example}.")
        return found

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def report(self) -> Path:
        return self.path / "report"

    def manifest(self) -> dict[str, Any]:
        return read_json(self.path / "manifest.json")

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """The whole of it. Without secrets: messages of errors may quote them."""
        write_json(self.path / "manifest.json", redacted(dict(manifest)))

    def update_manifest(self, **changes: Any) -> None:
        """Put `changes` into manifest.json; the rest stays."""
        self.write_manifest(self.manifest() | changes)

    def begin(self, config: ExperimentConfig, market: Market, /, **own: Any) -> None:
        """Say in the manifest that it runs, on what, since when, and when it was taken up again.

        Raises:
            ConfigError: prices or features have changed since it began.
        """
        before, now = self.manifest(), timestamp()
        if before.get("tape_sha256", market.tape.sha256) != market.tape.sha256:
            raise ConfigError(f"{self.name}: prices or features are not those it began with. Start a new {self.KIND}.")
        self.update_manifest(
            **own,
            status=RUNNING,
            error=None,
            started=before.get("started", now),
            **({"resumed": [*before.get("resumed", []), now]} if before else {}),
            config_sha256=config.sha256,
            data=market.described(),
            tape_sha256=market.tape.sha256,
            **describe_environment(),
        )

    def break_off(self, error: BaseException) -> None:
        """Say in the manifest why it does not go on."""
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # Ray turns SIGTERM into SystemExit while it starts
        self.update_manifest(status=INTERRUPTED if stopped else FAILED, error=f"{type(error).__name__}: {error}")


class Asked(Protocol):
    """A training file with a block, read: the training, and the whole of it as a mapping."""

    base: ExperimentConfig
    content: Mapping[str, Any]


class BlockDirectory(ResultsDirectory):
    """Of a training file with a block: a sweep or a walk-forward, which Ray Tune runs and which can be taken up again."""

    @classmethod
    def create(cls, asked: Asked, now: datetime.datetime | None = None) -> Self:
        """A new directory under `results_dir`, with the file's content written.

        Raises:
            ConfigError: it cannot be made.
        """
        return cls._make(asked.base, dump_yaml(asked.content), now)

    @classmethod
    def newest_of(cls, asked: Asked) -> Self:
        """The last one that was begun with exactly this file and these overrides.

        Raises:
            ConfigError: there is none.
        """
        results, name = local_results_dir(asked.base.results_dir), asked.base.name
        begun = sorted(results.glob(f"{name}{cls.SUFFIX}-*/{cls.CONTENT}"), key=lambda path: path.stat().st_mtime)
        for path in reversed(begun):
            if read_yaml(path) == asked.content:
                return cls(path.parent.resolve())
        others = f" {begun[-1].parent} was begun with other settings; give that directory to go on with it." if begun else ""
        raise ConfigError(f"no {cls.KIND} {name} with these settings in {results} to go on with.{others}")

    @property
    def tune(self) -> Path:
        """Ray Tune's own state."""
        return self.path / "tune"


def read_json(path: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
