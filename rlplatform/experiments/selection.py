"""Selection: which checkpoint of a training is the best where a held-out part of the logged episodes judges."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlplatform.experiments.config import ExperimentConfig
from rlplatform.models.policy import Policy
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators import Estimate, EstimatorConfig, estimates_of
from rlplatform.offline.estimators_target import target_actions
from rlplatform.offline.fitted_q import FittedQConfig
from rlplatform.offline.manifest import read_manifest
from rlplatform.offline.pieces import horizon_of, in_pieces

log = logging.getLogger(__name__)

FEWEST = 30  # effective pieces below which an estimate is not believed (docs/LOG.md, 2026-11-21)
DEFAULT_GAMMA = 0.99  # of an algorithm without one


def off_policy_judge(config: ExperimentConfig) -> str | None:
    """The estimator by which checkpoints are chosen: the one that `evaluation.select_by` names.

    auto is "wis" where there is no validation period, the dataset has log-probabilities, and at least twice `FEWEST` of its
    episodes would be held out; else None: the validation period chooses, or nothing does.
    """
    named, dataset = config.evaluation.select_by, config.dataset
    if named != "auto":
        return None if named == "validation" else named
    if dataset is None or config.split.validation is not None or config.evaluation.policy == "last":
        return None
    manifests = [read_manifest(Path(path)) for path in dataset.paths]
    held_out = config.evaluation.held_out * sum(manifest.episodes for manifest in manifests)
    return "wis" if held_out >= 2 * FEWEST and all(manifest.has_log_prob for manifest in manifests) else None


class HeldOutJudge:
    """Estimates what a policy would have earned from logged episodes that it has not learnt from.

    Judged is the policy as it samples, over `horizon_of(γ)` decisions from wherever the behaviour stood, with the training's γ:
    over whole episodes the ratios of the two policies multiply until one episode carries the estimate.

    Args:
        estimator: a key of `ESTIMATORS`.
        held_out: with the behaviour's log-probabilities.
        say: is told once if the estimate is not to be believed.
    """

    def __init__(
        self, estimator: str, held_out: Episodes, config: ExperimentConfig, say: Callable[[str], None] = log.warning
    ) -> None:
        self.estimator, self.held_out, self._say = estimator, held_out, say
        self._gamma, self._seed = float(getattr(config.training, "gamma", DEFAULT_GAMMA)), config.seed
        self._horizon = horizon_of(self._gamma)
        fitted_q = FittedQConfig(rounds=min(FittedQConfig.rounds, max(10, 2 * self._horizon)))  # no longer than rewards count
        self._settings = EstimatorConfig(after_truncation="nothing", bootstrap=config.evaluation.bootstrap, fitted_q=fitted_q)
        self._otherwise = "the last weights are judged" if config.split.validation is None else "the validation period does"
        self._said = False

    def score(self, policy: Policy, row: dict[str, Any]) -> float:
        """The estimate; NaN where fewer than `FEWEST` effective pieces carry it. Its figures go into the row of metrics."""
        estimate = self.estimate(policy)
        row |= {
            f"held_out_{self.estimator}": estimate.value,
            f"held_out_{self.estimator}_low": estimate.low,
            f"held_out_{self.estimator}_high": estimate.high,
            "held_out_effective": estimate.effective_sample_size,
        }
        if estimate.effective_sample_size >= FEWEST:
            return estimate.value
        if not self._said:
            self._said = True
            self._say(
                f"evaluation.select_by: {self.estimator} has {estimate.effective_sample_size:.1f} effective pieces of "
                f"{len(self.held_out)} held-out episodes at iteration {row.get('iteration', 0)}; below {FEWEST} it chooses no "
                f"checkpoint. Until it has more {self._otherwise}."
            )
        return math.nan

    def estimate(self, policy: Policy) -> Estimate:
        """Of the policy as it stands."""
        target = target_actions(policy, self.held_out, samples=self._settings.action_samples, seed=self._seed)
        pieces, law = in_pieces(self.held_out, target, self._horizon)
        return estimates_of(law, pieces, self._gamma, (self.estimator,), self._seed, self._settings)[0]
