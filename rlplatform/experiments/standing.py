"""Standing: how far a training has come."""

from __future__ import annotations

import json
from dataclasses import dataclass

from envs.errors import ConfigError
from rlplatform.experiments.run_directory import RunDirectory


@dataclass
class Standing:
    """Where a training stands; saved with every checkpoint, so that a resumed run goes on from it.

    Attributes:
        env_steps: of a training in an environment.
        gradient_steps: of a training on a dataset.
    """

    iteration: int = 0
    env_steps: int = 0
    gradient_steps: int = 0
    train_seconds: float = 0.0
    best_score: float | None = None
    best_iteration: int | None = None

    @classmethod
    def of(cls, run: RunDirectory) -> Standing:
        """At a run's last checkpoint.

        Raises:
            ConfigError: it has none.
        """
        last, best = (run.checkpoint(which) / "standing.json" for which in ("last", "best"))
        if not last.is_file():
            raise ConfigError(
                f"{run.path} has no checkpoint to go on from. Start it anew: rlplatform train {run.path / 'config.yaml'}"
            )
        standing = cls(**json.loads(last.read_text(encoding="utf-8")))
        if best.is_file():  # written before `last`: a kill between the two must not make them disagree
            known = json.loads(best.read_text(encoding="utf-8"))
            standing.best_score, standing.best_iteration = known["best_score"], known["best_iteration"]
        else:  # none yet, or damaged and left out
            standing.best_score = standing.best_iteration = None
        return standing
