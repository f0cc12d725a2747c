"""Standing: how far a training has come."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from envs.errors import ConfigError
from rlplatform.experiments.run_directory import RunDirectory

VALIDATION = "validation"


@dataclass
class Standing:
    """Where a training stands; saved with every checkpoint, so that a resumed run goes on from it.

    Attributes:
        env_steps: of a training in an environment.
        gradient_steps: of a training on a dataset.
        best_score, best_iteration: of the best checkpoint so far; None before there is one.
        best_by: who chose it: "validation", or an off-policy estimator.
        looks_since_best: looks that showed none better.
    """

    iteration: int = 0
    env_steps: int = 0
    gradient_steps: int = 0
    train_seconds: float = 0.0
    best_score: float | None = None
    best_iteration: int | None = None
    best_by: str | None = None
    looks_since_best: int = 0

    def remember(self, scores: Mapping[str, float]) -> bool:
        """Take note of a look at the policy; whether it is the best so far.

        Args:
            scores: judge → its figure, higher is better, NaN where it has none. An off-policy estimator that has one outranks
                the validation period, and figures of different judges are never compared.
        """
        known = [name for name, score in scores.items() if math.isfinite(score)]
        judge = min(known, key=lambda name: name == VALIDATION, default=None)
        best_by = VALIDATION if self.best_by is None and self.best_score is not None else self.best_by
        if judge is not None and (best_by is None or (judge != best_by and best_by == VALIDATION)):
            better = True
        else:
            better = judge is not None and judge == best_by and scores[judge] > self.best_score
        if better:
            self.best_score, self.best_iteration, self.best_by = scores[judge], self.iteration, judge
        # A resumed run may look again at the one that is known to be the best.
        self.looks_since_best = 0 if self.best_iteration in (None, self.iteration) else self.looks_since_best + 1
        return better

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
            standing.best_by = known.get("best_by", VALIDATION)
        else:  # none yet, or damaged and left out
            standing.best_score = standing.best_iteration = standing.best_by = None
            standing.looks_since_best = 0
        return standing
