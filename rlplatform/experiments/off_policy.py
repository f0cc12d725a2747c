"""Off-policy estimates of a run's policy beside what it really earns on the same days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.catalog import make_task
from envs.errors import ConfigError
from envs.trading_env import TradingVectorEnv
from rlplatform.evaluation.estimate_plot import EstimatePoint, plot_estimates
from rlplatform.experiments.config import ExperimentConfig
from rlplatform.experiments.logged_data import DatasetConfig, logged_episodes
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.files import replaced_file, write_json
from rlplatform.models.policy import Policy
from rlplatform.offline.behaviour import PolicyBehaviour
from rlplatform.offline.collecting import collect
from rlplatform.offline.episodes import Episodes
from rlplatform.offline.estimators import ESTIMATORS, Estimate, EstimatorConfig, estimate_value
from rlplatform.offline.manifest import DatasetManifest

LOGGED = "logged behaviour"


@dataclass(frozen=True, kw_only=True)
class MeasuredValue:
    """A mean over episodes that were really traded.

    Attributes:
        value, standard_error: discounted reward of an episode.
        episodes: how many.
    """

    value: float
    standard_error: float
    episodes: int

    @classmethod
    def of(cls, episodes: Episodes, gamma: float) -> MeasuredValue:
        values = episodes.returns_to_go(gamma)[episodes.starts]
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        return cls(value=float(values.mean()), standard_error=error, episodes=len(values))


@dataclass(frozen=True, kw_only=True)
class OffPolicyReport:
    """What was estimated, and what is true.

    Attributes:
        estimates: of the run's policy, sampled, from the logged episodes.
        logged: what the behaviour earned in them.
        truth: what the run's policy, sampled, earns in episodes of the same environment and days.
    """

    run: str
    gamma: float
    estimates: tuple[Estimate, ...]
    logged: MeasuredValue
    truth: MeasuredValue

    def rows(self) -> list[dict[str, Any]]:
        """For a table."""
        table = [
            {
                "estimator": f"{e.name}, {ESTIMATORS[e.name]}",
                "value": f"{e.value:.4g}",
                "95 % interval": f"{e.low:.4g} … {e.high:.4g}",
                "truth inside": self._holds_truth(e),
                "episodes": f"{e.effective_sample_size:.0f} effective",
            }
            for e in self.estimates
        ]
        for name, measured in (("truth, by trading", self.truth), (LOGGED, self.logged)):
            interval = f"± {measured.standard_error:.2g} s.e."
            row = {"estimator": name, "value": f"{measured.value:.4g}", "95 % interval": interval, "truth inside": ""}
            table.append(row | {"episodes": str(measured.episodes)})
        return table

    def notes(self) -> list[str]:
        """What a reader must know before trusting an estimate, each once."""
        notes: dict[str, list[str]] = {}
        for estimate in self.estimates:
            if estimate.note:
                notes.setdefault(estimate.note, []).append(estimate.name)
        return [f"{', '.join(names)}: {note}" for note, names in notes.items()]

    def _holds_truth(self, estimate: Estimate) -> bool:
        """Whether the interval reaches into the truth's own (two standard errors)."""
        slack = 2.0 * self.truth.standard_error
        return estimate.low - slack <= self.truth.value <= estimate.high + slack

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        estimates = [estimate.to_dict() for estimate in self.estimates]
        return asdict(self) | {"estimates": estimates}

    def points(self) -> list[EstimatePoint]:
        """For the plot."""
        policy = Path(self.run).name
        return [
            EstimatePoint(policy=policy, estimator=e.name, value=e.value, low=e.low, high=e.high, truth=self.truth.value)
            for e in self.estimates
        ]


def evaluate_off_policy(
    run: RunDirectory,
    datasets: Sequence[Path] = (),
    gamma: float = 0.99,
    estimators: Sequence[str] = (),
    truth_episodes: int = 400,
) -> OffPolicyReport:
    """Estimate a run's policy from logged episodes, and trade it in the same environment to see how near that came.

    Both count the rewards inside an episode's window alone. Writes report/off_policy.json and report/off_policy.png.

    Args:
        datasets: directories; those that the run learnt from if not given.
        gamma: discount a step.
        estimators: keys of `ESTIMATORS`; all that the dataset allows if not given.

    Raises:
        ConfigError: the run has no policy or no dataset, or an estimator needs probabilities that were not logged.
        DatasetError: a dataset that is not whole.
    """
    config = run.config()
    source = DatasetConfig(paths=tuple(map(str, datasets))) if datasets else config.dataset
    if source is None:
        raise ConfigError(f"{run.path.name} learnt from no dataset. Say which one to judge it by: --dataset DIR.")
    scaler, policy = run.scaler(), Policy.load(run.policy)
    episodes, manifest = logged_episodes(source, config.env.observe)
    wanted = tuple(estimators) or (tuple(ESTIMATORS) if manifest.has_log_prob else ("fqe",))
    settings = EstimatorConfig(after_truncation="nothing")
    report = OffPolicyReport(
        run=str(run.path),
        gamma=gamma,
        estimates=tuple(estimate_value(policy, episodes, gamma, wanted, config.seed, settings)),
        logged=MeasuredValue.of(episodes, gamma),
        truth=MeasuredValue.of(_traded(config, scaler, policy, manifest, truth_episodes), gamma),
    )
    _write(run, report)
    return report


def _traded(config: ExperimentConfig, scaler: Any, policy: Policy, manifest: DatasetManifest, count: int) -> Episodes:
    """Episodes of the policy on the days that the dataset was collected from."""
    tape = prepare_market(config, scaler).tape
    task, visible = make_task(config.env, tape, manifest.period["end"])
    env = TradingVectorEnv(task, visible.row_range(manifest.period["start"]), count, autoreset_mode="same_step")
    seed = int(np.random.SeedSequence([config.seed, 1]).generate_state(1)[0])  # not the draws that the data was made with
    return collect(env, PolicyBehaviour(policy, deterministic=False), (seed,), ())


def _write(run: RunDirectory, report: OffPolicyReport) -> None:
    run.report.mkdir(exist_ok=True)
    write_json(run.report / "off_policy.json", report.to_dict())
    with replaced_file(run.report / "off_policy.png") as draft:
        plot_estimates(report.points(), note=f"discount {report.gamma:g} a step").savefig(draft, format="png")
